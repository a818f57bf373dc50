"""Recall over a trace with the server's own policy, index and trail, and without a server.

For each fact: text, 256 tokens of unrelated text, the question; then one recall, as the client asks for it. Whole:
every block that the fact touches is among what is recalled. Rank 1: the best block is one of the fact's. Top 16: each
of its sentences has a block among the 16 best. Where a recall follows links, the bookmarks are linked as a session
links them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.traces.format import IDS, Source, Trace, TracedFact
from memsvc.choosing import Scores, choose, follow, tally
from memsvc.geometry import BLOCK_TOKENS, visible_blocks_ends, window_start
from memsvc.graph import BookmarkGraph
from memsvc.scoring import make_scorer
from memsvc.session.deciding import Decider
from memsvc.session.links import Links
from memsvc.session.steps import TokenStep
from memsvc.session.vectors import TokenRows
from memsvc.shards.base import BlockHits, Int16Array, Int64Array
from memsvc.shards.index import StreamIndex
from memsvc.trail import BlockSearch, Trail
from memsvc.votes import TrailSettings
from protos.memsvc.v1 import memory_pb2, types_pb2

STREAM = "probe"
CENTRING_TOKENS = 4096
TRAIL_BLOCKS, TRAIL_DECAY, TRAIL_TOKENS = 16, 0.95, 128
# As the client asks unless told otherwise; and the 16 best alone.
ASK = memory_pb2.RecallRequest(top_blocks=8, neighbours=1, budget_blocks=24)
ASK_16 = memory_pb2.RecallRequest(top_blocks=16, neighbours=0, budget_blocks=16)
# A link is at least so similar, as the client has it unless told otherwise.
LINK_SIMILARITY_MIN = 0.4
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
    def of(
        cls, trace: Trace, layer: int, metric: "types_pb2.Metric.ValueType" = types_pb2.METRIC_COSINE
    ) -> "PreparedTrace":
        """Raises TraceError where the trace has no such layer."""
        scorer, count = make_scorer(metric), len(trace.arrays[IDS])
        frozen = scorer.freeze(trace.embeddings(layer, 0, min(trace.tokens, CENTRING_TOKENS)))
        tiles = [
            scorer.to_lattice(trace.embeddings(layer, first, min(count, first + _ROWS)), frozen)
            for first in range(0, count, _ROWS)
        ]
        return cls(trace, np.concatenate(tiles))


@dataclass(frozen=True)
class Found:
    """What one recall found of one fact: `sentences` says which came whole, `blocks` how many it recalled."""

    kind: str
    whole: bool
    rank_1: bool
    top_16: bool
    sentences: tuple[bool, ...] = ()
    blocks: int = 0


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


@dataclass(frozen=True)
class Bookmarked:
    """A trace with its bookmarks: their positions, ascending, an index, and a graph without links if none were wanted.

    Args:
        blocks: Block of each one.
    """

    prepared: PreparedTrace
    positions: Int64Array
    blocks: Int64Array
    index: StreamIndex
    graph: BookmarkGraph

    @classmethod
    def of(
        cls,
        prepared: PreparedTrace,
        policy: types_pb2.PolicySpec,
        links_max: int = 0,
        finder: "types_pb2.FinderKind.ValueType" = types_pb2.FINDER_KIND_FLAT,
    ) -> "Bookmarked":
        """Bookmarks the text as the policy says, each linked to at most `links_max` earlier ones.

        Raises:
            InvalidRequest: The policy's settings, or a signal that the trace lacks.
        """
        positions = bookmarks_of(prepared, policy)
        dims, rows = prepared.trace.source.dims, prepared.rows[positions]
        spec = types_pb2.SearchSpec(finder=finder, link_similarity_min=LINK_SIMILARITY_MIN, links_max=links_max)
        index, graph = StreamIndex(dims, spec), BookmarkGraph(max(1, links_max))
        if links_max:
            entry = Links({STREAM: index}, dims, spec).find(TokenRows(positions, {STREAM: rows}))
            nothing = np.zeros(len(positions), dtype=np.float32)
            graph.extend(positions, entry.parents, entry.weights, nothing, nothing > 0)
        else:
            index.add(rows)
        index.settle()
        return cls(prepared, positions, positions // BLOCK_TOKENS, index, graph)


def recall_of(prepared: PreparedTrace, policy: types_pb2.PolicySpec) -> Outcome:
    """Bookmark the text as the policy says, and ask for every fact.

    Raises:
        InvalidRequest: The policy's settings, or a signal that the trace lacks.
    """
    trace = prepared.trace
    own = Bookmarked.of(prepared, policy)
    candidates = _candidates(trace)
    text = own.positions[own.positions < trace.source.text_tokens]
    cold = min(COLD_TOKENS, trace.source.text_tokens)
    return Outcome(
        share=len(text) / trace.source.text_tokens,
        cold_share=np.count_nonzero(text < cold) / cold,
        reachable=float(np.isin(candidates, own.blocks).mean()) if len(candidates) else 0.0,
        found=tuple(found_of(own, ASK)),
    )


def bookmarks_of(prepared: PreparedTrace, policy: types_pb2.PolicySpec) -> Int64Array:
    """Positions that a session with this policy bookmarks, ascending, text and unrelated text."""
    trace = prepared.trace
    tokens = trace.tokens
    mark = types_pb2.Fingerprint(streams=[types_pb2.StreamSpec(name=STREAM, dims=trace.source.dims)])
    decider = Decider(types_pb2.SessionSpec(fingerprint=mark, policy=policy))
    ids = np.array(trace.arrays[IDS][:tokens], dtype=np.uint32)
    signals = trace.signals(0, tokens)
    decider.take(TokenStep(0, tokens, 0, ids, signals, (), {}, {}))
    settled = decider.settle(TokenRows(np.arange(tokens), {STREAM: prepared.rows[:tokens]}))
    return settled.decided.positions


def _candidates(trace: Trace) -> Int64Array:
    """Blocks between sinks and window when the question comes."""
    source = trace.source
    end = window_start(trace.tokens, source.sink_tokens, source.window_tokens) // BLOCK_TOKENS
    return np.arange(source.sink_tokens // BLOCK_TOKENS, end)


def trail_of(source: Source, blocks: int = TRAIL_BLOCKS, decay: float = TRAIL_DECAY) -> TrailSettings:
    """A trail as the client asks for it unless told otherwise."""
    return TrailSettings(blocks, decay, TRAIL_TOKENS, {STREAM: 1.0}, source.sink_tokens, source.window_tokens)


def found_of(own: Bookmarked, ask: memory_pb2.RecallRequest, settings: TrailSettings | None = None) -> list[Found]:
    """What a recall like this finds of each fact. Where it follows links, the bookmarks have to be linked."""
    trace = own.prepared.trace
    source, tokens, candidates = trace.source, trace.tokens, _candidates(trace)
    settings = settings or trail_of(source)
    first_block, total = source.sink_tokens // BLOCK_TOKENS, len(own.positions)

    def search(stream: str, queries: Int16Array, blocks_end: Int64Array, k: int) -> BlockHits:
        assert stream == STREAM
        return own.index.best_blocks(queries, blocks_end, own.blocks, total, k, first_block)

    before = Trail(settings)
    start = max(0, tokens - TRAIL_TOKENS)
    before.append(start, {STREAM: own.prepared.rows[start:tokens]})
    # Votes of what comes before the questions are the same for all: counted here, copied below.
    before.votes(tokens - 1, search)
    found: list[Found] = []
    for first in range(0, len(trace.facts), _QUESTIONS):
        facts = trace.facts[first : first + _QUESTIONS]
        for fact, known in zip(facts, _searched(own.prepared, facts, settings, search), strict=True):
            trail = before.copy()
            rows = slice(fact.question_first, fact.question_first + fact.question_tokens)
            trail.append(tokens, {STREAM: own.prepared.rows[rows]})
            votes = trail.votes(tokens + fact.question_tokens - 1, _answering(known))
            scores = tally(votes, tokens + fact.question_tokens - 1, candidates, settings)
            found.append(_found(fact, _recalled(own, scores, ask), _recalled(own, scores, ASK_16)))
    return found


def _recalled(own: Bookmarked, scores: Scores, ask: memory_pb2.RecallRequest) -> list[int]:
    """Blocks of one recall, as a session chooses them."""
    hops = follow(own.graph, scores, ask, LINK_SIMILARITY_MIN)
    return [block.block for block in choose(scores, ask, hops).blocks]


def _answering(known: BlockHits) -> BlockSearch:
    """A search that was made already."""

    def search(stream: str, queries: Int16Array, blocks_end: Int64Array, k: int) -> BlockHits:  # noqa: ARG001
        # Only the question has no votes yet, or as much of it as the trail is long.
        assert len(queries) <= len(known.found)
        newest = slice(len(known.found) - len(queries), None)
        return BlockHits(known.block[newest], known.dot[newest], known.bookmark[newest], known.found[newest])

    return search


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


def _found(fact: TracedFact, recalled: Sequence[int], best: Sequence[int]) -> Found:
    sentences = tuple(set(sentence) <= set(recalled) for sentence in fact.gold)
    gold = {block for sentence in fact.gold for block in sentence}
    return Found(
        kind=fact.kind,
        whole=all(sentences),
        rank_1=bool(recalled) and recalled[0] in gold,
        top_16=all(set(best) & set(sentence) for sentence in fact.gold),
        sentences=sentences,
        blocks=len(recalled),
    )
