"""Votes of a trail's newest tokens, as arrays: what a recall adds up, and what an explanation lists.

Invariants:
    Votes are in order of (token, stream, rank), and never change once appended: what was handed out stays as it was.
Must not know: who counts them, and how they are found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from memsvc.shards.base import Int64Array
from protos.memsvc.v1 import types_pb2

Float64Array = npt.NDArray[np.float64]

# How many times the votes of a whole trail fit before they are copied into new arrays.
_ROOM = 4


@dataclass(frozen=True)
class TrailSettings:
    """What fixes the votes.

    Args:
        blocks: Best distinct blocks that a token looks at (K).
        decay: Factor a token by which older votes fade.
        tokens: Newest positions that vote.
        weights: Weight of each stream, in the order in which streams vote.
        sink_tokens: First tokens, which nobody votes for.
        window_tokens: Newest tokens of a token's own window, which it does not vote for.
    """

    blocks: int
    decay: float
    tokens: int
    weights: Mapping[str, float]
    sink_tokens: int
    window_tokens: int

    @classmethod
    def of(cls, spec: types_pb2.SessionSpec) -> "TrailSettings":
        """The settings that a session was made with."""
        mark, search = spec.fingerprint, spec.search
        weights = {stream.name: stream.weight or 1.0 for stream in mark.streams}
        return cls(
            blocks=search.trail_blocks,
            decay=search.trail_decay,
            tokens=search.trail_tokens,
            weights=weights,
            sink_tokens=mark.sink_tokens,
            window_tokens=mark.window_tokens,
        )

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Names, in the order in which streams vote."""
        return tuple(self.weights)

    @cached_property
    def fading(self) -> Float64Array:
        """What a vote counts, by its stream's place and its token's age in tokens, float64 [streams, tokens]."""
        faded = [[self.decay**age * weight for age in range(self.tokens)] for weight in self.weights.values()]
        return np.array(faded, dtype=np.float64)


@dataclass(frozen=True)
class Votes:
    """Votes before fading, one in each place of all arrays, [n].

    Args:
        position: Of the token, int64.
        stream: Place of the stream in the settings, int64.
        block: Voted for, int64.
        bookmark: The block's best bookmark, int64.
        similarity: Of that bookmark, float64.
        cut: Similarity of the token's K-th best block, float64.
    """

    position: Int64Array
    stream: Int64Array
    block: Int64Array
    bookmark: Int64Array
    similarity: Float64Array
    cut: Float64Array

    def __len__(self) -> int:
        return len(self.position)

    def contributions(self, asked_at: int, settings: TrailSettings) -> Float64Array:
        """What each vote adds to its block's score in a recall as of the token at `asked_at`, float64 [n]."""
        return settings.fading[self.stream, asked_at - self.position] * (self.similarity - self.cut)

    def of_block(self, block: int) -> "Votes":
        """Those for one block."""
        return self._taken(np.flatnonzero(self.block == block))

    def through(self, position: int) -> "Votes":
        """Those of tokens up to `position`."""
        if not len(self) or self.position[-1] <= position:
            return self
        return self._taken(slice(0, int(np.searchsorted(self.position, position, side="right"))))

    def _taken(self, places: "Int64Array | slice") -> "Votes":
        return Votes(
            self.position[places],
            self.stream[places],
            self.block[places],
            self.bookmark[places],
            self.similarity[places],
            self.cut[places],
        )


class VoteColumns:
    """The votes of the newest tokens: later ones come, older ones leave.

    Args:
        settings: How many there can be.
    """

    def __init__(self, settings: TrailSettings) -> None:
        self._settings = settings
        self._most = _ROOM * settings.tokens * len(settings.weights) * settings.blocks
        self._integers, self._numbers = self._empty()
        self._first = self._end = 0

    def append(self, votes: Votes) -> None:
        """Adds votes of later tokens, of at most as many as vote."""
        count = len(votes)
        if self._end + count > self._integers.shape[1]:
            integers, numbers = self._empty()
            kept = self._end - self._first
            integers[:, :kept] = self._integers[:, self._first : self._end]
            numbers[:, :kept] = self._numbers[:, self._first : self._end]
            self._integers, self._numbers, self._first, self._end = integers, numbers, 0, kept
        own = slice(self._end, self._end + count)
        for row, column in enumerate((votes.position, votes.stream, votes.block, votes.bookmark)):
            self._integers[row, own] = column
        self._numbers[0, own], self._numbers[1, own] = votes.similarity, votes.cut
        self._end += count

    def drop_before(self, position: int) -> None:
        """Lets go of the votes of tokens before `position`."""
        self._first += int(np.searchsorted(self._integers[0, self._first : self._end], position))

    def view(self) -> Votes:
        """All there are; no copy, and it stays as it is."""
        own = slice(self._first, self._end)
        return Votes(*self._integers[:, own], *self._numbers[:, own])

    def copy(self) -> "VoteColumns":
        """Columns that go on from here on their own."""
        copy = VoteColumns(self._settings)
        copy.append(self.view())
        return copy

    def _empty(self) -> tuple[Int64Array, Float64Array]:
        return np.empty((4, self._most), dtype=np.int64), np.empty((2, self._most), dtype=np.float64)
