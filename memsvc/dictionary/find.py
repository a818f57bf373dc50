"""The source's own search, `find_relevant_bookmark`, stage by stage in its order.

    walk         compare the newest bookmark; while not relevant, go back along its chain a few links; once at a
                 relevant one, compare that one's surroundings
    dictionary   open the chain's checkpoints, the most promising first, down to the best segments; compare those and
                 their surroundings
    across       go down the dictionary by topic, which knows no chains, where there is one
    contents     read the table of contents (each chain's newest bookmark and top checkpoint), and open the checkpoints
                 of the chains that promise most

A stage runs only if those before it left the find unsure. It is sure once the best bookmark compared so far has a
similarity of at least `FindSettings.sure`. Across chains it is sure of the opposite as well, that there is nothing
relevant, unless a checkpoint that it had no room to open points as near as that. Each stage costs a bounded number of
comparisons, but for the last, which costs one a chain: that is why it is last and counted.

Invariants:
    What is found is a function of bookmarks, query, settings and start. But across chains, no bookmark is compared
    twice.
    Only bookmarks that were compared are returned, with exact similarities; none from `limit` on.
Must not know: sessions, logs.
"""

import heapq
from dataclasses import dataclass
from enum import Enum

import numpy as np

from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.settings import FindSettings
from memsvc.dictionary.together import FRONT
from memsvc.dictionary.topical import TopicalDictionary
from memsvc.graph import Link
from memsvc.lattice import SIMILARITY_UNIT
from memsvc.shards.base import NOTHING, Float32Array, Int16Array, Int64Array, dot_of, index_of, pack

# Of what is compared across chains so many are kept: no bookmark has more links.
_KEPT_ACROSS = 64
# Nodes of a level that are opened across chains, at first and while that leaves a promise. In 131,072 tokens of real
# text (benchmarks/bench_walk.py) 23 finds of 24,559 were left with one after 16, and none after 64.
_FRONTS = (FRONT, 16, 64)


class Stage(Enum):
    """The stage that a find ended with."""

    WALK = "walk"
    DICTIONARY = "dictionary"
    ACROSS = "across"
    CONTENTS = "contents"


@dataclass(frozen=True)
class Visit:
    """A checkpoint that was looked at on the way down.

    Args:
        checkpoint: The bookmark that it stands at.
        level: 0 for a segment.
        promise: Estimated similarity of the best bookmark below it.
    """

    checkpoint: int
    level: int
    promise: float


@dataclass(frozen=True)
class Trace:
    """How a find went, in order.

    Args:
        walked: Bookmarks of the walk, newest first.
        visits: Checkpoints looked at, in the chain of the walk and then in others.
        refined: Bookmarks compared around the walk's end and in the best segments.
        contents: Bookmarks read in the table of contents, one a chain; empty if it was not read.
        last: The stage that it ended with.
        nodes_across: Checkpoints looked at across chains.
        compared_across: Bookmarks compared across chains.
    """

    walked: tuple[int, ...]
    visits: tuple[Visit, ...]
    refined: tuple[int, ...]
    contents: tuple[int, ...]
    last: Stage
    nodes_across: int = 0
    compared_across: int = 0

    @property
    def contents_reads(self) -> int:
        """Times that the table of contents was read: 0 or 1."""
        return 1 if self.contents else 0

    @property
    def visited(self) -> int:
        """Dot products computed: of bookmarks, of checkpoints, and of the top checkpoint of each chain read."""
        in_chains = len(self.walked) + len(self.refined) + len(self.visits) + 2 * len(self.contents)
        return in_chains + self.nodes_across + self.compared_across


@dataclass(frozen=True)
class Found:
    """What a find returns.

    Args:
        landed: The best bookmark compared, the newest of equals; None if there is none to compare.
        parents: The best relevant ones, best first, at most so many as the settings say.
        keys: All that were compared, but of those across chains the best 64; packed, best first, int64 [n].
        trace: How it went.
    """

    landed: Link | None
    parents: tuple[Link, ...]
    keys: Int64Array
    trace: Trace


def find_relevant_bookmark(
    dictionary: Dictionary,
    query: Int16Array,
    settings: FindSettings,
    start: int | None = None,
    limit: int | None = None,
    topics: TopicalDictionary | None = None,
) -> Found:
    """Find the bookmarks that a vector continues.

    Args:
        dictionary: Lists are chains.
        query: A lattice vector, [dims].
        start: The bookmark that the walk begins at, below `limit`; the newest one if None.
        limit: Only bookmarks below this index; all if None.
        topics: The same bookmarks by topic. Without, an unsure find goes from its chain's dictionary to the contents.
    """
    end = len(dictionary) if limit is None else min(limit, len(dictionary))
    search = _Search(dictionary, query, settings, end)
    if not end:
        return search.found(Stage.WALK)
    newest = end - 1 if start is None else start
    assert 0 <= newest < end, f"expected a start below {end}, got {newest}"
    search.walk(newest)
    if search.is_sure():
        return search.found(Stage.WALK)
    chain = dictionary.levels.list_of(newest)
    search.jump(chain)
    if search.is_sure():
        return search.found(Stage.DICTIONARY)
    if topics is not None:
        promising = search.cross(topics)
        if not promising:
            return search.found(Stage.ACROSS)
    search.read_contents(besides=chain)
    return search.found(Stage.CONTENTS)


class _Search:
    """One find while it runs."""

    def __init__(self, dictionary: Dictionary, query: Int16Array, settings: FindSettings, end: int) -> None:
        self._dictionary = dictionary
        self._levels = dictionary.levels
        self._query = query
        self._settings = settings
        self._end = end
        self._prepared: Float32Array | None = None
        self._dots: dict[int, int] = {}
        self._walked: list[int] = []
        self._visits: list[Visit] = []
        self._refined: list[int] = []
        self._contents: list[int] = []
        self._nodes_across = self._compared_across = 0

    def is_sure(self) -> bool:
        """Whether the best bookmark compared so far is similar enough to stop."""
        return bool(self._dots) and max(self._dots.values()) * SIMILARITY_UNIT >= self._settings.sure

    def walk(self, newest: int) -> None:
        """Goes back along the chain while not relevant, and compares what lies around where that ends."""
        chain, place = self._levels.list_of(newest), self._levels.place_of(newest)
        oldest = max(0, place - self._settings.walk_links)
        for at in range(place, oldest - 1, -1):
            (bookmark,) = self._compare(self._levels.members(chain, at, at + 1), self._walked)
            if self._dots[bookmark] * SIMILARITY_UNIT >= self._settings.relevant:
                self._refine(chain, at, at + 1)
                return

    def jump(self, chain: int) -> None:
        """Opens a chain's checkpoints, the most promising first, and compares the best segments."""
        heap = self._look(np.array([self._levels.root(chain)]))
        segments = 0
        while heap and segments < self._settings.checkpoints:
            node = -heapq.heappop(heap)[1]
            if self._levels.place(node)[1]:
                for entry in self._look(self._levels.below(node)):
                    heapq.heappush(heap, entry)
            else:
                segments += 1
                self._refine(chain, *self._levels.span(node))

    def cross(self, topics: TopicalDictionary) -> bool:
        """Goes down the dictionary by topic, and again on a wider front while a closed checkpoint promises something
        relevant; returns whether one still does."""
        for front in _FRONTS:
            reached = topics.search(self._dictionary.vectors, self._query, _KEPT_ACROSS, self._end, front)
            self._nodes_across += reached.nodes
            self._compared_across += reached.compared
            keys = reached.keys[reached.keys != NOTHING]
            self._dots.update(zip(index_of(keys).tolist(), dot_of(keys).astype(np.int64).tolist(), strict=True))
            promising = reached.promise * SIMILARITY_UNIT >= self._settings.relevant
            if self.is_sure() or not promising:
                return False
        return True

    def read_contents(self, besides: int) -> None:
        """Reads the newest bookmark and the top checkpoint of each chain but one, and looks into the best chains."""
        heads = self._levels.heads(self._end)
        chains = np.array([self._levels.list_of(head) for head in heads.tolist()], dtype=np.int64)
        heads, chains = heads[chains != besides], chains[chains != besides]
        if not len(heads):
            return
        self._compare(heads, self._contents)
        own = np.array([self._dots[head] for head in heads.tolist()])
        roots = np.array([self._levels.root(chain) for chain in chains.tolist()])
        promise = np.maximum(own, self._dictionary.bounds.reach(self._prepare(), roots).likely)
        # Of equal ones the chain that was met with last.
        for at in np.lexsort((-heads, -promise))[: self._settings.contents_chains].tolist():
            self.jump(int(chains[at]))

    def found(self, last: Stage) -> Found:
        """What came out of it, up to and with this stage."""
        bookmarks = np.array(list(self._dots), dtype=np.int64)
        keys = np.sort(pack(np.array(list(self._dots.values()), dtype=np.int64), bookmarks))[::-1]
        order = sorted(self._dots, key=lambda bookmark: (self._dots[bookmark], bookmark), reverse=True)
        best = [Link(bookmark, self._dots[bookmark] * SIMILARITY_UNIT) for bookmark in order[: self._settings.parents]]
        relevant = tuple(link for link in best if link.weight >= self._settings.relevant)
        in_chains = tuple(self._walked), tuple(self._visits), tuple(self._refined), tuple(self._contents)
        trace = Trace(*in_chains, last, self._nodes_across, self._compared_across)
        return Found(best[0] if best else None, relevant, keys, trace)

    def _refine(self, chain: int, start: int, end: int) -> None:
        reach = self._settings.refine
        self._compare(self._levels.members(chain, start - reach, end + reach), self._refined)

    def _compare(self, bookmarks: Int64Array, into: list[int]) -> list[int]:
        """Compares bookmarks that were not compared yet, and notes those; returns them."""
        fresh = [bookmark for bookmark in bookmarks.tolist() if bookmark < self._end and bookmark not in self._dots]
        if fresh:
            dots = self._dictionary.dots(self._query, np.array(fresh))
            self._dots.update(zip(fresh, dots.astype(np.int64).tolist(), strict=True))
            into += fresh
        return fresh

    def _look(self, nodes: Int64Array) -> list[tuple[float, int]]:
        """Notes what checkpoints promise; returns them for a heap that yields the best first, of equals the newest."""
        nodes = np.array([node for node in nodes.tolist() if self._levels.checkpoint(node) < self._end], dtype=np.int64)
        likely = self._dictionary.bounds.reach(self._prepare(), nodes).likely.tolist()
        self._visits += [self._visit(node, promise) for node, promise in zip(nodes.tolist(), likely, strict=True)]
        entries = [(-promise, -node) for node, promise in zip(nodes.tolist(), likely, strict=True)]
        heapq.heapify(entries)
        return entries

    def _visit(self, node: int, likely: float) -> Visit:
        return Visit(self._levels.checkpoint(node), self._levels.place(node)[1], likely * SIMILARITY_UNIT)

    def _prepare(self) -> Float32Array:
        if self._prepared is None:
            self._prepared = self._dictionary.bounds.prepare(self._query)
        return self._prepared
