"""The arithmetic of an exact search: the best rows of a matrix, all compared or most of them proven unable to win.

`wide` are queries and `rows` bookmarks, lattice vectors as float32, [m, dims] and [n, dims]; `floor`, float32 [m], is a
dot product that a hit must reach. Results are keys (see `memsvc.shards.base`) with a row's number in `rows` as index.

Invariant: `compare_all` and `compare_likely` return the same keys.
"""

import numpy as np

from memsvc.lattice import SIMILARITY_UNIT
from memsvc.shards.base import NOTHING, Float32Array, Int64Array, best_of_pairs, pack
from memsvc.shards.sketch import MARGIN

# Columns that maxima are folded into before a k-th best is taken; 256 queries by 8,192 rows take 1 ms.
_FOLD = 128
# Of each so many rows the one with the best bound is a seed.
_SEED_ROWS = 512
# A query that keeps more than this share of the rows is compared with all: in one product a row costs 25 times less.
_DENSE_SHARE = 24


def compare_all(wide: Float32Array, rows: Float32Array, k: int, floor: Float32Array) -> Int64Array:
    """Best k rows of each query, int64 [m, k], by one matrix product."""
    # Long side first: a few queries against many rows take a third less time than the other way round.
    return best_of_matrix((rows @ wide.T).T if len(wide) < 64 else wide @ rows.T, k, floor)


def compare_likely(
    wide: Float32Array, rows: Float32Array, bounds: Float32Array, k: int, floor: Float32Array
) -> Int64Array:
    """Best k rows of each query, int64 [m, k], comparing only rows whose bound reaches what is already found.

    Args:
        bounds: For each query and row, its dot product * SIMILARITY_UNIT is at most this + MARGIN; [m, n].
    """
    if bounds.shape[1] < 4 * k * _SEED_ROWS:
        return compare_all(wide, rows, k, floor)
    floor = np.maximum(floor, _seed_floor(wide, rows, bounds, k))
    least = (floor * SIMILARITY_UNIT - MARGIN).astype(np.float32)
    dense: list[int] = []
    keys = np.full((len(wide), k), NOTHING)
    for j, query in enumerate(wide):
        likely = np.flatnonzero(bounds[j] >= least[j])
        if len(likely) > len(rows) // _DENSE_SHARE:
            dense.append(j)
            continue
        dots = rows[likely] @ query
        kept = np.flatnonzero(dots >= floor[j])
        found = np.sort(pack(dots[kept], likely[kept]))[::-1][:k]
        keys[j, : len(found)] = found
    keys[dense] = compare_all(wide[dense], rows, k, floor[dense])
    return keys


def best_of_matrix(dots: Float32Array, k: int, floor: Float32Array) -> Int64Array:
    """Best k columns of each row of a matrix of dot products, [m, n] to int64 [m, k]."""
    groups = dots.shape[1] // _FOLD
    if groups > 1 and k <= _FOLD:
        # The k-th largest of maxima over separate columns is reached by at least k columns.
        folded = dots[:, : groups * _FOLD].reshape(len(dots), groups, _FOLD).max(axis=1)
        floor = np.maximum(floor, np.partition(folded, _FOLD - k, axis=1)[:, _FOLD - k])
    query, column = np.divmod(np.flatnonzero(dots >= floor[:, None]), max(1, dots.shape[1]))
    return best_of_pairs(query, pack(dots[query, column], column), len(dots), k)


def _seed_floor(wide: Float32Array, rows: Float32Array, bounds: Float32Array, k: int) -> Float32Array:
    """A dot product that at least k rows reach, for each query, [m]: the k-th best of some with good bounds."""
    groups = bounds.shape[1] // _SEED_ROWS
    grouped = bounds[:, : groups * _SEED_ROWS].reshape(len(bounds), groups, _SEED_ROWS)
    seeds = grouped.argmax(axis=2) + np.arange(groups) * _SEED_ROWS
    good = np.argpartition(np.take_along_axis(bounds, seeds, axis=1), groups - 4 * k, axis=1)[:, -4 * k :]
    dots = (rows[np.take_along_axis(seeds, good, axis=1)] @ wide[:, :, None])[:, :, 0]
    floor: Float32Array = np.partition(dots, 3 * k, axis=1)[:, 3 * k]
    return floor
