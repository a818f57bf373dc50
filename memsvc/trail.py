"""The trail of an attachment: where its newest tokens point. What a recall takes from that: `memsvc.choosing`.

For each of the last `tokens` tokens t up to the one that asks, p, and for each stream, the K best distinct visible
blocks with similarities s_1 >= ... >= s_K vote

    contribution(t, stream, block) = decay ** (p - t) * weight(stream) * (s_block - s_K)
    A(block)                       = sum of the contributions, float64, in order of (t, stream, rank)

so that the K-th best has no vote (fewer than K found: the last one has none).

Invariants:
    A token's votes depend on itself and on what it can see, both fixed when it was read: they are computed once, and a
    recall is the same whatever the steps were that tokens came in.
    Positions ascend; a gap is tokens that do not vote.
Must not know: sessions, I/O, which finder there is. Bookmarks are found by the function that a recall is given; of
`memsvc.shards` only the form of its answers is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from memsvc.choosing import RecallResult, choose, tally
from memsvc.geometry import visible_blocks_ends
from memsvc.lattice import SIMILARITY_UNIT
from memsvc.shards.base import BlockHits, Int16Array, Int64Array
from protos.memsvc.v1 import memory_pb2, types_pb2

Float64Array = npt.NDArray[np.float64]


class BlockSearch(Protocol):
    """Finds blocks for tokens of one stream; `StreamIndex.best_blocks` with the rest filled in."""

    def __call__(self, stream: str, queries: Int16Array, blocks_end: Int64Array, k: int) -> BlockHits:
        """Best k distinct blocks past the sinks and below `blocks_end`, for each query, [m, dims] and [m]."""
        ...


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


@dataclass(frozen=True)
class TokenVotes:
    """Votes of one token in one stream before fading: the blocks above its cut, best first.

    Args:
        block: int64 [n], n below K.
        bookmark: Each block's best bookmark, int64 [n].
        similarity: Of that bookmark, float64 [n].
        cut: Similarity of the K-th best block.
    """

    position: int
    stream: str
    block: Int64Array
    bookmark: Int64Array
    similarity: Float64Array
    cut: float


class Trail:
    """The newest tokens of one attachment, and their votes once a recall needed them.

    Args:
        settings: What fixes the votes.
    """

    def __init__(self, settings: TrailSettings) -> None:
        self.settings = settings
        # By position, ascending; of the last `tokens` positions only.
        self._rows: dict[int, dict[str, Int16Array]] = {}
        self._votes: dict[int, tuple[TokenVotes, ...]] = {}

    def append(self, first_position: int, rows: Mapping[str, Int16Array]) -> None:
        """Tokens at `first_position` and on: lattice vectors by stream, [n, dims] each, the same n of at least 1."""
        count = len(next(iter(rows.values())))
        end = first_position + count
        assert not self._rows or first_position > next(reversed(self._rows))
        for offset in range(max(0, count - self.settings.tokens), count):
            self._rows[first_position + offset] = {name: rows[name][offset] for name in self.settings.weights}
        for position in [old for old in self._rows if old < end - self.settings.tokens]:
            del self._rows[position]
            self._votes.pop(position, None)

    def copy(self) -> "Trail":
        """A trail that goes on from here on its own."""
        copy = Trail(self.settings)
        copy._rows, copy._votes = dict(self._rows), dict(self._votes)
        return copy

    def recall(
        self, asked_at: int, candidates: Int64Array, ask: memory_pb2.RecallRequest, search: BlockSearch
    ) -> RecallResult:
        """Choose blocks as of the token at `asked_at`, the newest one.

        Args:
            candidates: Blocks that may be recalled, ascending.
            search: Sees at least the bookmarks that the tokens up to `asked_at` can see.
        """
        return choose(tally(self.votes(asked_at, search), asked_at, candidates, self.settings), ask)

    def votes(self, asked_at: int, search: BlockSearch) -> tuple[TokenVotes, ...]:
        """Votes as of the token at `asked_at`, the newest one, in order of (token, stream).

        Cost: one search per stream for the tokens that nobody has asked about yet.
        """
        self._vote(search)
        return tuple(vote for token in self._rows if token <= asked_at for vote in self._votes[token])

    def rows(self, stream: str) -> Mapping[int, Int16Array]:
        """Lattice vectors of the newest tokens by position, ascending, [dims] each."""
        return {position: rows[stream] for position, rows in self._rows.items()}

    def _vote(self, search: BlockSearch) -> None:
        pending = [position for position in self._rows if position not in self._votes]
        if not pending:
            return
        settings = self.settings
        ends = visible_blocks_ends(np.array(pending), settings.sink_tokens, settings.window_tokens)
        hits = {
            name: search(name, np.stack([self._rows[position][name] for position in pending]), ends, settings.blocks)
            for name in settings.weights
        }
        for row, position in enumerate(pending):
            self._votes[position] = tuple(_token_votes(position, name, hits[name], row) for name in settings.weights)


def _token_votes(position: int, stream: str, hits: BlockHits, row: int) -> TokenVotes:
    found = int(hits.found[row])
    similarity = hits.dot[row, :found].astype(np.float64) * SIMILARITY_UNIT
    cut = float(similarity[-1]) if found else 0.0
    above = int(np.count_nonzero(similarity > cut))
    return TokenVotes(position, stream, hits.block[row, :above], hits.bookmark[row, :above], similarity[:above], cut)
