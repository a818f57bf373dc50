"""Multi-hop recall by hand, and against the formula worked out over plain lists."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.geometry import BLOCK_TOKENS
from memsvc.graph import BookmarkGraph
from memsvc.hops import PASSAGE_TOKENS, PASSAGES_MAX, Hit, Hop, HopLink, HopSettings, hop_from

LINKS_MAX = 3
# A link's least weight, and what a bookmark with fewer than LINKS_MAX links takes off.
LEAST = 0.25
# Bookmarks as (position, links as (parent, weight), strongest first).
Listed = Sequence[tuple[int, Sequence[tuple[int, float]]]]

# Block 1 names A (0) and B (1, 2); block 5 is about B (3, 4), and block 9 about somebody of B's first name (5).
# Bookmark 5 came last and found both, the others less.
LODGER: Listed = [
    (70, []),
    (72, []),
    (73, [(1, 0.5)]),
    (330, [(1, 0.75)]),
    (331, [(2, 0.75)]),
    (600, [(3, 1.0), (1, 0.75), (4, 0.5)]),
]
EVERYWHERE = np.arange(100)


def _graph(listed: Listed) -> BookmarkGraph:
    graph, count = BookmarkGraph(LINKS_MAX), len(listed)
    parents = np.full((count, LINKS_MAX), -1)
    weights = np.zeros((count, LINKS_MAX), dtype=np.float32)
    for row, (_, own) in enumerate(listed):
        for column, (parent, weight) in enumerate(own):
            parents[row, column], weights[row, column] = parent, weight
    positions = np.array([position for position, _ in listed], dtype=np.int64)
    graph.extend(positions, parents, weights, np.zeros(count, dtype=np.float32), np.zeros(count, dtype=np.bool_))
    return graph


def _hit(listed: Listed, bookmark: int, score: float, *also: int) -> Hit:
    """A hit by a vote for a bookmark, and for others of its block."""
    block = listed[bookmark][0] // BLOCK_TOKENS
    return Hit(block, bookmark, score, np.array([bookmark, *also], dtype=np.int64), (), block)


def test_a_hop_goes_on_from_what_the_question_did_not_name() -> None:
    """Proves by hand: both of B's bookmarks lead to the block about B, which outdoes the one that shares a name."""
    how = HopSettings(hops=1, blocks=8, similarity_min=LEAST)
    hops = hop_from(_graph(LODGER), [_hit(LODGER, 0, 4.0)], EVERYWHERE, frozenset(), how)
    # Worth: 3 to 1 and 4 to 2 have 0.75 above 0.25, as their lists are not full; 5 to 1 has 0.75 above its weakest.
    assert hops == (
        Hop(5, 4, 4.0, (2, 4), 1, (HopLink(2, 4, 0.75, 0.5), HopLink(1, 3, 0.75, 0.5))),
        Hop(9, 5, 1.0, (1, 5), 1, (HopLink(1, 5, 0.75, 0.25),)),
    )
    assert hop_from(_graph(LODGER), [_hit(LODGER, 0, 4.0, 1, 2)], EVERYWHERE, frozenset(), how) == ()


def test_only_wanted_candidates_below_the_cut_come_out() -> None:
    """Proves by hand: kept blocks, blocks that are no candidates and bookmarks past the cut do not, nor too many."""
    graph, hits = _graph(LODGER), [_hit(LODGER, 0, 4.0)]
    how = HopSettings(hops=1, blocks=8, similarity_min=LEAST)
    # What is kept still is what others are measured by.
    kept = hop_from(graph, hits, EVERYWHERE, frozenset({5}), how)
    assert [(hop.block, hop.score) for hop in kept] == [(9, 1.0)]
    others = hop_from(graph, hits, np.array([1, 3, 9, 10]), frozenset(), how)
    assert [(hop.block, hop.score) for hop in others] == [(9, 4.0)]
    assert hop_from(graph, hits, np.empty(0, dtype=np.int64), frozenset(), how) == ()
    cut = hop_from(graph, hits, EVERYWHERE, frozenset(), how, total=4)
    assert [(hop.block, hop.path) for hop in cut] == [(5, (1, 3))]
    one = hop_from(graph, hits, EVERYWHERE, frozenset(), HopSettings(1, 1, LEAST))
    assert [hop.block for hop in one] == [5]


def test_a_second_hop_goes_on_from_the_first_at_half_the_score() -> None:
    """Proves by hand: from a block that was reached, on from the bookmarks around the one that links met."""
    # 0 beside 1; 1 to 2; 2 beside 3; 3 to 4.
    listed: Listed = [(64, []), (65, []), (640, [(1, 0.75)]), (641, []), (1280, [(3, 0.75)])]
    hits = [_hit(listed, 0, 4.0)]
    near = hop_from(_graph(listed), hits, EVERYWHERE, frozenset(), HopSettings(1, 8, LEAST))
    assert [(hop.block, hop.score, hop.path, hop.origin) for hop in near] == [(10, 4.0, (1, 2), 1)]
    far = hop_from(_graph(listed), hits, EVERYWHERE, frozenset(), HopSettings(2, 8, LEAST))
    assert [(hop.block, hop.score, hop.path, hop.origin) for hop in far] == [
        (10, 4.0, (1, 2), 1),
        (20, 2.0, (1, 2, 3, 4), 1),
    ]
    # A path may pass through what is not wanted only if that was reached as wanted.
    assert hop_from(_graph(listed), hits, EVERYWHERE, frozenset({10}), HopSettings(16, 8, LEAST)) == ()


def test_old_links_can_count_less() -> None:
    """Proves by hand: with a half-life of 64 tokens a link made 64 tokens before the newest counts half."""
    listed: Listed = [(64, []), (65, []), (66, []), (640, [(1, 0.75)]), (704, [(2, 0.75)])]
    hits = [_hit(listed, 0, 4.0)]
    even = hop_from(_graph(listed), hits, EVERYWHERE, frozenset(), HopSettings(1, 8, LEAST))
    assert [(hop.block, hop.score) for hop in even] == [(11, 4.0), (10, 4.0)]
    faded = hop_from(_graph(listed), hits, EVERYWHERE, frozenset(), HopSettings(1, 8, LEAST, half_life_tokens=64))
    assert [(hop.block, hop.score, hop.links[0].worth) for hop in faded] == [(11, 4.0, 0.5), (10, 2.0, 0.25)]


def test_without_hits_or_links_there_is_nowhere_to_go() -> None:
    """Proves that no hits, and a passage that nothing links to, give no blocks."""
    how = HopSettings(hops=3, blocks=8)
    assert hop_from(_graph(LODGER), [], EVERYWHERE, frozenset(), how) == ()
    alone: Listed = [(64, []), (640, [])]
    assert hop_from(_graph(alone), [_hit(alone, 0, 1.0)], EVERYWHERE, frozenset(), how) == ()


@st.composite
def graphs(draw: st.DrawFn) -> Listed:
    """Up to 14 bookmarks in few blocks, with links to earlier ones; weights are eighths, so that sums are exact."""
    position, listed = 0, []
    for at in range(draw(st.integers(1, 14))):
        position += draw(st.integers(1, 70))
        parents = draw(st.lists(st.integers(0, at - 1), unique=True, max_size=LINKS_MAX)) if at else []
        weights = sorted((draw(st.integers(2, 8)) / 8 for _ in parents), reverse=True)
        listed.append((position, list(zip(parents, weights, strict=True))))
    return listed


def _slowly(listed: Listed, hits: Sequence[Hit], candidates: set[int], kept: frozenset[int]) -> dict[int, float]:
    """Scores of the blocks one hop away."""
    edges: dict[tuple[int, int], float] = {}
    for child, (_, own) in enumerate(listed):
        weakest = own[-1][1] if len(own) == LINKS_MAX else LEAST
        for parent, weight in own:
            edges[child, parent] = edges[parent, child] = weight - weakest
    scores: dict[int, float] = {}
    for hit in hits[:PASSAGES_MAX]:
        sums: dict[int, float] = {}
        for start, (position, _) in enumerate(listed):
            if abs(position - listed[hit.bookmark][0]) > PASSAGE_TOKENS or start in hit.matched:
                continue
            best: dict[int, float] = {}
            for (source, target), worth in edges.items():
                block = listed[target][0] // BLOCK_TOKENS
                if source == start and block != hit.block and block in candidates and worth > 0:
                    best[block] = max(best.get(block, 0.0), worth)
            for block, worth in best.items():
                sums[block] = sums.get(block, 0.0) + worth
        for block, total in sums.items():
            score = hit.score * hit.score / hits[0].score * total / max(sums.values())
            scores[block] = max(scores.get(block, 0.0), score)
    return {block: score for block, score in scores.items() if block not in kept}


@settings(deadline=None)
@given(listed=graphs(), data=st.data())
def test_a_hop_equals_the_formula(listed: Listed, data: st.DataObject) -> None:
    """Proves for any graph, hits and candidates: which blocks, their scores, and that paths end on links."""
    bookmarks = data.draw(st.lists(st.integers(0, len(listed) - 1), min_size=1, max_size=4, unique=True))
    scores = sorted((data.draw(st.sampled_from([1.0, 2.0, 4.0])) for _ in bookmarks), reverse=True)
    hits = [_hit(listed, bookmark, score) for bookmark, score in zip(bookmarks, scores, strict=True)]
    candidates = data.draw(st.sets(st.integers(0, 16)))
    kept = frozenset(data.draw(st.sets(st.integers(0, 16), max_size=3)))
    ascending = np.array(sorted(candidates), dtype=np.int64)
    found = hop_from(_graph(listed), hits, ascending, kept, HopSettings(1, 100, LEAST))
    assert {hop.block: hop.score for hop in found} == pytest.approx(_slowly(listed, hits, candidates, kept))
    assert [(hop.score, hop.block) for hop in found] == sorted(((hop.score, hop.block) for hop in found), reverse=True)
    pairs = {frozenset((child, parent)) for child, (_, own) in enumerate(listed) for parent, _ in own}
    for hop in found:
        assert frozenset(hop.path) in pairs
        assert {frozenset((link.source, link.target)) for link in hop.links} <= pairs
        assert listed[hop.bookmark][0] // BLOCK_TOKENS == hop.block
        assert hop.score <= hits[0].score
