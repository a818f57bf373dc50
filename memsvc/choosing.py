"""What a recall takes, given the votes: scores of the candidates, and the blocks that fit into its budget.

Places go, in this order, to

    hits         the best candidates, `top_blocks` of them; without votes the newest, as a fill
    hops         if links are followed: the blocks that they lead to, best first, at most `hops.blocks`. Where the
                 budget has no room for both, the weaker half of the hits gives way
    neighbours   blocks beside the best hit, beside the best hop, the next hit and so on, as far as the budget goes

so that hops mostly take the places of far neighbours. Following links changes which blocks are recalled, never how
many may be.

Invariants:
    What is recalled is a candidate, and is there once.
    The result is a function of votes, candidates, request and hops.
Must not know: sessions, I/O.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from memsvc.graph import BookmarkGraph
from memsvc.hops import PASSAGES_MAX, Hit, Hop, HopSettings, hop_from
from memsvc.shards.base import Int64Array
from memsvc.votes import Float64Array, TrailSettings, Votes
from protos.memsvc.v1 import graph_pb2, memory_pb2

# Limits of an explanation, as in ExplainedBlock and ExplainResponse.
EXPLAINED_VOTES_MAX = 32
EXPLAINED_LINKS_MAX = 32
BELOW_CUT_MAX = 8


@dataclass(frozen=True)
class Scores:
    """What the votes say of the candidates.

    Args:
        asked_at: Position of the last token that voted.
        candidates: Blocks that could be recalled, ascending, int64 [n].
        score: Of each one, float64 [n].
        bookmark: The bookmark that gave it most, -1 if none voted, int64 [n].
        order: Places of the candidates, best first, of equals the newest: without votes newest first, as a fill wants.
        mean: Of the scores.
        std: Likewise, of the population.
        votes: Of the newest tokens.
        settings: What faded and weighted the votes.
    """

    asked_at: int
    candidates: Int64Array
    score: Float64Array
    bookmark: Int64Array
    order: Int64Array
    mean: float
    std: float
    votes: Votes
    settings: TrailSettings

    def hits(self, count: int) -> tuple[Hit, ...]:
        """The best candidates that were voted for, as hops go on from them."""
        places = [at for at in self.order[:count].tolist() if self.score[at] > 0]
        return tuple(self._hit(at) for at in places)

    def _hit(self, at: int) -> Hit:
        block = int(self.candidates[at])
        matched = self.votes.of_block(block).bookmark
        return Hit(block, int(self.bookmark[at]), float(self.score[at]), matched, (), block)


@dataclass(frozen=True)
class RecallResult:
    """The answer to a recall, and what it takes to explain it later.

    Args:
        asked_at: Position of the last token that voted.
        blocks: Hits, best first, then hops, then neighbours.
        mean: Of the scores of all candidates.
        std: Likewise, of the population.
        candidates: Blocks that could have been recalled.
        below_cut: The best blocks with votes that were not chosen, at most 8.
        votes: Of the newest tokens.
        settings: What faded and weighted the votes.
        hops: Where links led, of the blocks that were chosen.
    """

    asked_at: int
    blocks: tuple[memory_pb2.RecalledBlock, ...]
    mean: float
    std: float
    candidates: int
    below_cut: tuple[memory_pb2.RecalledBlock, ...]
    votes: Votes
    settings: TrailSettings
    hops: tuple[Hop, ...] = ()

    def explain(self, block: memory_pb2.RecalledBlock) -> graph_pb2.ExplainedBlock:
        """The largest votes for one of `blocks` or `below_cut`, and the links that led there; 32 of each at most."""
        own = self.votes.of_block(block.block)
        votes = [
            graph_pb2.Vote(
                position=int(own.position[at]),
                bookmark=int(own.bookmark[at]),
                stream=self.settings.streams[own.stream[at]],
                similarity=float(own.similarity[at]),
                cut=float(own.cut[at]),
                contribution=contribution,
            )
            for at, contribution in enumerate(own.contributions(self.asked_at, self.settings).tolist())
        ]
        votes.sort(key=lambda vote: (-vote.contribution, -vote.position))
        links = [
            graph_pb2.FollowedLink(source=link.source, target=link.target, weight=link.weight, worth=link.worth)
            for hop in self.hops
            if hop.block == block.block
            for link in hop.links[:EXPLAINED_LINKS_MAX]
        ]
        return graph_pb2.ExplainedBlock(block=block, votes=votes[:EXPLAINED_VOTES_MAX], links=links)


def tally(votes: Votes, asked_at: int, candidates: Int64Array, settings: TrailSettings) -> Scores:
    """Adds up the votes; `candidates` ascending."""
    scores = np.zeros(len(candidates))
    bookmarks = np.full(len(candidates), -1)
    if len(votes) and len(candidates):
        contribution = votes.contributions(asked_at, settings)
        place = _places(candidates, votes.block)
        counted = place >= 0
        place, bookmark, contribution = place[counted], votes.bookmark[counted], contribution[counted]
        # In order of the votes, one after the other.
        np.add.at(scores, place, contribution)
        most = np.zeros(len(candidates))
        np.maximum.at(most, place, contribution)
        largest = contribution == most[place]
        # Of equals the last.
        bookmarks[place[largest]] = bookmark[largest]
    order = len(candidates) - 1 - np.argsort(-scores[::-1], kind="stable")
    mean, std = (float(scores.mean()), float(scores.std())) if len(scores) else (0.0, 0.0)
    return Scores(asked_at, candidates, scores, bookmarks, order, mean, std, votes, settings)


def _places(candidates: Int64Array, blocks: Int64Array) -> Int64Array:
    """Place of each block among the candidates, at least one and ascending; -1 for one that is none of them."""
    first = int(candidates[0])
    # A table is several times as fast as a binary search for each of a few thousand votes.
    table = np.full(int(candidates[-1]) - first + 2, -1)
    table[candidates - first] = np.arange(len(candidates))
    # What lies outside looks at the table's last entry, which is nobody's.
    inside = (blocks >= first) & (blocks <= candidates[-1])
    return table[np.where(inside, blocks - first, -1)]


def hits_kept(ask: memory_pb2.RecallRequest) -> int:
    """Hits that stay whatever links lead to: as many as leave room for the hops, but the better half in any case."""
    top = min(ask.top_blocks, ask.budget_blocks)
    return max((top + 1) // 2, min(top, ask.budget_blocks - ask.hops.blocks)) if ask.HasField("hops") else top


def follow(
    graph: BookmarkGraph,
    scores: Scores,
    ask: memory_pb2.RecallRequest,
    similarity_min: float,
    total: int | None = None,
) -> tuple[Hop, ...]:
    """Where the links of the hits lead; nowhere unless that was asked for.

    Args:
        similarity_min: Least weight of a link.
        total: Only the first so many bookmarks; all if None.
    """
    if not ask.HasField("hops"):
        return ()
    settings = HopSettings(ask.hops.hops, ask.hops.blocks, similarity_min, ask.hops.half_life_tokens)
    kept = hits_kept(ask)
    blocks = frozenset(scores.candidates[scores.order[:kept]].tolist())
    return hop_from(graph, scores.hits(min(kept, PASSAGES_MAX)), scores.candidates, blocks, settings, total)


def choose(scores: Scores, ask: memory_pb2.RecallRequest, hops: Sequence[Hop] = ()) -> RecallResult:
    """Fills the budget.

    Args:
        hops: What `follow` found.
    """
    order = scores.order
    top = min(ask.top_blocks, ask.budget_blocks)
    hops = tuple(hops[: ask.budget_blocks - hits_kept(ask)])
    places = np.searchsorted(scores.candidates, [hop.block for hop in hops]).tolist()
    led = dict(zip(places, hops, strict=True))
    hits = [at for at in order[:top].tolist() if at not in led][: ask.budget_blocks - len(led)]
    chosen = {at: _block(scores, at, _reached(scores, at)) for at in hits}
    chosen.update((at, _hop_block(scores, at, hop)) for at, hop in led.items())
    turns = zip_longest((at for at in hits if scores.score[at] > 0), led)
    beside = [at for turn in turns for at in turn if at is not None]
    for at, via in _neighbours(beside, scores.candidates, ask.neighbours):
        if len(chosen) < ask.budget_blocks and at not in chosen:
            chosen[at] = _block(scores, at, memory_pb2.REACHED_NEIGHBOUR, via)
    rest = [at for at in order[: len(chosen) + BELOW_CUT_MAX].tolist() if at not in chosen and scores.score[at] > 0]
    below = tuple(_block(scores, at, memory_pb2.REACHED_UNSPECIFIED) for at in rest[:BELOW_CUT_MAX])
    return RecallResult(
        asked_at=scores.asked_at,
        blocks=tuple(chosen.values()),
        mean=scores.mean,
        std=scores.std,
        candidates=len(scores.candidates),
        below_cut=below,
        votes=scores.votes,
        settings=scores.settings,
        hops=hops,
    )


def _reached(scores: Scores, at: int) -> memory_pb2.Reached.ValueType:
    return memory_pb2.REACHED_TRAIL if scores.score[at] > 0 else memory_pb2.REACHED_FILL


def _block(
    scores: Scores, at: int, reached: memory_pb2.Reached.ValueType, via: int | None = None
) -> memory_pb2.RecalledBlock:
    own, score = int(scores.candidates[at]), float(scores.score[at])
    return memory_pb2.RecalledBlock(
        block=own,
        score=score,
        z=_standardised(scores, score),
        reached=reached,
        via_block=own if via is None else via,
        bookmark=int(scores.bookmark[at]),
    )


def _hop_block(scores: Scores, at: int, hop: Hop) -> memory_pb2.RecalledBlock:
    score = max(hop.score, float(scores.score[at]))
    return memory_pb2.RecalledBlock(
        block=hop.block,
        score=score,
        z=_standardised(scores, score),
        reached=memory_pb2.REACHED_HOP,
        via_block=hop.origin,
        bookmark=hop.bookmark,
        path=hop.path,
    )


def _standardised(scores: Scores, score: float) -> float:
    return (score - scores.mean) / scores.std if scores.std > 0 else 0.0


def _neighbours(beside: list[int], candidates: Int64Array, reach: int) -> Iterator[tuple[int, int]]:
    """Candidates beside some blocks in their order, the nearest first and the earlier before the later.

    Blocks are given as places in `candidates`; so is the first of each pair, and the second is the block itself.
    """
    offsets = [offset for distance in range(1, reach + 1) for offset in (-distance, distance)]
    pairs = [(hit + offset, hit) for hit in candidates[beside].tolist() for offset in offsets]
    places = np.searchsorted(candidates, [block for block, _ in pairs]).tolist()
    for at, (block, hit) in zip(places, pairs, strict=True):
        if at < len(candidates) and candidates[at] == block:
            yield at, hit
