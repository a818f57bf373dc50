"""The trail of an attachment: where its newest tokens point, and the blocks that a recall takes from that.

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

from memsvc.geometry import visible_blocks_ends
from memsvc.lattice import SIMILARITY_UNIT
from memsvc.shards.base import BlockHits, Int16Array, Int64Array
from protos.memsvc.v1 import graph_pb2, memory_pb2, types_pb2

Float64Array = npt.NDArray[np.float64]

# Limits of an explanation, as in ExplainedBlock and ExplainResponse.
EXPLAINED_VOTES_MAX = 32
BELOW_CUT_MAX = 8


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


@dataclass(frozen=True)
class RecallResult:
    """The answer to a recall, and what it takes to explain it later.

    Args:
        asked_at: Position of the last token that voted.
        blocks: Hits, best first, then their neighbours.
        mean: Of the scores of all candidates.
        std: Likewise, of the population.
        candidates: Blocks that could have been recalled.
        below_cut: The best blocks with votes that were not chosen, at most 8.
        votes: In order of (token, stream).
        settings: What faded and weighted the votes.
    """

    asked_at: int
    blocks: tuple[memory_pb2.RecalledBlock, ...]
    mean: float
    std: float
    candidates: int
    below_cut: tuple[memory_pb2.RecalledBlock, ...]
    votes: tuple[TokenVotes, ...]
    settings: TrailSettings

    def explain(self, block: memory_pb2.RecalledBlock) -> graph_pb2.ExplainedBlock:
        """The largest votes for one of `blocks` or `below_cut`, at most 32."""
        votes = [
            graph_pb2.Vote(
                position=token.position,
                bookmark=int(token.bookmark[rank]),
                stream=token.stream,
                similarity=float(token.similarity[rank]),
                cut=token.cut,
                contribution=float(_contributions(token, self.asked_at, self.settings)[rank]),
            )
            for token in self.votes
            for rank in np.flatnonzero(token.block == block.block)
        ]
        votes.sort(key=lambda vote: (-vote.contribution, -vote.position))
        return graph_pb2.ExplainedBlock(block=block, votes=votes[:EXPLAINED_VOTES_MAX])


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

        Cost: one search per stream for the tokens that no recall has asked about yet.
        """
        self._vote(search)
        votes = tuple(vote for token in self._rows if token <= asked_at for vote in self._votes[token])
        return recall(votes, asked_at, candidates, ask, self.settings)

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


def recall(
    votes: tuple[TokenVotes, ...],
    asked_at: int,
    candidates: Int64Array,
    ask: memory_pb2.RecallRequest,
    settings: TrailSettings,
) -> RecallResult:
    """Add up the votes and choose blocks; `votes` in order of (token, stream), `candidates` ascending."""
    scores, bookmarks = _tally(votes, asked_at, candidates, settings)
    mean, std = (float(scores.mean()), float(scores.std())) if len(scores) else (0.0, 0.0)

    def block(at: int, reached: memory_pb2.Reached.ValueType, via: int | None = None) -> memory_pb2.RecalledBlock:
        own, score, bookmark = int(candidates[at]), float(scores[at]), int(bookmarks[at])
        return memory_pb2.RecalledBlock(
            block=own,
            score=score,
            z=(score - mean) / std if std > 0 else 0.0,
            reached=reached,
            via_block=own if via is None else via,
            bookmark=bookmark,
        )

    # Best first, of equals the newest: without votes that is newest first, as a fill wants it.
    order = np.lexsort((-candidates, -scores))
    top = order[: min(ask.top_blocks, ask.budget_blocks)].tolist()
    hits = [at for at in top if scores[at] > 0]
    chosen = {at: block(at, memory_pb2.REACHED_TRAIL if scores[at] > 0 else memory_pb2.REACHED_FILL) for at in top}
    for at, via in _neighbours(hits, candidates, ask.neighbours):
        if len(chosen) < ask.budget_blocks and at not in chosen:
            chosen[at] = block(at, memory_pb2.REACHED_NEIGHBOUR, via)
    rest = [at for at in order[: len(chosen) + BELOW_CUT_MAX].tolist() if at not in chosen and scores[at] > 0]
    below = tuple(block(at, memory_pb2.REACHED_UNSPECIFIED) for at in rest[:BELOW_CUT_MAX])
    return RecallResult(asked_at, tuple(chosen.values()), mean, std, len(candidates), below, votes, settings)


def _neighbours(hits: list[int], candidates: Int64Array, reach: int) -> list[tuple[int, int]]:
    """Candidates beside each hit in hit order, the nearest first and the earlier before the later.

    Hits are places in `candidates`; so is the first of each pair, and the second is the hit's block.
    """
    offsets = [offset for distance in range(1, reach + 1) for offset in (-distance, distance)]
    pairs = [(hit + offset, hit) for hit in candidates[hits].tolist() for offset in offsets]
    places = np.searchsorted(candidates, [block for block, _ in pairs]).tolist()
    return [
        (at, hit)
        for at, (block, hit) in zip(places, pairs, strict=True)
        if at < len(candidates) and candidates[at] == block
    ]


def _tally(
    votes: tuple[TokenVotes, ...], asked_at: int, candidates: Int64Array, settings: TrailSettings
) -> tuple[Float64Array, Int64Array]:
    """Score of each candidate, and the bookmark that gave it most (-1 if none), float64 and int64 [candidates]."""
    scores = np.zeros(len(candidates))
    bookmarks = np.full(len(candidates), -1)
    if not votes or not len(candidates):
        return scores, bookmarks
    block = np.concatenate([token.block for token in votes])
    bookmark = np.concatenate([token.bookmark for token in votes])
    contribution = np.concatenate([_contributions(token, asked_at, settings) for token in votes])
    place = np.minimum(np.searchsorted(candidates, block), len(candidates) - 1)
    counts = candidates[place] == block
    place, bookmark, contribution = place[counts], bookmark[counts], contribution[counts]
    # In order of the votes, one after the other.
    np.add.at(scores, place, contribution)
    rising = np.argsort(contribution, kind="stable")
    bookmarks[place[rising]] = bookmark[rising]
    return scores, bookmarks


def _contributions(token: TokenVotes, asked_at: int, settings: TrailSettings) -> Float64Array:
    fading = settings.decay ** (asked_at - token.position) * settings.weights[token.stream]
    return fading * (token.similarity - token.cut)


def _token_votes(position: int, stream: str, hits: BlockHits, row: int) -> TokenVotes:
    found = int(hits.found[row])
    similarity = hits.dot[row, :found].astype(np.float64) * SIMILARITY_UNIT
    cut = float(similarity[-1]) if found else 0.0
    above = int(np.count_nonzero(similarity > cut))
    return TokenVotes(position, stream, hits.block[row, :above], hits.bookmark[row, :above], similarity[:above], cut)
