"""The exact search of a dictionary: the node that promises most is opened first, until none can win.

Invariants:
    Without a budget, the hits are those of a comparison with every bookmark, ties included.
    A node is skipped only if its bound is below the k-th best dot product found; an estimate bounds nothing, so that
    every node is opened then.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from memsvc.dictionary.bounds import Reach
from memsvc.dictionary.dictionary import Dictionary
from memsvc.shards.base import NOTHING, Int16Array, Int64Array, best, dot_of, pack

# Nodes opened at once: a call of numpy costs as much as eight nodes do.
_WIDTH = 8


@dataclass(frozen=True)
class Descent:
    """What a search found, and what it took.

    Args:
        keys: Hits, packed, best first, NOTHING where there are fewer, int64 [k].
        nodes: Nodes whose bound or estimate was computed.
        compared: Bookmarks compared.
        proven: Whether no bookmark that was not compared can be among the hits.
    """

    keys: Int64Array
    nodes: int
    compared: int
    proven: bool

    @property
    def visited(self) -> int:
        """Dot products computed, of nodes and bookmarks together: a search of all takes one a bookmark."""
        return self.nodes + self.compared


def descend(
    dictionary: Dictionary, query: Int16Array, k: int, limit: int | None = None, budget: int | None = None
) -> Descent:
    """Best k bookmarks of a query, [dims], among those below `limit`.

    Args:
        budget: Nodes and bookmarks to look at, after which what was found is returned; may be passed by what is opened
            at once. None for no end.
    """
    prepared = dictionary.bounds.prepare(query)
    end = len(dictionary) if limit is None else limit
    keys = np.full(k, NOTHING)
    floor = -np.inf
    heap: list[tuple[float, int, float]] = []
    nodes = compared = 0
    entering = dictionary.levels.roots()
    while True:
        if len(entering):
            nodes += len(entering)
            _enter(heap, entering, dictionary.bounds.reach(prepared, entering), floor)
        opened = _next(heap, floor)
        spent = budget is not None and nodes + compared >= budget
        if spent or not opened:
            return Descent(keys, nodes, compared, not opened)
        entering, bookmarks = _open(dictionary, opened, end)
        if len(bookmarks):
            compared += len(bookmarks)
            keys = best(np.concatenate([keys, pack(dictionary.dots(query, bookmarks), bookmarks)])[None], k)[0]
            floor = float(dot_of(keys[-1:])[0])


def _enter(heap: list[tuple[float, int, float]], nodes: Int64Array, reach: Reach, floor: float) -> None:
    """Puts nodes that may win where the most promising is taken first, of equal ones the newest, as of hits."""
    kept = reach.most >= floor
    entries = zip((-reach.likely[kept]).tolist(), (-nodes[kept]).tolist(), reach.most[kept].tolist(), strict=True)
    for entry in entries:
        heapq.heappush(heap, entry)


def _next(heap: list[tuple[float, int, float]], floor: float) -> list[int]:
    """Takes the nodes to open next; none if none can win."""
    opened: list[int] = []
    while heap and len(opened) < _WIDTH:
        _, node, most = heapq.heappop(heap)
        if most >= floor:
            opened.append(-node)
    return opened


def _open(dictionary: Dictionary, opened: list[int], end: int) -> tuple[Int64Array, Int64Array]:
    """Nodes and bookmarks right below these nodes, those from `end` on left out."""
    levels = dictionary.levels
    nodes: list[Int64Array] = [np.empty(0, dtype=np.int64)]
    bookmarks: list[Int64Array] = [np.empty(0, dtype=np.int64)]
    for node in opened:
        number, level, _ = levels.place(node)
        if levels.checkpoint(node) >= end:
            continue
        if level:
            nodes.append(levels.below(node))
        else:
            bookmarks.append(levels.members(number, *levels.span(node)))
    found = np.concatenate(bookmarks)
    return np.concatenate(nodes), found[found < end]
