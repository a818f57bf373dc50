"""The tokens of a session: which positions came, with which ids and text, and which were dropped.

Invariants:
    Positions ascend; a position comes once. What lies between two that came is a gap.
    Nothing changes once added.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memsvc.columns import Column
from memsvc.session.ranges import RangeSet

Uint32Array = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class TokenText:
    """Text of some tokens: the UTF-8 of all, one after another, and how many bytes are each one's, uint32 [n]."""

    data: bytes
    sizes: Uint32Array

    @classmethod
    def joined(cls, parts: Sequence["TokenText"]) -> "TokenText":
        """The text of tokens that follow each other."""
        sizes = np.concatenate([np.empty(0, dtype=np.uint32), *(own.sizes for own in parts)])
        return cls(b"".join(own.data for own in parts), sizes)


@dataclass(frozen=True, slots=True)
class TokenRead:
    """Token ids in order of position, uint32 [n], and the ranges of positions that they belong to, n in all.

    Args:
        text: None where the session was sent none.
    """

    ids: Uint32Array
    positions: tuple[range, ...]
    text: TokenText | None = None


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
        # Bytes of all text, and where that of each id ends, up to the newest id that came with text.
        self._text: Column[np.uint8] = Column(np.uint8)
        self._text_ends: Column[np.int64] = Column(np.int64)
        # Runs of positions with ids: the first position of each, and where its ids begin.
        self._firsts: list[int] = []
        self._offsets: list[int] = []

    def append(self, first_position: int, count: int, ids: Uint32Array, text: TokenText | None = None) -> None:
        """Adds tokens at `first_position` and on, past all there are.

        Args:
            ids: [count], or [0] if not known.
            text: Of these ids; None if it was not sent.
        """
        self.gaps.add(self.position, first_position)
        if len(ids):
            if not self._firsts or first_position != self._firsts[-1] + len(self._ids) - self._offsets[-1]:
                self._firsts.append(first_position)
                self._offsets.append(len(self._ids))
            if text is not None:
                self._add_text(text)
            self._ids.extend(ids)
        self.position = first_position + count
        self.received += count

    def read(self, first: int, count: int) -> TokenRead:
        """Ids of those of `count` positions from `first` that have one."""
        ids, end = self._ids.view(), first + count
        parts: list[Uint32Array] = []
        positions: list[range] = []
        texts: list[TokenText] = []
        for run in range(max(0, bisect_right(self._firsts, first) - 1), bisect_right(self._firsts, end)):
            offset, run_first = self._offsets[run], self._firsts[run]
            offset_end = self._offsets[run + 1] if run + 1 < len(self._offsets) else len(ids)
            own = range(max(first, run_first), min(end, run_first + offset_end - offset))
            if own:
                positions.append(own)
                parts.append(ids[offset + own.start - run_first : offset + own.stop - run_first])
            if own:
                texts.append(self._text_of(offset + own.start - run_first, offset + own.stop - run_first))
        found = np.concatenate([np.empty(0, dtype=np.uint32), *parts])
        return TokenRead(found, tuple(positions), TokenText.joined(texts) if len(self._text_ends) else None)

    def _add_text(self, text: TokenText) -> None:
        """Adds the text of the ids that come next; ids before them that came without have none."""
        missing = len(self._ids) - len(self._text_ends)
        self._text_ends.extend(np.full(missing, len(self._text), dtype=np.int64))
        self._text_ends.extend(len(self._text) + np.cumsum(text.sizes, dtype=np.int64))
        self._text.extend(np.frombuffer(text.data, dtype=np.uint8))

    def _text_of(self, start: int, end: int) -> TokenText:
        """The text of the ids at `start` to `end`, exclusive."""
        ends = self._text_ends.view()
        # What came after the newest text has none.
        known = np.full(end - start, len(self._text), dtype=np.int64)
        known[: max(0, len(ends) - start)] = ends[start:end]
        begin = 0 if start == 0 or not len(ends) else int(ends[min(start, len(ends)) - 1])
        data = self._text.view()[begin : known[-1]].tobytes()
        return TokenText(data, np.diff(known, prepend=begin).astype(np.uint32))
