"""Recall over a trace with the server's own policy, index and trail, and without a server.

For each fact: text, 256 tokens of unrelated text, the question; then one recall, as the client asks for it. Whole:
every block that the fact touches is among what is recalled. Rank 1: the best block is one of the fact's. Top 16: each
of its sentences has a block among the 16 best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.traces.format import IDS, SURPRISAL, Trace, TracedFact
from memsvc.geometry import BLOCK_TOKENS, visible_blocks_ends, window_start
from memsvc.lattice import Float64Array, centre_of, to_lattice
from memsvc.session.deciding import Decider
from memsvc.session.steps import TokenStep
from memsvc.session.vectors import TokenRows
from memsvc.shards.base import BlockHits, Int16Array, Int64Array
from memsvc.shards.index import StreamIndex
from memsvc.trail import BlockSearch, Trail, TrailSettings
from protos.memsvc.v1 import memory_pb2, types_pb2

STREAM = "probe"
CENTRING_TOKENS = 4096
TRAIL_BLOCKS, TRAIL_DECAY, TRAIL_TOKENS = 16, 0.95, 128
# As the client asks unless told otherwise; and the 16 best alone.
ASK = memory_pb2.RecallRequest(top_blocks=8, neighbours=1, budget_blocks=24)
ASK_16 = memory_pb2.RecallRequest(top_blocks=16, neighbours=0, budget_blocks=16)
# How the start of a session is reported.
COLD_TOKENS = 8192
# Tokens turned into lattice vectors, and questions searched for, at once.
_ROWS, _QUESTIONS = 8192, 32


@dataclass(frozen=True)
class PreparedTrace:
    """A trace's tokens at one layer as the server holds them: lattice vectors int16 [rows, dims]."""

    trace: Trace
    rows: Int16Array

    @classmethod
    def of(cls, trace: Trace, layer: int) -> "PreparedTrace":
        """Raises TraceError where the trace has no such layer."""
        centre = centre_of(trace.embeddings(layer, 0, min(trace.tokens, CENTRING_TOKENS)))
        count = len(trace.arrays[IDS])
        tiles = [_lattice(trace, layer, centre, first, min(count, first + _ROWS)) for first in range(0, count, _ROWS)]
        return cls(trace, np.concatenate(tiles))


@dataclass(frozen=True)
class Found:
    """What one recall found of one fact."""

    kind: str
    whole: bool
    rank_1: bool
    top_16: bool


@dataclass(frozen=True)
class Outcome:
    """One policy over one trace.

    Args:
        share: Bookmarks of the text a token; `cold_share`: of its first 8,192 tokens.
        reachable: Share of the blocks that may be recalled that have a bookmark.
    """

    share: float
    cold_share: float
    reachable: float
    found: tuple[Found, ...]


def recall_of(prepared: PreparedTrace, policy: types_pb2.PolicySpec) -> Outcome:
    """Bookmark the text as the policy says, and ask for every fact.

    Raises:
        InvalidRequest: The policy's settings, or a signal that the trace lacks.
    """
    trace = prepared.trace
    positions = bookmarks_of(prepared, policy)
    blocks = positions // BLOCK_TOKENS
    index = StreamIndex(trace.source.dims, types_pb2.SearchSpec(finder=types_pb2.FINDER_KIND_FLAT))
    index.add(prepared.rows[positions])
    candidates = _candidates(trace)
    found = tuple(_found_of(prepared, index, blocks, candidates))
    text = positions[positions < trace.source.text_tokens]
    cold = min(COLD_TOKENS, trace.source.text_tokens)
    return Outcome(
        share=len(text) / trace.source.text_tokens,
        cold_share=np.count_nonzero(text < cold) / cold,
        reachable=float(np.isin(candidates, blocks).mean()) if len(candidates) else 0.0,
        found=found,
    )


def bookmarks_of(prepared: PreparedTrace, policy: types_pb2.PolicySpec) -> Int64Array:
    """Positions that a session with this policy bookmarks, ascending, text and unrelated text."""
    trace = prepared.trace
    tokens = trace.tokens
    mark = types_pb2.Fingerprint(streams=[types_pb2.StreamSpec(name=STREAM, dims=trace.source.dims)])
    decider = Decider(types_pb2.SessionSpec(fingerprint=mark, policy=policy))
    ids = np.array(trace.arrays[IDS][:tokens], dtype=np.uint32)
    signals = {SURPRISAL: np.array(trace.arrays[SURPRISAL][:tokens], dtype=np.float32)}
    decider.take(TokenStep(0, tokens, 0, ids, signals, (), {}, {}))
    settled = decider.settle(TokenRows(np.arange(tokens), {STREAM: prepared.rows[:tokens]}))
    return settled.decided.positions


def _lattice(trace: Trace, layer: int, centre: Float64Array, first: int, end: int) -> Int16Array:
    return to_lattice(trace.embeddings(layer, first, end), centre)


def _candidates(trace: Trace) -> Int64Array:
    """Blocks between sinks and window when the question comes."""
    source = trace.source
    end = window_start(trace.tokens, source.sink_tokens, source.window_tokens) // BLOCK_TOKENS
    return np.arange(source.sink_tokens // BLOCK_TOKENS, end)


def _found_of(prepared: PreparedTrace, index: StreamIndex, blocks: Int64Array, candidates: Int64Array) -> list[Found]:
    trace = prepared.trace
    source, tokens = trace.source, trace.tokens
    settings = TrailSettings(
        TRAIL_BLOCKS, TRAIL_DECAY, TRAIL_TOKENS, {STREAM: 1.0}, source.sink_tokens, source.window_tokens
    )
    first_block = source.sink_tokens // BLOCK_TOKENS

    def search(stream: str, queries: Int16Array, blocks_end: Int64Array, k: int) -> BlockHits:
        assert stream == STREAM
        return index.best_blocks(queries, blocks_end, blocks, len(blocks), k, first_block)

    before = Trail(settings)
    start = max(0, tokens - TRAIL_TOKENS)
    before.append(start, {STREAM: prepared.rows[start:tokens]})
    # Votes of what comes before the questions are the same for all: counted here, copied below.
    before.recall(tokens - 1, candidates, ASK, search)
    found: list[Found] = []
    for first in range(0, len(trace.facts), _QUESTIONS):
        facts = trace.facts[first : first + _QUESTIONS]
        for fact, known in zip(facts, _searched(prepared, facts, settings, search), strict=True):
            trail = before.copy()
            own = slice(fact.question_first, fact.question_first + fact.question_tokens)
            trail.append(tokens, {STREAM: prepared.rows[own]})
            found.append(_found(trail, tokens + fact.question_tokens - 1, candidates, fact, known))
    return found


def _searched(
    prepared: PreparedTrace, facts: Sequence[TracedFact], settings: TrailSettings, search: BlockSearch
) -> list[BlockHits]:
    """Hits of each question's tokens, found for all in one product."""
    tokens = prepared.trace.tokens
    positions = np.concatenate([np.arange(tokens, tokens + fact.question_tokens) for fact in facts])
    rows = np.concatenate(
        [prepared.rows[fact.question_first : fact.question_first + fact.question_tokens] for fact in facts]
    )
    ends = visible_blocks_ends(positions, settings.sink_tokens, settings.window_tokens)
    hits = search(STREAM, rows, ends, settings.blocks)
    cuts = np.cumsum([fact.question_tokens for fact in facts])
    own = [slice(int(end) - fact.question_tokens, int(end)) for fact, end in zip(facts, cuts, strict=True)]
    return [BlockHits(hits.block[at], hits.dot[at], hits.bookmark[at], hits.found[at]) for at in own]


def _found(trail: Trail, asked_at: int, candidates: Int64Array, fact: TracedFact, known: BlockHits) -> Found:
    def search(stream: str, queries: Int16Array, blocks_end: Int64Array, k: int) -> BlockHits:  # noqa: ARG001
        # Only the question has no votes yet, or as much of it as the trail is long.
        assert len(queries) <= len(known.found)
        newest = slice(len(known.found) - len(queries), None)
        return BlockHits(known.block[newest], known.dot[newest], known.bookmark[newest], known.found[newest])

    recalled = [block.block for block in trail.recall(asked_at, candidates, ASK, search).blocks]
    best = {block.block for block in trail.recall(asked_at, candidates, ASK_16, search).blocks}
    gold = {block for sentence in fact.gold for block in sentence}
    return Found(
        kind=fact.kind,
        whole=gold <= set(recalled),
        rank_1=bool(recalled) and recalled[0] in gold,
        top_16=all(best & set(sentence) for sentence in fact.gold),
    )
