"""The dictionary by topic: segments of bookmarks that resemble each other, whatever their place on the timeline.

Where a chain or the timeline says which bookmarks a checkpoint stands for, similarity says it here, on every level:

    level 2            [    ]            the top: one node, over everything
    level 1      [   ]        [   ]      nodes over nodes that point the same way
    level 0    [  ] [  ]    [  ] [  ]    segments: bookmarks that point the same way
    bookmarks   a c  b c     d f  e f

A bookmark stands in the segment that it resembles most. A full node is divided (see `memsvc.dictionary.division`), its
new siblings enter the node above, and a top that is divided gets a new top over it. Levels lead near the best bookmarks
but not to all: what lies between topics stands on one side only. So a search refines what they lead to along kin (see
`memsvc.dictionary.kin`), as the search in a chain refines around a checkpoint.

    1. from the top down, the two nodes of each level that the query resembles most
    2. the bookmarks of the two segments, and those that stand in none yet
    3. the kin of the best bookmarks so far, until those of the best `width` are all compared

What it looks at grows with the number of levels alone.

    bookmarks   [0, placed)                  [placed, len)
    searched    as above                     compared exactly: at most 63

Invariants:
    Nodes and kin are a function of the bookmarks in order, however they were added: bookmarks enter segments 64 at a
    time (see `memsvc.dictionary.together`), and all comparisons are of exact integers.
    All segments lie at the same depth. Every placed bookmark is in exactly one. No node is empty or overfull.
    What is found was compared exactly; only which bookmarks are found is approximate.
Must not know: who keeps the vectors; each call is given those of all bookmarks, the ones there were first.

Concurrency: none of its own; one caller at a time.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from memsvc.dictionary.division import direction_of, divided
from memsvc.dictionary.kin import Kin
from memsvc.dictionary.settings import TopicalSettings
from memsvc.dictionary.together import AT_ONCE, FRONT, TOGETHER_MAX, Together
from memsvc.dictionary.topical_nodes import TopicalNodes
from memsvc.lattice import similarities
from memsvc.shards.base import NOTHING, Int16Array, Int64Array, best, dot_of, index_of, pack

# Bookmarks that are placed together, in segments as they were before.
PLACED_ROWS = TOGETHER_MAX
# Bookmarks that kin are chosen from. Of 20,000 bookmarks of SmolLM2 a search 32 wide finds 0.972 of the true 16 best
# blocks with 32 and 0.982 with 48, which take a fifth longer to place.
_CANDIDATES = 48
# So few are all compared.
_EXACT_ROWS = 1024
_CAPACITY_FIRST = 1024


@dataclass(frozen=True)
class Reached:
    """What a search found, and what it took.

    Args:
        keys: Hits, packed, best first, NOTHING where there are fewer, int64 [k].
        nodes: Nodes compared.
        compared: Bookmarks compared.
        promise: Lattice dot product of the best node that was not opened; minus infinity if all were.
    """

    keys: Int64Array
    nodes: int
    compared: int
    promise: float

    @property
    def visited(self) -> int:
        """Dot products computed, of nodes and bookmarks together: a search of all takes one a bookmark."""
        return self.nodes + self.compared


class TopicalDictionary:
    """Checkpoints by similarity over bookmarks that are numbered from 0 in order of adding.

    Args:
        dims: Dimensions of a vector.
        settings: How wide nodes and searches are.

    Attributes:
        nodes: The checkpoints.
        kin: Of the bookmarks that are placed.
        placed: The first so many bookmarks stand in segments.
    """

    def __init__(self, dims: int, settings: TopicalSettings) -> None:
        self.nodes = TopicalNodes(dims, settings.fan)
        self.placed = 0
        self.kin = Kin(settings.kin)
        self._together = Together(self.nodes, self.kin)
        self._settings = settings
        # The search that each bookmark was compared in last.
        self._compared_in = np.zeros(_CAPACITY_FIRST, dtype=np.int64)
        self._searches = 0

    @property
    def bytes(self) -> int:
        """Bytes that nodes, kin and marks take; without the bookmarks' vectors."""
        beside = self.kin.bookmark_bytes + self._together.bookmark_bytes + self._compared_in.strides[0]
        return len(self.nodes) * self.nodes.node_bytes + self.placed * beside

    def place(self, rows: Int16Array) -> None:
        """Put bookmarks that are new into segments, as many as can be now.

        Args:
            rows: Lattice vectors of all bookmarks, [n, dims].

        Cost: about 0.3 ms a bookmark of 576 dimensions, less than a search.
        """
        while len(rows) - self.placed >= PLACED_ROWS:
            end = self.placed + PLACED_ROWS
            if end > len(self._compared_in):
                self._compared_in = np.concatenate([self._compared_in, np.zeros_like(self._compared_in)])
            self._place(rows[:end])
            self.placed = end

    def search(
        self, rows: Int16Array, query: Int16Array, k: int, limit: int | None = None, front: int = FRONT
    ) -> Reached:
        """Likely best k bookmarks of a query, [dims], among those below `limit`.

        Args:
            rows: Lattice vectors of all bookmarks, [n, dims].
            front: Nodes of a level to open.
        """
        end = len(rows) if limit is None else max(0, min(limit, len(rows)))
        if end <= _EXACT_ROWS:
            return self._compare_all(rows[:end], query, k)
        width = max(k, self._settings.width)
        reached = self._reach(rows[: max(self.placed, end)], query, width, end, front)
        reached = replace(reached, keys=reached.keys[:k])
        if reached.keys[-1] != NOTHING:
            return reached
        # Kin need not lead everywhere.
        every = self._compare_all(rows[:end], query, k)
        return replace(every, nodes=reached.nodes, compared=reached.compared + every.compared)

    def _compare_all(self, rows: Int16Array, query: Int16Array, k: int) -> Reached:
        keys = pack(similarities(query[None], rows)[0], np.arange(len(rows)))
        return Reached(best(keys[None], k)[0], 0, len(rows), -math.inf)

    def _reach(self, rows: Int16Array, query: Int16Array, width: int, end: int, front: int) -> Reached:
        """Goes down to the best segments, and from what they hold to its kin, and on, as long as that is better."""
        segments, nodes, promise = self._descend(query, front)
        self._searches += 1
        fresh = np.concatenate([self._unseen(self.nodes.below(segments)), np.arange(self.placed, end)])
        keys = waiting = np.empty(0, dtype=np.int64)
        compared = 0
        while len(fresh):
            compared += len(fresh)
            own = pack(similarities(query[None], rows[fresh])[0], fresh)
            keys = best(np.concatenate([keys, own[fresh < end]])[None], width)[0]
            # Bookmarks from `end` on are no hits, but lead to some.
            waiting = np.sort(np.concatenate([waiting, own[fresh < self.placed]]))[::-1]
            waiting = waiting[waiting >= keys[-1]]
            fresh = fresh[:0]
            while len(waiting) and not len(fresh):
                fresh = self._unseen(self.kin.of(index_of(waiting[:AT_ONCE])))
                waiting = waiting[AT_ONCE:]
        return Reached(keys, nodes, compared, promise)

    def _unseen(self, bookmarks: Int64Array) -> Int64Array:
        """Those that this search has not compared yet, each once, ascending; they count as compared."""
        fresh: Int64Array = np.unique(bookmarks[self._compared_in[bookmarks] < self._searches])
        self._compared_in[fresh] = self._searches
        return fresh

    def _descend(self, query: Int16Array, width: int) -> tuple[Int64Array, int, float]:
        """The segments that a query resembles most, best first, nodes looked at, and what was left closed promises."""
        front, looked, promise = np.array([self.nodes.top]), 0, -math.inf
        for _ in range(self.nodes.height - 1):
            below = self.nodes.below(front)
            looked += len(below)
            keys = np.sort(pack(similarities(query[None], self.nodes.points(below))[0], below))[::-1]
            front = index_of(keys[:width])
            promise = float(dot_of(keys[width : width + 1]).max(initial=-math.inf))
        return front, looked, promise

    def _place(self, rows: Int16Array) -> None:
        """Puts the newest of these into segments and among kin, and divides what is overfull, from the bottom up."""
        entering, level = self._homes(rows), 0
        while entering:
            siblings: dict[int, list[int]] = defaultdict(list)
            for node in sorted(entering):
                made = self._enter(rows, node, np.array(entering[node]), level)
                if not made:
                    continue
                if node == self.nodes.top:
                    # The new top takes the old one in like its new siblings.
                    siblings[self.nodes.raise_top()].append(node)
                    siblings[self.nodes.top] += made
                else:
                    siblings[self.nodes.parent(node)] += made
            entering, level = siblings, level + 1

    def _homes(self, rows: Int16Array) -> dict[int, list[int]]:
        """Chooses the kin of the newest bookmarks; returns the segments they resemble most, with what enters each."""
        if not self.nodes.height:
            self.nodes.raise_top()
        keys, segments = self._together.reach(rows, self.placed, _CANDIDATES)
        self.kin.join(rows, self.placed, keys)
        homes: dict[int, list[int]] = defaultdict(list)
        for bookmark, segment in enumerate(segments.tolist(), start=self.placed):
            homes[segment].append(bookmark)
        return homes

    def _enter(self, rows: Int16Array, node: int, fresh: Int64Array, level: int) -> list[int]:
        """Puts bookmarks or nodes right below a node; returns the new siblings if it had to be divided."""
        below = np.concatenate([self.nodes.below(np.array([node])), fresh])
        if len(below) <= self._settings.fan:
            self.nodes.fill(node, below, level)
            return []
        vectors = self.nodes.points(below) if level else rows[below]
        parts = divided(vectors, self._settings.fan)
        made = [node, *(self.nodes.make() for _ in parts[1:])]
        for own, part in zip(made, parts, strict=True):
            self.nodes.fill(own, below[part], level)
            self.nodes.turn(own, direction_of(vectors[part]))
        return made[1:]
