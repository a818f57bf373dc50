"""Bookmarks that find their own chain: `find_relevant_bookmark` over chains that form as it goes, with its counts.

Each bookmark is searched for among those before it, and joins the chain of its strongest parent, or begins one. Beside
the chains' dictionary stands the dictionary by topic (see `memsvc.dictionary.topical`), which a find reads when its own
chain has nothing relevant.

Invariants:
    Chains and parents are a function of the bookmarks in order: they enter one by one, however they are handed over.
    Entering with given parents leads to the same state as having found these.

Concurrency: none of its own; one caller at a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from memsvc.dictionary.bounds import make_bounds
from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.find import Found, Stage, Trace, find_relevant_bookmark
from memsvc.dictionary.settings import DictionarySettings, FindSettings, TopicalSettings
from memsvc.dictionary.topical import TopicalDictionary
from memsvc.shards.base import Int16Array, Int64Array

# A find keeps the 64 best across chains.
_ACROSS = TopicalSettings(width=64)


@dataclass(frozen=True)
class FindCounts:
    """What finds took, all of them together.

    Args:
        finds: Finds.
        by_walk: Finds that ended with the walk.
        by_dictionary: Finds that ended with their own chain's dictionary.
        across: Finds that ended with the dictionary by topic, across chains.
        contents_reads: Times that the table of contents was read.
        walked: Bookmarks of the walks.
        checkpoints: Checkpoints looked at, of both dictionaries.
        refined: Bookmarks compared around walks and checkpoints, of all chains.
    """

    finds: int = 0
    by_walk: int = 0
    by_dictionary: int = 0
    across: int = 0
    contents_reads: int = 0
    walked: int = 0
    checkpoints: int = 0
    refined: int = 0

    def with_one(self, trace: Trace) -> "FindCounts":
        """These and one more find."""
        return FindCounts(
            self.finds + 1,
            self.by_walk + (trace.last is Stage.WALK),
            self.by_dictionary + (trace.last is Stage.DICTIONARY),
            self.across + (trace.last is Stage.ACROSS),
            self.contents_reads + trace.contents_reads,
            self.walked + len(trace.walked),
            self.checkpoints + len(trace.visits) + trace.nodes_across,
            self.refined + len(trace.refined) + trace.compared_across,
        )

    def __str__(self) -> str:
        """In words, for a session's status."""
        if not self.finds:
            return "no finds yet"
        return (
            f"{self.finds} finds, {self.by_walk} by the walk alone, {self.by_dictionary} by a chain's dictionary, "
            f"{self.across} across chains, {self.contents_reads} reads of the table of contents; a find walked "
            f"{self.walked / self.finds:.1f}, looked at {self.checkpoints / self.finds:.0f} checkpoints and compared "
            f"{self.refined / self.finds:.0f} bookmarks around them"
        )


class Walker:
    """Bookmarks, numbered from 0 in order of entering, by chain and by topic.

    Args:
        dims: Dimensions of a vector.
        find: How a bookmark is looked for.
        settings: Where a chain's checkpoints stand.

    Attributes:
        dictionary: The bookmarks by chain, and their vectors.
        counts: Of the finds of `link` so far.
    """

    def __init__(self, dims: int, find: FindSettings, settings: DictionarySettings | None = None) -> None:
        self.dictionary = Dictionary(dims, settings or DictionarySettings(), make_bounds("ball", dims))
        self.counts = FindCounts()
        self._topics = TopicalDictionary(dims, _ACROSS)
        self._find = find

    def __len__(self) -> int:
        return len(self.dictionary)

    @property
    def bytes(self) -> int:
        """Bytes that checkpoints take, of both dictionaries."""
        return self.dictionary.bytes + self._topics.bytes

    def find(self, query: Int16Array, limit: int | None = None) -> Found:
        """Find what a vector, [dims], continues among the bookmarks below `limit`; counts nothing."""
        return find_relevant_bookmark(self.dictionary, query, self._find, limit=limit, topics=self._topics)

    def link(self, rows: Int16Array) -> list[Found]:
        """Find the parents of the next bookmarks, [n, dims], each among all before it, and let them enter."""
        found: list[Found] = []
        for row in rows:
            found.append(self.find(row))
            self.counts = self.counts.with_one(found[-1].trace)
            parents = found[-1].parents
            self.enter(row[None], np.array([parents[0].parent if parents else -1]))
        return found

    def enter(self, rows: Int16Array, strongest: Int64Array) -> None:
        """Let the next bookmarks enter, [n, dims], whose strongest parents, [n], are known; -1 for none."""
        self.dictionary.extend(rows, self._chains(strongest.tolist()))
        self._topics.place(self.dictionary.vectors)

    def _chains(self, strongest: Iterable[int]) -> Int64Array:
        levels, first = self.dictionary.levels, len(self)
        begun = levels.lists
        chains: list[int] = []
        for parent in strongest:
            if parent < 0:
                chains.append(begun)
                begun += 1
            else:
                chains.append(levels.list_of(parent) if parent < first else chains[parent - first])
        return np.array(chains, dtype=np.int64)
