"""Nodes of the dictionary by topic, as arrays: what lies below each, and where it points.

Invariants:
    A node above level 0 is the parent of every node below it, and of no other; the top has none.
Must not know: what resembles what, searches.
"""

import numpy as np
import numpy.typing as npt

from memsvc.shards.base import Int16Array, Int64Array

BoolArray = npt.NDArray[np.bool_]

_CAPACITY_FIRST = 64
# Columns of a node's integers.
_COUNT, _PARENT = 0, 1
_NO_PARENT = -1


class TopicalNodes:
    """Nodes, numbered from 0 in order of making.

    Args:
        dims: Dimensions of a vector.
        fan: Nodes, or bookmarks, right below one at most.

    Attributes:
        top: The node over all; none while `height` is 0.
        height: Levels there are.
    """

    def __init__(self, dims: int, fan: int) -> None:
        self.top = 0
        self.height = 0
        self._made = 0
        self._points = np.zeros((_CAPACITY_FIRST, dims), dtype=np.int16)
        self._below = np.zeros((_CAPACITY_FIRST, fan), dtype=np.int32)
        self._facts = np.zeros((_CAPACITY_FIRST, 2), dtype=np.int64)

    def __len__(self) -> int:
        return self._made

    @property
    def node_bytes(self) -> int:
        """Bytes kept for one node."""
        return self._points.strides[0] + self._below.strides[0] + self._facts.strides[0]

    def make(self) -> int:
        """A new node, empty, without a parent, that points nowhere."""
        if self._made == len(self._points):
            self._points, self._below, self._facts = (
                np.concatenate([rows, np.zeros_like(rows)]) for rows in (self._points, self._below, self._facts)
            )
        self._facts[self._made, _PARENT] = _NO_PARENT
        self._made += 1
        return self._made - 1

    def raise_top(self) -> int:
        """Makes a level with one node, empty, which is the top; returns it."""
        self.top = self.make()
        self.height += 1
        return self.top

    def fill(self, node: int, below: Int64Array, level: int) -> None:
        """Says what lies right below a node: bookmarks at level 0, else nodes, whose parent it becomes."""
        self._below[node, : len(below)] = below
        self._facts[node, _COUNT] = len(below)
        if level:
            self._facts[below, _PARENT] = node

    def turn(self, node: int, point: Int16Array) -> None:
        """Says where a node points, a lattice vector, [dims]."""
        self._points[node] = point

    def points(self, nodes: Int64Array) -> Int16Array:
        """Where nodes point, [n] to [n, dims]."""
        return self._points[nodes]

    def parent(self, node: int) -> int:
        """The node above a node; -1 of the top."""
        return int(self._facts[node, _PARENT])

    def table(self, nodes: Int64Array) -> tuple[Int64Array, BoolArray]:
        """What lies right below nodes, [m, n] to [m, n * fan], and where something does."""
        below, counts = self._below[nodes].astype(np.int64), self._facts[nodes, _COUNT]
        inside = np.arange(self._below.shape[1]) < counts[:, :, None]
        return below.reshape(len(nodes), -1), inside.reshape(len(nodes), -1)

    def below(self, nodes: Int64Array) -> Int64Array:
        """All that lies right below these nodes, one after the other, [sum of their counts]."""
        inside = np.arange(self._below.shape[1]) < self._facts[nodes, _COUNT][:, None]
        below: Int64Array = self._below[nodes][inside].astype(np.int64)
        return below
