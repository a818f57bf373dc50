"""The tokens of a session: which positions came, with which ids, and which were dropped.

Invariants:
    Positions ascend; a position comes once. What lies between two that came is a gap.
    Nothing changes once added.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memsvc.columns import Column
from memsvc.session.ranges import RangeSet

Uint32Array = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class TokenRead:
    """Token ids in order of position, uint32 [n], and the ranges of positions that they belong to, n in all."""

    ids: Uint32Array
    positions: tuple[range, ...]


class TokenTable:
    """Ids and gaps by position.

    Attributes:
        position: Of the next token.
        received: Tokens that came.
        gaps: Positions that were dropped.

    Concurrency: one caller at a time, but what `read` returns stays constant.
    """

    def __init__(self) -> None:
        self.position = 0
        self.received = 0
        self.gaps = RangeSet()
        self._ids: Column[np.uint32] = Column(np.uint32)
        # Runs of positions with ids: the first position of each, and where its ids begin.
        self._firsts: list[int] = []
        self._offsets: list[int] = []

    def append(self, first_position: int, count: int, ids: Uint32Array) -> None:
        """Adds tokens at `first_position` and on, past all there are; `ids` are [count], or [0] if not known."""
        self.gaps.add(self.position, first_position)
        if len(ids):
            if not self._firsts or first_position != self._firsts[-1] + len(self._ids) - self._offsets[-1]:
                self._firsts.append(first_position)
                self._offsets.append(len(self._ids))
            self._ids.extend(ids)
        self.position = first_position + count
        self.received += count

    def read(self, first: int, count: int) -> TokenRead:
        """Ids of those of `count` positions from `first` that have one."""
        ids, end = self._ids.view(), first + count
        parts: list[Uint32Array] = []
        positions: list[range] = []
        for run in range(max(0, bisect_right(self._firsts, first) - 1), bisect_right(self._firsts, end)):
            offset, run_first = self._offsets[run], self._firsts[run]
            offset_end = self._offsets[run + 1] if run + 1 < len(self._offsets) else len(ids)
            own = range(max(first, run_first), min(end, run_first + offset_end - offset))
            if own:
                positions.append(own)
                parts.append(ids[offset + own.start - run_first : offset + own.stop - run_first])
        return TokenRead(np.concatenate([np.empty(0, dtype=np.uint32), *parts]), tuple(positions))
