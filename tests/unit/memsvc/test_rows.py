"""The one copy of a shard's vectors: what stands where, and exact comparison."""

from pathlib import Path

import numpy as np
import pytest

from memsvc.shards import rows as rows_module
from memsvc.shards.base import NOTHING, dot_of, index_of
from memsvc.shards.rows import LatticeRows

DIMS = 8


@pytest.fixture(params=["memory", "mapped", "no room"])
def filled(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[LatticeRows, np.ndarray]:
    """Rows over several segments, appended in uneven parts, and the same as one array."""
    monkeypatch.setattr(rows_module, "_SEGMENT_ROWS", 16)
    data = np.random.default_rng(2).integers(-900, 900, (301, DIMS)).astype(np.int16)
    folders = {"memory": None, "mapped": tmp_path, "no room": tmp_path / "gone"}
    rows = LatticeRows(DIMS, folders[request.param])
    for start, end in ((0, 1), (1, 16), (16, 90), (90, 90), (90, 301)):
        rows.extend(data[start:end])
    return rows, data


def test_rows_stand_where_they_were_appended(filled: tuple[LatticeRows, np.ndarray]) -> None:
    """Proves that slices and single places give the rows back across the ends of segments."""
    rows, data = filled
    assert (len(rows), rows.bytes) == (301, 301 * DIMS * 2)
    for start, end in ((0, 301), (15, 17), (31, 130), (300, 301), (5, 5)):
        np.testing.assert_array_equal(rows.wide(start, end), data[start:end])
    places = np.random.default_rng(3).integers(0, 301, 200)
    np.testing.assert_array_equal(rows.at(places), data[places])


def test_own_places_are_compared_exactly(filled: tuple[LatticeRows, np.ndarray]) -> None:
    """Proves that each query gets the best of its own places, and blanks where it has none."""
    rows, data = filled
    queries = data[[7, 40]].astype(np.float32)
    places = np.array([[7, 290, -1, 3], [12, -1, -1, -1]])
    keys = rows.rescored(queries, places, 3)
    expected = sorted(((int(data[7].astype(int) @ data[at].astype(int)), at) for at in (7, 290, 3)), reverse=True)
    assert list(zip(dot_of(keys)[0].astype(int).tolist(), index_of(keys)[0].tolist(), strict=True)) == expected
    assert index_of(keys)[1].tolist() == [12, -1, -1]
    assert keys[1, 1] == NOTHING
    np.testing.assert_array_equal(rows.compared(queries, 0, 301, 1)[:, 0] >= keys[:, 0], [True, True])


def test_mapped_segments_have_no_name_and_vanish_with_their_rows(tmp_path: Path) -> None:
    """Proves that nothing is left to collect after a crash: the folder lists no file while rows are mapped from it."""
    rows = LatticeRows(DIMS, tmp_path)
    rows.extend(np.ones((10, DIMS), dtype=np.int16))
    assert list(tmp_path.iterdir()) == []
    with Path("/proc/self/maps").open() as maps:
        assert any(str(tmp_path) in line and "(deleted)" in line for line in maps)


def test_where_the_disk_has_no_room_rows_are_held_and_a_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Proves that a folder that refuses costs memory and no row, and that it is told."""
    rows = LatticeRows(DIMS, tmp_path / "gone")
    rows.extend(np.ones((10, DIMS), dtype=np.int16))
    assert len(rows) == 10
    assert "they are held in memory" in caplog.text
