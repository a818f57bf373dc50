"""The dictionary itself: bookmarks' vectors in lists, checkpoints over each list, and a bound at each checkpoint.

One implementation for both orders: with a bookmark's chain as its list it is the source's bookmark index dictionary,
with list 0 for all it is a skip list over the timeline.

Invariants:
    Lists, checkpoints, levels and bounds are a function of the bookmarks in order, however they were added.
    Every bookmark lies under its list's top node, and that node's bound holds for it, the newest ones included.

Concurrency: none of its own; one caller at a time.
"""

import math

import numpy as np

from memsvc.columns import Column
from memsvc.dictionary.bounds import Bounds
from memsvc.dictionary.levels import Levels
from memsvc.dictionary.settings import SEGMENT_MAX, DictionarySettings
from memsvc.lattice import similarities
from memsvc.shards.base import Float32Array, Int16Array, Int64Array


class Dictionary:
    """Bookmarks, numbered from 0 in order of adding, and the checkpoints over their lists.

    Args:
        dims: Dimensions of a vector.
        settings: Where checkpoints stand.
        bounds: What a checkpoint keeps; empty.

    Attributes:
        levels: Lists and nodes.
        bounds: Summaries of the nodes, brought up to date by `extend`.
    """

    def __init__(self, dims: int, settings: DictionarySettings, bounds: Bounds) -> None:
        self.levels = Levels(settings.skip)
        self.bounds = bounds
        self._dims = dims
        self._settings = settings
        self._rows = Column(np.int16, dims)
        # Sum of the newest segment of each list; kept only for semantic boundaries.
        self._sums: list[Int64Array] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dims(self) -> int:
        """Dimensions of a vector."""
        return self._dims

    @property
    def bytes(self) -> int:
        """Bytes that nodes take, their summaries and four integers each; without the bookmarks and their vectors."""
        return self.levels.nodes * (self.bounds.node_bytes + 4 * 8)

    @property
    def vectors(self) -> Int16Array:
        """Lattice vectors of all bookmarks, [len, dims]; read-only."""
        return self._rows.view()

    def extend(self, rows: Int16Array, lists: Int64Array) -> None:
        """Append the next bookmarks.

        Args:
            rows: Lattice vectors, [n, dims].
            lists: The list of each, [n]; a new one must be the next number.

        Cost: of 576 dimensions with balls, 5 us a bookmark in batches of 256, 190 us one at a time.
        """
        self._rows.extend(rows)
        changed: set[int] = set()
        # Boundaries look at what the bookmark before has changed, so bookmarks go in one by one there.
        if self._settings.boundary is not None:
            for row, number in zip(rows, lists.tolist(), strict=True):
                changed |= self.levels.extend(np.array([number]), [self._begins_at(row, number)])
        else:
            changed = self.levels.extend(lists, self._begins_every(lists))
        self._summarise(changed)

    def rows(self, bookmarks: Int64Array) -> Int16Array:
        """Lattice vectors of bookmarks, [n] to [n, dims]."""
        return self._rows.view()[bookmarks]

    def dots(self, query: Int16Array, bookmarks: Int64Array) -> Float32Array:
        """Lattice dot products of a query, [dims], with bookmarks, [n] to [n]: exact integers."""
        dots: Float32Array = similarities(query[None], self.rows(bookmarks))[0]
        return dots

    def _begins_every(self, lists: Int64Array) -> list[bool]:
        """Which of the next bookmarks begin a segment by count alone."""
        lengths: dict[int, int] = {}
        begins: list[bool] = []
        for number in lists.tolist():
            length = lengths[number] if number in lengths else self.levels.segment_length(number)
            begins.append(length == self._settings.every)
            lengths[number] = 1 if begins[-1] else length + 1
        return begins

    def _begins_at(self, row: Int16Array, number: int) -> bool:
        """Whether the next bookmark begins a segment, by count or by what it says; takes it into the running mean."""
        assert self._settings.boundary is not None
        length = self.levels.segment_length(number)
        exact = row.astype(np.int64)
        if length == 0:
            self._sums.append(exact)
            return True
        total = self._sums[number]
        similarity = _cosine(int(exact @ total), int(exact @ exact), int(total @ total))
        full = length == (self._settings.every or SEGMENT_MAX)
        if full or similarity < self._settings.boundary:
            self._sums[number] = exact
            return True
        self._sums[number] = total + exact
        return False

    def _summarise(self, changed: set[int]) -> None:
        """Sets the summaries of nodes whose bookmarks have changed, from the bottom up."""
        rows = self._rows.view()
        for node in sorted(changed, key=lambda node: self.levels.place(node)[1]):
            number, level, _ = self.levels.place(node)
            if level == 0:
                self.bounds.set_rows(node, rows[self.levels.members(number, *self.levels.span(node))])
            else:
                self.bounds.set_nodes(node, self.levels.below(node))


def _cosine(inner: int, squares: int, other_squares: int) -> float:
    """Cosine of two vectors from whole numbers; 0 where one is the zero vector."""
    return inner / math.sqrt(squares * other_squares) if squares and other_squares else 0.0
