"""The flat shard against a naive int64 oracle."""

import numpy as np
import pytest

from memsvc.lattice import to_lattice
from memsvc.shards.base import DOT_MAX
from memsvc.shards.flat import FlatShard


def _vectors(count: int, dims: int, seed: int = 3) -> np.ndarray:
    """Lattice vectors around 20 topics, every tenth an exact copy of an earlier one, so that ties occur."""
    generator = np.random.default_rng(seed)
    topics = generator.standard_normal((20, dims))
    data = topics[generator.integers(0, 20, count)] + 0.5 * generator.standard_normal((count, dims))
    data[10::10] = data[5 : count - 5 : 10][: len(data[10::10])]
    return to_lattice(data.astype(np.float32), np.zeros(dims))


def _oracle(rows: np.ndarray, query: np.ndarray, k: int, end: int, dot_min: int = -DOT_MAX) -> list[tuple[int, int]]:
    """(dot, index) of the best k rows below `end`, by plain sorting."""
    dots = rows[:end].astype(np.int64) @ query.astype(np.int64)
    hits = [(int(dot), index) for index, dot in enumerate(dots) if dot >= dot_min]
    return sorted(hits, reverse=True)[:k]


def _pairs(index: np.ndarray, dot: np.ndarray) -> list[tuple[int, int]]:
    return [(int(d), int(i)) for i, d in zip(index, dot, strict=True) if i >= 0]


@pytest.mark.parametrize(("dims", "sketch_rows", "k"), [(24, 10**9, 4), (24, 10**9, 200), (256, 2048, 1)])
def test_search_equals_the_oracle(dims: int, sketch_rows: int, k: int) -> None:
    """Exact dot products, ties newer first, with and without sketches, for any limit and least dot product."""
    rows = _vectors(3000, dims)
    shard = FlatShard(dims, sketch_rows)
    for start in range(0, 3000, 700):
        shard.add(rows[start : start + 700])
    queries = rows[::331]
    for limit, dot_min in ((None, -DOT_MAX), (3000, 14_000_000), (2500, 0), (65, -DOT_MAX), (0, -DOT_MAX)):
        hits = shard.search(queries, k, limit, dot_min)
        assert hits.index.shape == (len(queries), k)
        for query, index, dot in zip(queries, hits.index, hits.dot, strict=True):
            end = 3000 if limit is None else limit
            assert _pairs(index, dot) == _oracle(rows, query, k, end, dot_min)


def test_missing_hits_are_blank() -> None:
    """Where fewer than k bookmarks exist, the rest is index -1 with dot minus infinity."""
    shard = FlatShard(8)
    assert shard.search(_vectors(2, 8), 2).index.tolist() == [[-1, -1], [-1, -1]]
    rows = _vectors(1, 8)
    shard.add(rows)
    hits = shard.search(rows, 2)
    assert hits.index.tolist() == [[0, -1]]
    assert hits.dot[0, 1] == -np.inf


def test_a_zero_vector_resembles_nothing() -> None:
    """A zero lattice vector has similarity 0 to everything and is found like any other."""
    shard = FlatShard(8)
    shard.add(np.zeros((2, 8), dtype=np.int16))
    hits = shard.search(_vectors(1, 8), 2)
    assert hits.index.tolist() == [[1, 0]]
    assert hits.dot.tolist() == [[0, 0]]


@pytest.mark.parametrize("sketch_rows", [10**9, 1500])
def test_dropping_old_rows_keeps_the_indices_of_the_others(sketch_rows: int) -> None:
    """After drop_before, the rest is found under its old index, and adds go on."""
    rows = _vectors(3000, 256)
    shard = FlatShard(256, sketch_rows)
    shard.add(rows[:2000])
    shard.drop_before(600)
    shard.add(rows[2000:])
    assert (shard.first, len(shard), shard.dims) == (600, 2400, 256)
    np.testing.assert_array_equal(shard.rows(700, 2100), rows[700:2100])
    hits = shard.search(rows[::500], 3, 2900)
    for query, index, dot in zip(rows[::500], hits.index, hits.dot, strict=True):
        expected = [(d, i + 600) for d, i in _oracle(rows[600:], query, 3, 2300)]
        assert _pairs(index, dot) == expected


def test_block_best_is_the_newest_best_bookmark_of_each_block() -> None:
    """Every block's best dot product and, of equal bookmarks, the newest, also with uneven blocks."""
    rows = _vectors(900, 16)
    shard = FlatShard(16)
    shard.add(rows)
    shard.drop_before(100)
    starts = np.unique(np.concatenate([[130], np.random.default_rng(5).integers(131, 880, 150)]))
    keys = shard.block_best(rows[:7], starts, 880)
    for query, own in zip(rows[:7], keys, strict=True):
        dots = rows.astype(np.int64) @ query.astype(np.int64)
        for key, start, end in zip(own.tolist(), starts, np.append(starts[1:], 880), strict=True):
            dot, index = max((int(dots[index]), int(index)) for index in range(start, end))
            assert key == (dot << 38) + index


@pytest.mark.parametrize("sketch_rows", [10**9, 1500])
@pytest.mark.parametrize("searched", [0, 900, 2000])
@pytest.mark.parametrize("dropped", [0, 850, 1000, 1300, 2100])
def test_rows_that_wait_for_a_search_are_rows_like_others(sketch_rows: int, searched: int, dropped: int) -> None:
    """Proves that rows read, dropped and searched are the same wherever the last search was, in pieces of any size."""
    rows = _vectors(3000, 256)
    shard = FlatShard(256, sketch_rows)
    for start in range(0, 3000, 100):
        shard.add(rows[start : start + 100])
        if start + 100 == searched:
            shard.search(rows[:2], 1)
    assert len(shard) == 3000
    np.testing.assert_array_equal(shard.rows(dropped, 2950), rows[dropped:2950])
    np.testing.assert_array_equal(shard.rows(2310, 2320), rows[2310:2320])
    shard.drop_before(dropped)
    assert (shard.first, len(shard)) == (dropped, 3000 - dropped)
    np.testing.assert_array_equal(shard.rows(dropped, 3000), rows[dropped:])
    hits = shard.search(rows[::500], 3, 2900)
    for query, index, dot in zip(rows[::500], hits.index, hits.dot, strict=True):
        assert _pairs(index, dot) == [(d, i + dropped) for d, i in _oracle(rows[dropped:], query, 3, 2900 - dropped)]
