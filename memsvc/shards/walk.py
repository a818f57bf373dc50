"""The source's own finder: each bookmark finds its chain as it enters, and a query finds its way over the chains.

Both go by `find_relevant_bookmark`: the newest bookmark, back along its chain, its dictionary, across chains, the table
of contents. A search returns the best of what was compared, so it may return fewer than k.

Invariants:
    Chains and results depend on the split of neither adds nor queries: bookmarks enter one by one.
    Dot products of what is found are exact.

Concurrency: none of its own; the caller keeps adds and searches apart.
"""

import numpy as np

from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.settings import DictionarySettings, FindSettings
from memsvc.dictionary.walker import FindCounts, Walker
from memsvc.shards.base import NOTHING, Hits, Int16Array, Int64Array, shifted


class WalkShard:
    """Approximate finder over bookmarks `first` and on.

    Args:
        dims: Dimensions of a vector.
        first: Index of the first bookmark that will be added.
        find: How bookmarks and queries find their way.
        settings: Where checkpoints stand.

    Attributes:
        visited: Nodes and bookmarks that searches have looked at so far.
    """

    def __init__(
        self,
        dims: int,
        first: int = 0,
        find: FindSettings | None = None,
        settings: DictionarySettings | None = None,
    ) -> None:
        self.visited = 0
        self._first = first
        self._walker = Walker(dims, find or FindSettings(), settings)
        self._searched_contents = 0

    @property
    def dictionary(self) -> Dictionary:
        """The bookmarks by chain."""
        return self._walker.dictionary

    @property
    def counts(self) -> FindCounts:
        """What the finds of adds took."""
        return self._walker.counts

    @property
    def contents_reads(self) -> int:
        """Times that searches and adds have read the table of contents so far."""
        return self._walker.counts.contents_reads + self._searched_contents

    @property
    def dims(self) -> int:
        """Dimensions of a vector."""
        return self.dictionary.dims

    @property
    def first(self) -> int:
        """Index of the oldest bookmark held."""
        return self._first

    def __len__(self) -> int:
        """Bookmarks held."""
        return len(self.dictionary)

    @property
    def chains(self) -> int:
        """Chains that the bookmarks form."""
        return self.dictionary.levels.lists

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims], each to the chain of its strongest parent, or to a new one."""
        self._walker.link(rows)

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Best bookmarks met on the way of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        end = None if limit is None else max(0, limit - self._first)
        keys: Int64Array = np.full((len(queries), k), NOTHING)
        for out, query in zip(keys, queries, strict=True):
            found = self._walker.find(query, end)
            out[: len(found.keys)] = found.keys[:k]
            self.visited += found.trace.visited
            self._searched_contents += found.trace.contents_reads
        return Hits(shifted(keys, self._first))
