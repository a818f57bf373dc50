"""The source's own finder: each bookmark finds its chain as it enters, and a query finds its way over the chains.

Both go by `find_relevant_bookmark`: the newest bookmark, back along its chain, its dictionary, the table of contents. A
search returns the best of what was compared, so it may return fewer than k.

Invariants:
    Chains and results depend on the split of neither adds nor queries: bookmarks enter one by one.
    Dot products of what is found are exact.

Concurrency: none of its own; the caller keeps adds and searches apart.
"""

import numpy as np

from memsvc.dictionary.bounds import make_bounds
from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.find import Found, find_relevant_bookmark
from memsvc.dictionary.settings import DictionarySettings, FindSettings
from memsvc.shards.base import NOTHING, Hits, Int16Array, Int64Array, shifted


class WalkShard:
    """Approximate finder over bookmarks `first` and on.

    Args:
        dims: Dimensions of a vector.
        first: Index of the first bookmark that will be added.
        find: How bookmarks and queries find their way.
        settings: Where checkpoints stand.

    Attributes:
        dictionary: The bookmarks by chain.
        visited: Nodes and bookmarks that searches have looked at so far.
        contents_reads: Times that searches and adds have read the table of contents so far.
    """

    def __init__(
        self,
        dims: int,
        first: int = 0,
        find: FindSettings | None = None,
        settings: DictionarySettings | None = None,
    ) -> None:
        self.visited = 0
        self.contents_reads = 0
        self._first = first
        self._find = find or FindSettings()
        self.dictionary = Dictionary(dims, settings or DictionarySettings(), make_bounds("ball", dims))

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
        levels = self.dictionary.levels
        for row in rows:
            parents = self._look(row, None).parents
            chain = levels.list_of(parents[0].parent) if parents else levels.lists
            self.dictionary.extend(row[None], np.array([chain]))

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Best bookmarks met on the way of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        end = None if limit is None else max(0, limit - self._first)
        keys: Int64Array = np.full((len(queries), k), NOTHING)
        for out, query in zip(keys, queries, strict=True):
            found = self._look(query, end)
            out[: len(found.keys)] = found.keys[:k]
            self.visited += found.trace.visited
        return Hits(shifted(keys, self._first))

    def _look(self, row: Int16Array, end: int | None) -> Found:
        found = find_relevant_bookmark(self.dictionary, row, self._find, limit=end)
        self.contents_reads += found.trace.contents_reads
        return found
