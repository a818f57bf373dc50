"""The FAISS shard: near exact after rescoring, repeatable, and its file is trusted only if it is as written."""

from pathlib import Path

import numpy as np
import pytest

from memsvc.errors import StorageFailed
from memsvc.lattice import to_lattice
from memsvc.shards import faiss
from memsvc.shards.faiss import FaissShard
from memsvc.shards.flat import FlatShard

DIMS = 64


def _vectors(count: int, seed: int = 3, topics: int = 100) -> np.ndarray:
    """Lattice vectors around topics, which do not depend on the seed and come one after the other."""
    middles = np.random.default_rng(1).standard_normal((topics, DIMS))
    generator = np.random.default_rng(seed)
    data = middles[np.arange(count) * topics // count] + 0.5 * generator.standard_normal((count, DIMS))
    return to_lattice(data.astype(np.float32), np.zeros(DIMS))


def _shard(rows: np.ndarray, batch: int = 500, first: int = 0) -> FaissShard:
    shard = FaissShard(DIMS, first)
    for start in range(0, len(rows), batch):
        shard.add(rows[start : start + batch])
    return shard


def test_recall_at_16_against_flat_is_at_least_98_percent() -> None:
    """Proves on topics that come one after the other, so that most are past what the codes were learnt from: of the 16
    true best at least 98 in 100 are found, with their exact dot products, best first."""
    rows, queries = _vectors(6000), _vectors(200, seed=4)
    flat = FlatShard(DIMS)
    flat.add(rows)
    exact, found = flat.search(queries, 16), _shard(rows).search(queries, 16)
    shared = [np.isin(a, b).sum() for a, b in zip(exact.index, found.index, strict=True)]
    print(f"seeds 1, 3 and 4: recall@16 {np.mean(shared) / 16:.4f}")
    assert np.mean(shared) / 16 >= 0.98
    dots = np.take_along_axis(queries.astype(np.int64) @ rows.T.astype(np.int64), found.index, axis=1)
    np.testing.assert_array_equal(found.dot, dots)
    assert (np.diff(found.keys, axis=1) < 0).all()


def test_any_split_into_adds_gives_the_same_results() -> None:
    """Proves that batches of all, of 77 and of 1,000 bookmarks answer alike, bit for bit, with some not indexed yet."""
    rows, queries = _vectors(3100), _vectors(50, seed=4)
    expected = _shard(rows, batch=3100).search(queries, 16).keys
    for batch in (77, 1000):
        np.testing.assert_array_equal(_shard(rows, batch).search(queries, 16).keys, expected)


@pytest.mark.parametrize("count", [0, 5, 1000, 4000])
def test_few_bookmarks_are_all_compared(count: int) -> None:
    """Proves that below 4,096 bookmarks results are those of flat, blanks included."""
    rows, queries = _vectors(count or 1)[:count], _vectors(20, seed=4)
    flat = FlatShard(DIMS)
    flat.add(rows)
    np.testing.assert_array_equal(_shard(rows).search(queries, 16).keys, flat.search(queries, 16).keys)


def test_a_limit_hides_newer_bookmarks() -> None:
    """Proves that only bookmarks below the limit are found, in the graph and past it, under indices from `first`."""
    rows = _vectors(5000)
    shard = _shard(rows, first=10_000)
    assert (shard.first, len(shard), shard.dims) == (10_000, 5000, DIMS)
    for limit in (10_000, 10_020, 13_000, 15_000):
        hits = shard.search(rows[-5:], 40, limit)
        assert hits.index.max() < limit
        assert ((hits.index >= 10_000).sum(axis=1) == min(40, limit - 10_000)).all()


def test_a_new_generation_serves_from_its_number_of_bookmarks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that results are those of the generation due, whether it was made meanwhile or all bookmarks came at once,
    and that a limit shows what a shard of only the earlier bookmarks of that generation shows."""
    monkeypatch.setattr(faiss, "_GROWTH", 1.25)
    rows, queries = _vectors(9000), _vectors(50, seed=4)
    grown, filled, shorter = _shard(rows, batch=300), _shard(rows, batch=9000), _shard(rows[:8000], batch=300)
    np.testing.assert_array_equal(grown.search(queries, 16).keys, filled.search(queries, 16).keys)
    np.testing.assert_array_equal(grown.search(queries, 16, 8000).keys, shorter.search(queries, 16).keys)


def test_a_saved_generation_answers_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a shard of the same bookmarks reads the file instead of learning again, and that it can grow on."""
    monkeypatch.setattr(faiss, "_GROWTH", 1.25)
    rows, queries = _vectors(9000), _vectors(50, seed=4)
    shard = _saved(rows, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = _saved(rows, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    np.testing.assert_array_equal(again.search(queries, 16).keys, shard.search(queries, 16).keys)
    for one in (shard, again):
        one.add(_vectors(300, seed=8))
    np.testing.assert_array_equal(again.search(queries, 16).keys, shard.search(queries, 16).keys)


@pytest.mark.parametrize("case", ["other rows", "other first", "damaged"])
def test_a_file_that_is_not_exactly_right_is_not_read(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that with other content, another place or a flipped byte lists are learnt again."""
    monkeypatch.setattr(faiss, "_GROWTH", 1.25)
    rows = _vectors(9000)
    _saved(rows, tmp_path)
    if case == "damaged":
        for path in tmp_path.iterdir():
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
    wanted, first = _vectors(9000, seed=9) if case == "other rows" else rows, 5 if case == "other first" else 0
    found = _saved(wanted, tmp_path, first).search(wanted[:20], 16)
    np.testing.assert_array_equal(found.keys, _shard(wanted, first=first).search(wanted[:20], 16).keys)


def test_a_generation_that_cannot_be_saved_is_told_and_no_bookmark_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that a disk that refuses is an error of the add that waits for it, and that all bookmarks are found."""
    monkeypatch.setattr(faiss, "_GROWTH", 1.25)
    rows = _vectors(9000)
    shard = FaissShard(DIMS, 0, tmp_path / "gone")
    with pytest.raises(StorageFailed, match=r"expected to (write a shard|list shards)"):
        shard.add(rows)
    assert len(shard) == 9000
    np.testing.assert_array_equal(shard.search(rows[:100], 1).dot[:, 0], (rows[:100].astype(np.int64) ** 2).sum(axis=1))


def _saved(rows: np.ndarray, folder: Path, first: int = 0) -> FaissShard:
    """A shard of all these bookmarks, added at once, with its files, the next generation's among them."""
    shard = FaissShard(DIMS, first, folder)
    shard.add(rows)
    shard.settle()
    return shard
