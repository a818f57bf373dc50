"""The finders that descend a dictionary.

    TopicalShard       segments by similarity: approximate, looks at a number of nodes that hardly grows
    DictionaryShard    segments of the timeline or of chains: exact, or within a budget of nodes

Invariants:
    Results depend on the split of neither adds nor queries.
    Of `DictionaryShard` without a budget they are those of `FlatShard`, ties included. With one, a query that needs
    more returns the best it has found.
    Dot products of what is found are exact.

Concurrency: none of its own; the caller keeps adds and searches apart.
"""

from collections.abc import Callable

import numpy as np

from memsvc.columns import Column
from memsvc.dictionary.bounds import Bounds, make_bounds
from memsvc.dictionary.descent import descend
from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.settings import DictionarySettings, TopicalSettings
from memsvc.dictionary.topical import TopicalDictionary
from memsvc.shards.base import NOTHING, Hits, Int16Array, Int64Array, RowsShard, shifted

# Chains of the bookmarks from one index to another, exclusive, int64 [n].
ChainsOf = Callable[[int, int], Int64Array]


class DictionaryShard:
    """Finder over bookmarks `first` and on, by checkpoints over the timeline, or over chains.

    Args:
        dims: Dimensions of a vector.
        first: Index of the first bookmark that will be added.
        settings: Where checkpoints stand.
        bounds: What a checkpoint keeps; empty. Balls if None.
        chains_of: Orders bookmarks by chain; by position if None.
        budget: Nodes and bookmarks that a query looks at; None for exact results.

    Attributes:
        visited: Nodes and bookmarks that searches have looked at so far.
        proven: Queries so far whose result is exact.
    """

    def __init__(
        self,
        dims: int,
        first: int = 0,
        settings: DictionarySettings | None = None,
        bounds: Bounds | None = None,
        chains_of: ChainsOf | None = None,
        budget: int | None = None,
    ) -> None:
        self.visited = 0
        self.proven = 0
        self._first = first
        self._dictionary = Dictionary(dims, settings or DictionarySettings(), bounds or make_bounds("ball", dims))
        self._chains_of = chains_of
        self._budget = budget
        # Lists are numbered without holes; chains of one shard are not.
        self._list_of: dict[int, int] = {}

    @property
    def dims(self) -> int:
        """Dimensions of a vector."""
        return self._dictionary.dims

    @property
    def first(self) -> int:
        """Index of the oldest bookmark held."""
        return self._first

    def __len__(self) -> int:
        """Bookmarks held."""
        return len(self._dictionary)

    @property
    def bytes(self) -> int:
        """Bytes that checkpoints take, without the bookmarks and their vectors."""
        return self._dictionary.bytes

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims]."""
        start = self._first + len(self)
        if self._chains_of is None:
            lists = np.zeros(len(rows), dtype=np.int64)
        else:
            chains = self._chains_of(start, start + len(rows)).tolist()
            lists = np.array([self._list_of.setdefault(chain, len(self._list_of)) for chain in chains], dtype=np.int64)
        self._dictionary.extend(rows, lists)

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Best k bookmarks of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        end = None if limit is None else limit - self._first
        keys = np.full((len(queries), k), NOTHING)
        for out, query in zip(keys, queries, strict=True):
            descent = descend(self._dictionary, query, k, end, self._budget)
            out[:] = descent.keys
            self.visited += descent.visited
            self.proven += descent.proven
        return Hits(shifted(keys, self._first))


class TopicalShard(RowsShard[Column[np.int16]]):
    """Approximate finder over bookmarks `first` and on, by checkpoints over bookmarks that resemble each other.

    Args:
        dims: Dimensions of a vector.
        first: Index of the first bookmark that will be added.
        settings: How wide nodes and searches are.

    Attributes:
        dictionary: The checkpoints.
        visited: Nodes and bookmarks that searches have looked at so far.
    """

    def __init__(self, dims: int, first: int = 0, settings: TopicalSettings | None = None) -> None:
        super().__init__(dims, first, Column(np.int16, dims))
        self.dictionary = TopicalDictionary(dims, settings or TopicalSettings())
        self.visited = 0

    @property
    def bytes(self) -> int:
        """Bytes that checkpoints take, without the bookmarks' vectors."""
        return self.dictionary.bytes

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims]; about 0.3 ms each."""
        self._rows.extend(rows)
        self.dictionary.place(self._rows.view())

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Likely best k bookmarks of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        end = None if limit is None else limit - self._first
        keys = np.full((len(queries), k), NOTHING)
        for out, query in zip(keys, queries, strict=True):
            reached = self.dictionary.search(self._rows.view(), query, k, end)
            out[:] = reached.keys
            self.visited += reached.visited
        return Hits(shifted(keys, self._first))
