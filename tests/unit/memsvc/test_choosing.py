"""What a recall takes: hits, hops and neighbours within one budget."""

import numpy as np
import pytest

from memsvc.choosing import Scores, choose, follow, hits_kept, tally
from memsvc.graph import BookmarkGraph
from memsvc.hops import Hop, HopLink
from memsvc.votes import TrailSettings, Votes
from protos.memsvc.v1 import memory_pb2

SETTINGS = TrailSettings(blocks=16, decay=1.0, tokens=8, weights={"probe": 1.0}, sink_tokens=0, window_tokens=64)
HITS = (50, 40, 30, 20)


def _scores(blocks: tuple[int, ...] = HITS) -> Scores:
    """Blocks with falling scores, voted for by one token; bookmark n of the n-th; candidates are blocks 0 to 99."""
    falling = np.arange(len(blocks), 0, -1).astype(np.float64)
    bookmarks = np.arange(len(blocks))
    same = np.zeros(len(blocks), dtype=np.int64)
    votes = Votes(same + 9, same, np.array(blocks, dtype=np.int64), bookmarks, falling, np.zeros(len(blocks)))
    return tally(votes, 9, np.arange(100), SETTINGS)


def _ask(top: int, neighbours: int, budget: int, hops: int = 0) -> memory_pb2.RecallRequest:
    ask = memory_pb2.RecallRequest(top_blocks=top, neighbours=neighbours, budget_blocks=budget)
    if hops:
        ask.hops.CopyFrom(memory_pb2.HopRequest(hops=1, blocks=hops))
    return ask


def _hop(block: int, score: float = 2.5) -> Hop:
    return Hop(block, 200 + block, score, (0, 200 + block), 50, (HopLink(0, 200 + block, 0.75, 0.5),))


def _blocks(scores: Scores, ask: memory_pb2.RecallRequest, *hops: Hop) -> list[tuple[int, str]]:
    names = {
        memory_pb2.REACHED_TRAIL: "trail",
        memory_pb2.REACHED_HOP: "hop",
        memory_pb2.REACHED_NEIGHBOUR: "beside",
        memory_pb2.REACHED_FILL: "fill",
    }
    return [(block.block, names[block.reached]) for block in choose(scores, ask, hops).blocks]


def test_hops_take_the_places_of_neighbours_and_then_of_the_weaker_half() -> None:
    """Proves by hand: neighbours give way, then hits one for one, at most half of them, and never the budget."""
    scores = _scores()
    trail = [(block, "trail") for block in HITS]
    four = [_hop(block) for block in (70, 75, 80, 85)]
    hops = [(hop.block, "hop") for hop in four]
    beside = [(block + offset, "beside") for block in HITS for offset in (-1, 1)]
    assert _blocks(scores, _ask(4, 1, 8)) == trail + beside[:4]
    assert _blocks(scores, _ask(4, 1, 8, hops=4), *four) == trail + hops
    assert _blocks(scores, _ask(4, 1, 6, hops=4), *four) == trail[:2] + hops
    assert _blocks(scores, _ask(4, 1, 4, hops=4), *four) == trail[:2] + hops[:2]
    # What links do not use goes back to hits, and to neighbours.
    assert _blocks(scores, _ask(4, 1, 4, hops=4), four[0]) == [*trail[:3], hops[0]]
    turns = [beside[0], beside[1], (69, "beside")]
    assert _blocks(scores, _ask(4, 1, 8, hops=4), four[0]) == [*trail, hops[0], *turns]


def test_a_weaker_hit_that_links_lead_to_is_a_hop_and_costs_no_other_place() -> None:
    """Proves by hand: it comes once, with the better of its two scores."""
    result = choose(_scores(), _ask(4, 0, 4, hops=4), (_hop(30, score=3.5), _hop(20, score=0.5)))
    assert [(block.block, block.score) for block in result.blocks] == [(50, 4.0), (40, 3.0), (30, 3.5), (20, 1.0)]
    assert [block.reached for block in result.blocks[2:]] == [memory_pb2.REACHED_HOP] * 2


def test_neighbours_come_beside_hits_and_hops_in_turns() -> None:
    """Proves by hand: who brought each along, and that a hop says what it began at and which way it went."""
    result = choose(_scores((50,)), _ask(1, 1, 6, hops=1), (_hop(70),))
    assert [(block.block, block.via_block) for block in result.blocks] == [
        (50, 50),
        (70, 50),
        (49, 50),
        (51, 50),
        (69, 70),
        (71, 70),
    ]
    hop = result.blocks[1]
    assert (list(hop.path), hop.bookmark) == ([0, 270], 270)
    assert hop.z == pytest.approx((hop.score - result.mean) / result.std)


def test_an_explanation_names_the_links_of_a_hop() -> None:
    """Proves that links stand beside the votes of a hop's block, and beside no other's."""
    result = choose(_scores(), _ask(4, 0, 4, hops=1), (_hop(70),))
    explained = [result.explain(block) for block in result.blocks]
    assert [len(own.votes) for own in explained] == [1, 1, 1, 0]
    assert [len(own.links) for own in explained] == [0, 0, 0, 1]
    link = explained[-1].links[0]
    assert (link.source, link.target, link.weight, link.worth) == (0, 270, 0.75, 0.5)


@pytest.mark.parametrize(
    ("top", "budget", "hops", "kept"), [(8, 24, 0, 8), (8, 24, 8, 8), (8, 12, 6, 6), (8, 8, 8, 4), (9, 5, 9, 3)]
)
def test_the_better_half_of_the_hits_stays(top: int, budget: int, hops: int, kept: int) -> None:
    """Proves by hand: all of them without hops or with room for both, else what leaves room, but half of them."""
    assert hits_kept(_ask(top, 0, budget, hops)) == kept


def test_links_are_followed_only_where_that_is_asked_for() -> None:
    """Proves that the same hits lead somewhere with hops and nowhere without, and never to a hit that stays."""
    graph = BookmarkGraph(1)
    # Bookmarks 0 and 1 in block 50, linked to from blocks 60 and 70; 0 is what the vote met.
    positions = np.array([3200, 3201, 3840, 4480], dtype=np.int64)
    parents = np.array([[-1], [-1], [1], [1]])
    weights = np.array([[0], [0], [0.5], [0.75]], dtype=np.float32)
    graph.extend(positions, parents, weights, np.zeros(4, dtype=np.float32), np.zeros(4, dtype=np.bool_))
    scores = _scores((50, 60))
    assert follow(graph, scores, _ask(2, 0, 2), 0.25) == ()
    led = follow(graph, scores, _ask(2, 0, 2, hops=2), 0.25)
    assert [(hop.block, hop.score) for hop in led] == [(70, 2.0), (60, 1.0)]
    assert [hop.block for hop in follow(graph, scores, _ask(2, 0, 2, hops=2), 0.25, total=3)] == [60]
    # Of four hits the better two stay, block 60 among them.
    assert [hop.block for hop in follow(graph, scores, _ask(4, 0, 4, hops=2), 0.25)] == [70]
