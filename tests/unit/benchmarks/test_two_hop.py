"""The table of what links add: counts, difference and interval."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.recall_of_trace import ASK, Bookmarked, PreparedTrace, found_of
from benchmarks.traces.format import IDS, SURPRISAL, Source, Trace, TracedFact
from benchmarks.two_hop import Point, measure, table, with_hops
from memsvc.lattice import to_lattice
from protos.memsvc.v1 import types_pb2

DIMS = 32
TEXT, UNRELATED = 2048, 256
# Where A and B are named together, where B is named again, and whom the question names.
LODGER, HOME, QUESTION = 1000, 1500, TEXT + UNRELATED


def _trace() -> PreparedTrace:
    """Noise but for three passages: A and B, B alone, and a question that names A."""
    rows = np.random.default_rng(3).standard_normal((QUESTION + 4, DIMS)).astype(np.float32)
    a, b = np.random.default_rng(4).standard_normal((2, 4, DIMS)).astype(np.float32)
    rows[LODGER : LODGER + 4], rows[LODGER + 4 : LODGER + 8] = a, b
    rows[HOME : HOME + 4], rows[QUESTION : QUESTION + 4] = b, a
    source = Source(
        model="",
        tokenizer="",
        layers=(0,),
        dims=DIMS,
        text_tokens=TEXT,
        unrelated_tokens=UNRELATED,
        sink_tokens=64,
        window_tokens=512,
        chunk_tokens=256,
        salience_vocabulary=0,
        seeds=(0,),
        label="",
        device="",
    )
    gold = ((LODGER // 64,), (HOME // 64,))
    fact = TracedFact("two-hop", ("A is B's lodger.", "B lives in D."), "A lives in", "D", gold, QUESTION, 4)
    arrays = {IDS: np.zeros(len(rows), dtype=np.uint32), SURPRISAL: np.zeros(len(rows), dtype=np.float32)}
    trace = Trace(Path("nowhere"), source, (fact,), arrays)
    return PreparedTrace(trace, to_lattice(rows, np.zeros(DIMS)))


def test_links_bring_the_second_sentence_within_the_same_budget() -> None:
    """Proves on a made-up trace that the fact is whole with hops and not without, in one budget."""
    prepared = _trace()
    (point,) = measure([prepared], "every", 4, [8])
    assert (point.facts, point.off, point.on) == (1, 0, 1)
    assert (point.first_off, point.first_on, point.last_off, point.last_on) == (1, 1, 0, 1)
    # Neighbours of hits that stand side by side are fewer.
    assert max(point.blocks_off, point.blocks_on) <= ASK.budget_blocks
    assert point.points == 100.0
    assert with_hops(8).budget_blocks == ASK.budget_blocks


def test_a_trace_is_linked_only_where_that_is_asked_for() -> None:
    """Proves that the graph has links of earlier bookmarks if so many are wanted, and that the rest is the same."""
    every = types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_EVERY)
    prepared = _trace()
    plain, linked = Bookmarked.of(prepared, every), Bookmarked.of(prepared, every, 4)
    assert (len(plain.graph), len(linked.graph)) == (0, len(linked.positions))
    assert linked.graph.link_count() > 0
    assert found_of(plain, ASK) == found_of(linked, ASK)


def test_the_interval_of_a_difference_holds_it() -> None:
    """Proves that it lies around the difference, and shrinks with more facts."""
    few, many = (Point("two-hop", "every", 16, 8, n, n // 20, n // 4, 0, 0, 0, 0, 24.0, 24.0) for n in (20, 2000))
    for own in (few, many):
        low, high = own.interval
        assert low < own.points < high
    assert few.points == pytest.approx(many.points) == pytest.approx(20.0)
    assert many.interval[0] > few.interval[0]
    assert table([few, many]).splitlines()[1].split()[:5] == ["two-hop", "every", "16", "8", "20"]
