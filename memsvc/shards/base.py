"""What finders have in common: the protocol, the hits, and the order of hits.

A hit is kept as one integer key, so that sorting keys is the order of hits, ties included:

    key = dot product * 2 ** 38 + index of the bookmark       (dot within +-2 ** 24, index below 2 ** 38)

Invariants:
    A larger key is a better hit: the larger dot product, of equal ones the newer bookmark (and so the higher block).
    A dot product is an exact integer (see `memsvc.lattice`): keys do not depend on how a search was split.
"""

from collections.abc import Sized
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Int16Array = npt.NDArray[np.int16]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Rows = TypeVar("Rows", bound=Sized)

# Largest magnitude of a dot product of two lattice vectors.
DOT_MAX = 2**24
# Key of no hit: below every other.
NOTHING = np.iinfo(np.int64).min
_INDEX_BITS = 38


@dataclass(frozen=True)
class Hits:
    """Best bookmarks of each of m queries, best first, ties newer first; fewer than k end in blanks.

    Args:
        keys: Packed hits, int64 [m, k], NOTHING where there is none.
    """

    keys: Int64Array

    @property
    def index(self) -> Int64Array:
        """Bookmarks, int64 [m, k]; -1 where there is none."""
        return index_of(self.keys)

    @property
    def dot(self) -> Float32Array:
        """Lattice dot products, float32 [m, k], exact integers; minus infinity where there is none."""
        return dot_of(self.keys)


@dataclass(frozen=True)
class BlockHits:
    """Best distinct blocks of each of m queries, best first, ties higher block first; fewer than k end in blanks.

    Args:
        block: int64 [m, k]; -1 where there is none.
        dot: Lattice dot product of the block's best bookmark, float32 [m, k]; minus infinity where there is none.
        bookmark: That bookmark, the newest of equals, int64 [m, k]; -1 where there is none.
        found: Blocks found by each query, int64 [m].
    """

    block: Int64Array
    dot: Float32Array
    bookmark: Int64Array
    found: Int64Array


class Shard(Protocol):
    """One finder over one run of a stream's bookmarks, which are lattice vectors with ascending indices.

    Concurrency: an implementation says whether a search may overlap an add.
    """

    @property
    def dims(self) -> int:
        """Dimensions of a vector."""
        ...

    @property
    def first(self) -> int:
        """Index of the oldest bookmark held."""
        ...

    def __len__(self) -> int:
        """Bookmarks held."""
        ...

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims]; they get the next n indices."""
        ...

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Best k bookmarks of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        ...


class RowsShard(Generic[Rows]):
    """What shards that hold their own rows have in common.

    Args:
        dims: Dimensions of a vector.
        first: Index of the first bookmark that will be added.
        rows: Holds the vectors; empty.
    """

    def __init__(self, dims: int, first: int, rows: Rows) -> None:
        self._dims, self._first, self._rows = dims, first, rows

    @property
    def dims(self) -> int:
        """Dimensions of a vector."""
        return self._dims

    @property
    def first(self) -> int:
        """Index of the oldest bookmark held."""
        return self._first

    def __len__(self) -> int:
        """Bookmarks held."""
        return len(self._rows)


def pack(dots: npt.NDArray[np.generic], index: Int64Array) -> Int64Array:
    """Keys of hits: integer-valued dot products and their bookmarks' indices, of shapes that broadcast."""
    return (dots.astype(np.int64) << _INDEX_BITS) + index


def shifted(keys: Int64Array, offset: int) -> Int64Array:
    """The same hits with `offset` added to every index."""
    return np.where(keys == NOTHING, keys, keys + offset)


def index_of(keys: Int64Array) -> Int64Array:
    """Bookmark of each key; -1 for NOTHING."""
    return np.where(keys == NOTHING, -1, keys & ((1 << _INDEX_BITS) - 1))


def dot_of(keys: Int64Array) -> Float32Array:
    """Dot product of each key; minus infinity for NOTHING."""
    return np.where(keys == NOTHING, -np.inf, keys >> _INDEX_BITS).astype(np.float32)


def best(keys: Int64Array, k: int) -> Int64Array:
    """The k largest keys of each row, [m, n] to [m, k], descending; filled up with NOTHING."""
    n = keys.shape[1]
    if n > k:
        keys = np.partition(keys, n - k, axis=1)[:, n - k :]
    elif n < k:
        keys = np.pad(keys, ((0, 0), (0, k - n)), constant_values=NOTHING)
    return np.sort(keys, axis=1)[:, ::-1]


def best_of_pairs(query: Int64Array, keys: Int64Array, queries: int, k: int) -> Int64Array:
    """The k largest keys of each query out of loose (query, key) pairs: [p] and [p] to [queries, k], as `best`."""
    # ~key descends as key ascends, and unlike -key cannot overflow.
    order = np.lexsort((~keys, query))
    query, keys = query[order], keys[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    kept = rank < k
    table = np.full((queries, k), NOTHING)
    table[query[kept], rank[kept]] = keys[kept]
    return table
