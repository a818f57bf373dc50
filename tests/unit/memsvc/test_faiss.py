"""The FAISS shard: near exact after rescoring, repeatable, and its file is trusted only if it is as written."""

from pathlib import Path

import numpy as np
import pytest

from memsvc.lattice import to_lattice
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


@pytest.mark.parametrize("count", [0, 5, 1000, 2000])
def test_few_bookmarks_are_all_compared(count: int) -> None:
    """Proves that below 2,048 bookmarks results are those of flat, blanks included."""
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


def test_a_saved_shard_answers_as_before(tmp_path: Path) -> None:
    """Proves that what is loaded is the graph that was saved, for exactly its bookmarks, and that it can grow on."""
    rows, queries = _vectors(2560), _vectors(50, seed=4)
    shard = _shard(rows, first=300)
    path = shard.save(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    loaded = FaissShard.load(tmp_path, 300, rows)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.search(queries, 16).keys, shard.search(queries, 16).keys)
    for one in (shard, loaded):
        one.add(_vectors(512, seed=8))
    np.testing.assert_array_equal(loaded.search(queries, 16).keys, shard.search(queries, 16).keys)


@pytest.mark.parametrize("case", ["other rows", "other first", "damaged"])
def test_a_file_that_is_not_exactly_right_is_not_loaded(tmp_path: Path, case: str) -> None:
    """Proves that with other content, another place or a flipped byte there is no shard, rather than a wrong one."""
    rows = _vectors(1280)
    path = _shard(rows).save(tmp_path)
    if case == "damaged":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    wanted = _vectors(1280, seed=9) if case == "other rows" else rows
    assert FaissShard.load(tmp_path, 5 if case == "other first" else 0, wanted) is None
