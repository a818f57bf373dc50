"""The HNSW shard: near exact, repeatable, and its file is trusted only if it is as written."""

from pathlib import Path

import numpy as np
import pytest

from memsvc.lattice import to_lattice
from memsvc.shards.flat import FlatShard
from memsvc.shards.hnsw import HnswShard

DIMS = 64


def _vectors(count: int, seed: int = 3) -> np.ndarray:
    """Lattice vectors around 100 topics that do not depend on the seed."""
    topics = np.random.default_rng(1).standard_normal((100, DIMS))
    generator = np.random.default_rng(seed)
    data = topics[generator.integers(0, 100, count)] + 0.5 * generator.standard_normal((count, DIMS))
    return to_lattice(data.astype(np.float32), np.zeros(DIMS))


def _shard(rows: np.ndarray, batch: int = 500, first: int = 0) -> HnswShard:
    shard = HnswShard(DIMS, first)
    for start in range(0, len(rows), batch):
        shard.add(rows[start : start + batch])
    return shard


def test_recall_at_16_against_flat_is_at_least_98_percent() -> None:
    """Proves on clustered data that of the 16 true best at least 98 in 100 are found, with their exact dot products."""
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


def test_the_same_order_of_inserts_gives_the_same_results() -> None:
    """Two shards filled alike, though in other batches, answer alike bit for bit."""
    rows, queries = _vectors(3000), _vectors(100, seed=4)
    np.testing.assert_array_equal(
        _shard(rows, batch=3000).search(queries, 16).keys,
        _shard(rows, batch=77).search(queries, 16).keys,
    )


def test_a_limit_hides_newer_bookmarks_and_blanks_fill_up() -> None:
    """Only bookmarks below the limit are found, all of them if k allows, under indices that begin at `first`."""
    rows = _vectors(2000)
    shard = _shard(rows, first=10_000)
    assert (shard.first, len(shard), shard.dims) == (10_000, 2000, DIMS)
    hits = shard.search(rows[:5], 40, 10_020)
    assert (np.sort(hits.index, axis=1)[:, 20:] == np.arange(10_000, 10_020)).all()
    assert (hits.index[:, 20:] == -1).all()
    assert hits.index[:, 0].tolist() == [10_000, 10_001, 10_002, 10_003, 10_004]
    for nothing in (shard.search(rows[:2], 3, 10_000), HnswShard(DIMS).search(rows[:2], 3)):
        assert (nothing.index == -1).all()


def test_equal_vectors_do_not_break_a_search() -> None:
    """Copies that cut each other off in the graph cost hits, never the search."""
    shard = _shard(np.tile(_vectors(1), (600, 1)))
    hits = shard.search(_vectors(1), 600)
    assert hits.index.shape == (1, 600)
    assert (hits.index[0] >= 0).sum() >= 16


def test_a_saved_shard_answers_as_before(tmp_path: Path) -> None:
    """What is loaded is the graph that was saved, found by its first bookmark and content; an older file goes."""
    rows, queries = _vectors(2000), _vectors(50, seed=4)
    _shard(rows[:1100], first=300).save(tmp_path)
    shard = _shard(rows, first=300)
    shard.save(tmp_path)
    # The graph and its directions.
    assert len(list(tmp_path.iterdir())) == 2
    loaded = HnswShard.load(tmp_path, 300, rows)
    assert loaded is not None
    assert (loaded.first, len(loaded)) == (300, 2000)
    np.testing.assert_array_equal(loaded.search(queries, 16).keys, shard.search(queries, 16).keys)


@pytest.mark.parametrize("case", ["other rows", "other first", "damaged", "cut short"])
def test_a_file_that_is_not_exactly_right_is_not_loaded(tmp_path: Path, case: str) -> None:
    """Other content, another place, a flipped byte or a missing end: no shard, rather than a wrong one."""
    rows = _vectors(1100)
    path = _shard(rows).save(tmp_path)
    content = bytearray(path.read_bytes())
    if case == "damaged":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    if case == "cut short":
        path.write_bytes(content[:-1])
    wanted = _vectors(1100, seed=9) if case == "other rows" else rows
    assert HnswShard.load(tmp_path, 5 if case == "other first" else 0, wanted) is None
