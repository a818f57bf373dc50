"""Sets of integers as sorted ranges: gaps of tokens and of blocks.

Invariant: ranges are half open, not empty, ascending, and neither overlap nor touch.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

from memsvc.shards.base import Int64Array
from protos.memsvc.v1 import types_pb2


class RangeSet:
    """Integers that only become more."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[range]:
        return (range(start, end) for start, end in zip(self._starts, self._ends, strict=True))

    def add(self, start: int, end: int) -> None:
        """Adds start to end, exclusive; nothing if that is empty."""
        if start >= end:
            return
        # Those that overlap or touch: they end at `start` or later, and begin at `end` or earlier.
        first = bisect_right(self._ends, start - 1)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def end_of_range_at(self, value: int) -> int | None:
        """End of the range that holds the value; None if none does."""
        at = bisect_right(self._starts, value) - 1
        return self._ends[at] if at >= 0 and value < self._ends[at] else None

    def before(self, end: int) -> "RangeSet":
        """Those below `end`."""
        kept = RangeSet()
        for own in self:
            kept.add(own.start, min(own.stop, end))
        return kept


def runs(values: Int64Array) -> list[range]:
    """Ascending integers, [n], as runs of consecutive ones."""
    if not len(values):
        return []
    breaks = np.flatnonzero(np.diff(values) != 1) + 1
    firsts, lasts = values[np.append(0, breaks)], values[np.append(breaks - 1, len(values) - 1)]
    return [range(first, last + 1) for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)]


def to_wire(ranges: Iterable[range]) -> list[types_pb2.Range]:
    """Ranges as they travel."""
    return [types_pb2.Range(first=own.start, count=len(own)) for own in ranges]
