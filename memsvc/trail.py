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

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Protocol

import numpy as np

from memsvc.choosing import RecallResult, choose, tally
from memsvc.geometry import visible_blocks_ends
from memsvc.lattice import SIMILARITY_UNIT
from memsvc.shards.base import BlockHits, Int16Array, Int64Array
from memsvc.votes import TrailSettings, VoteColumns, Votes
from protos.memsvc.v1 import memory_pb2


class BlockSearch(Protocol):
    """Finds blocks for tokens of one stream; `StreamIndex.best_blocks` with the rest filled in."""

    def __call__(self, stream: str, queries: Int16Array, blocks_end: Int64Array, k: int) -> BlockHits:
        """Best k distinct blocks past the sinks and below `blocks_end`, for each query, [m, dims] and [m]."""
        ...


class Trail:
    """The newest tokens of one attachment, and their votes once a recall needed them.

    Args:
        settings: What fixes the votes.
    """

    def __init__(self, settings: TrailSettings) -> None:
        self.settings = settings
        # By position, ascending; of the last `tokens` positions only.
        self._rows: dict[int, dict[str, Int16Array]] = {}
        self._votes: VoteColumns | None = None
        # The newest token whose votes were counted; all before it were, too.
        self._counted = -1

    def append(self, first_position: int, rows: Mapping[str, Int16Array]) -> None:
        """Tokens at `first_position` and on: lattice vectors by stream, [n, dims] each, the same n of at least 1."""
        count = len(next(iter(rows.values())))
        first_kept = first_position + count - self.settings.tokens
        assert not self._rows or first_position > next(reversed(self._rows))
        for offset in range(max(0, count - self.settings.tokens), count):
            self._rows[first_position + offset] = {name: rows[name][offset] for name in self.settings.weights}
        for position in list(takewhile(lambda old: old < first_kept, self._rows)):
            del self._rows[position]
        if self._votes is not None:
            self._votes.drop_before(first_kept)

    def copy(self) -> "Trail":
        """A trail that goes on from here on its own."""
        copy = Trail(self.settings)
        copy._rows, copy._counted = dict(self._rows), self._counted
        copy._votes = None if self._votes is None else self._votes.copy()
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

    def votes(self, asked_at: int, search: BlockSearch) -> Votes:
        """Votes as of the token at `asked_at`, the newest one.

        Cost: one search per stream for the tokens that nobody has asked about yet.
        """
        if self._votes is None:
            self._votes = VoteColumns(self.settings)
        pending = list(takewhile(lambda position: position > self._counted, reversed(self._rows)))[::-1]
        if pending:
            self._votes.append(self._count(pending, search))
            self._counted = pending[-1]
        return self._votes.view().through(asked_at)

    def rows(self, stream: str) -> Mapping[int, Int16Array]:
        """Lattice vectors of the newest tokens by position, ascending, [dims] each."""
        return {position: rows[stream] for position, rows in self._rows.items()}

    def _count(self, pending: Sequence[int], search: BlockSearch) -> Votes:
        """Votes of the tokens at these positions."""
        settings = self.settings
        positions = np.array(pending)
        ends = visible_blocks_ends(positions, settings.sink_tokens, settings.window_tokens)
        hits = [
            search(name, np.stack([self._rows[position][name] for position in pending]), ends, settings.blocks)
            for name in settings.weights
        ]
        return _votes(positions, hits)


def _votes(positions: Int64Array, hits: Sequence[BlockHits]) -> Votes:
    """Votes of tokens, given what each stream found for them, best first: those above the last one found."""
    found = np.stack([own.found for own in hits], axis=1)
    dots = np.stack([own.dot for own in hits], axis=1).astype(np.float64)
    last = np.maximum(found - 1, 0)[:, :, None]
    cut = np.take_along_axis(dots, last, axis=2)
    token, stream, rank = np.nonzero((dots > cut) & (np.arange(dots.shape[2]) < found[:, :, None]))
    return Votes(
        position=positions[token],
        stream=stream,
        block=np.stack([own.block for own in hits], axis=1)[token, stream, rank],
        bookmark=np.stack([own.bookmark for own in hits], axis=1)[token, stream, rank],
        similarity=dots[token, stream, rank] * SIMILARITY_UNIT,
        cut=cut[token, stream, 0] * SIMILARITY_UNIT,
    )
