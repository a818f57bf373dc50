"""Which bookmark belongs to which checkpoint: skip lists over ordered lists of bookmarks, as integers.

A list is a chain, or the whole timeline. Its bookmarks stand in places 0, 1, ...; a node is a checkpoint at one level.

    level 2    .-------------------------------.           the top: always one node, over the whole list
    level 1    .---------------.---------------.           every skip-th checkpoint of the level below
    level 0    .-----.----.----.--------.------.           segments, which begin at the checkpoints
    places     0 1 2 3 4 5 ...

Invariants:
    Each bookmark is in exactly one list, and in exactly one node of each of its list's levels.
    Nodes of a level stand in order and touch; the first node of each level begins at place 0.
    The levels of a list are a function of its bookmarks in order, however they were added.
Must not know: vectors, bounds, searches.
"""

from array import array
from bisect import bisect_left

import numpy as np

from memsvc.columns import Column
from memsvc.shards.base import Int64Array


class Levels:
    """Lists, numbered from 0 without holes, and their nodes, numbered from 0 in order of making.

    Args:
        skip: Checkpoints of a level to one of the next.
    """

    def __init__(self, skip: int) -> None:
        self._skip = skip
        # By list.
        self._members: list[array[int]] = []
        self._nodes: list[list[array[int]]] = []
        # By node: its list, level, first place, and number within its level.
        self._list = array("q")
        self._level = array("q")
        self._start = array("q")
        self._rank = array("q")
        # By bookmark.
        self._list_of = Column(np.int64)
        self._place_of = Column(np.int64)

    @property
    def bookmarks(self) -> int:
        """Bookmarks there are."""
        return len(self._list_of)

    @property
    def lists(self) -> int:
        """Lists there are."""
        return len(self._members)

    @property
    def nodes(self) -> int:
        """Nodes there are."""
        return len(self._list)

    def extend(self, lists: Int64Array, begins: list[bool]) -> set[int]:
        """Append the next bookmarks, each to its list; returns the nodes that have changed.

        Args:
            lists: [n]; at most one more than there are, each time.
            begins: Whether each bookmark begins a segment; the first of a list does anyhow.
        """
        places: list[int] = []
        changed: set[int] = set()
        for number, begin in zip(lists.tolist(), begins, strict=True):
            places.append(self._append(number, self.bookmarks + len(places), begin))
            changed.update(nodes[-1] for nodes in self._nodes[number])
        self._list_of.extend(lists)
        self._place_of.extend(np.array(places, dtype=np.int64))
        return changed

    def list_of(self, bookmark: int) -> int:
        """List that a bookmark stands in."""
        return int(self._list_of.view()[bookmark])

    def place_of(self, bookmark: int) -> int:
        """Place of a bookmark in its list."""
        return int(self._place_of.view()[bookmark])

    def length(self, number: int) -> int:
        """Bookmarks of a list."""
        return len(self._members[number])

    def members(self, number: int, start: int, end: int) -> Int64Array:
        """Bookmarks at places `start` to `end`, exclusive, of a list, oldest first; none past its ends."""
        return np.array(self._members[number][max(0, start) : max(0, end)], dtype=np.int64)

    def height(self, number: int) -> int:
        """Levels of a list."""
        return len(self._nodes[number])

    def level_nodes(self, number: int, level: int) -> list[int]:
        """Nodes of one level of a list, in order."""
        return self._nodes[number][level].tolist()

    def root(self, number: int) -> int:
        """The top node of a list."""
        return self._nodes[number][-1][0]

    def roots(self) -> Int64Array:
        """The top node of each list, [lists]."""
        return np.array([nodes[-1][0] for nodes in self._nodes], dtype=np.int64)

    def heads(self, end: int | None = None) -> Int64Array:
        """Newest bookmark of each list below `end`, [lists]; lists that begin later are left out."""
        if end is None or end >= self.bookmarks:
            return np.array([members[-1] for members in self._members], dtype=np.int64)
        begun = [members for members in self._members if members[0] < end]
        return np.array([members[bisect_left(members, end) - 1] for members in begun], dtype=np.int64)

    def place(self, node: int) -> tuple[int, int, int]:
        """List and level of a node, and its first place."""
        return self._list[node], self._level[node], self._start[node]

    def checkpoint(self, node: int) -> int:
        """The bookmark that a node begins at."""
        return self._members[self._list[node]][self._start[node]]

    def span(self, node: int) -> tuple[int, int]:
        """Places below a node, end exclusive."""
        number, level = self._list[node], self._level[node]
        nodes, rank = self._nodes[number][level], self._rank[node]
        end = self._start[nodes[rank + 1]] if rank + 1 < len(nodes) else len(self._members[number])
        return self._start[node], end

    def below(self, node: int) -> Int64Array:
        """Nodes of the next lower level below a node above level 0, in order."""
        number, level, rank = self._list[node], self._level[node], self._rank[node]
        below = self._nodes[number][level - 1][rank * self._skip : (rank + 1) * self._skip]
        return np.array(below, dtype=np.int64)

    def segment_length(self, number: int) -> int:
        """Bookmarks of the newest segment of a list; 0 if there is no such list yet."""
        if number >= self.lists:
            return 0
        return len(self._members[number]) - self._start[self._nodes[number][0][-1]]

    def _append(self, number: int, bookmark: int, begin: bool) -> int:
        assert number <= self.lists, f"expected a list of at most {self.lists}, got {number}"
        if number == self.lists:
            self._members.append(array("q"))
            self._nodes.append([array("q")])
        members = self._members[number]
        members.append(bookmark)
        if begin or len(members) == 1:
            self._add_node(number, 0, len(members) - 1)
        return len(members) - 1

    def _add_node(self, number: int, level: int, start: int) -> None:
        """Adds the next node of a level, and those above it that begin or are needed now."""
        levels = self._nodes[number]
        rank = len(levels[level])
        levels[level].append(len(self._list))
        self._list.append(number)
        self._level.append(level)
        self._start.append(start)
        self._rank.append(rank)
        if rank == 1 and level + 1 == len(levels):
            levels.append(array("q"))
            self._add_node(number, level + 1, 0)
        elif rank > 0 and rank % self._skip == 0:
            self._add_node(number, level + 1, start)
