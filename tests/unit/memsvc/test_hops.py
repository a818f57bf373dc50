"""Multi-hop recall by hand, and against a plain walk over paths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.errors import BookmarkNotFound, InvalidRequest
from memsvc.geometry import BLOCK_TOKENS
from memsvc.graph import BookmarkGraph
from memsvc.hops import HopSettings, hop_from

LINKS_MAX = 3


def _graph(links: list[list[tuple[int, float]]], positions: list[int] | None = None) -> BookmarkGraph:
    """One bookmark a block, unless positions are given; links as (parent, weight), strongest first."""
    graph = BookmarkGraph(LINKS_MAX)
    parents = np.full((len(links), LINKS_MAX), -1)
    weights = np.zeros((len(links), LINKS_MAX), dtype=np.float32)
    for row, own in enumerate(links):
        for column, (parent, weight) in enumerate(own):
            parents[row, column], weights[row, column] = parent, weight
    count = len(links)
    at = np.array(positions if positions is not None else [BLOCK_TOKENS * row for row in range(count)], dtype=np.int64)
    graph.extend(at, parents, weights, np.zeros(count, dtype=np.float32), np.zeros(count, dtype=np.bool_))
    return graph


# 1 and 2 continue 0, 3 continues 2 and 1; 4 stands alone.
FAMILY: list[list[tuple[int, float]]] = [[], [(0, 0.5)], [(0, 0.75)], [(2, 0.5), (1, 0.25)], []]


def test_links_lead_to_parents_and_children() -> None:
    """Proves by hand: one hop from the middle goes both ways, a score is the hit's times weight times what is kept."""
    hops = hop_from(_graph(FAMILY), {2: 4.0}, HopSettings(hops=1, blocks=8, keep=0.5))
    assert [(hop.bookmark, hop.score, hop.path) for hop in hops] == [(0, 1.5, (2, 0)), (3, 1.0, (2, 3))]


def test_a_second_hop_goes_on_from_the_first() -> None:
    """Proves by hand: two hops reach 1 by the better of two paths, and the block budget keeps the best."""
    settings_ = HopSettings(hops=2, blocks=8, keep=1.0)
    hops = hop_from(_graph(FAMILY), {2: 4.0}, settings_)
    assert [(hop.bookmark, hop.score, hop.path) for hop in hops] == [
        (0, 3.0, (2, 0)),
        (3, 2.0, (2, 3)),
        (1, 1.5, (2, 0, 1)),
    ]
    assert hop_from(_graph(FAMILY), {2: 4.0}, HopSettings(hops=2, blocks=1, keep=1.0)) == hops[:1]


def test_blocks_of_hits_are_not_hops() -> None:
    """Proves that bookmarks of a block that was hit are passed through, not returned, and that a block comes once."""
    graph = _graph([[], [(0, 0.5)], [(1, 0.5)], [(1, 0.25)]], positions=[0, 1, 64, 65])
    (hop,) = hop_from(graph, {0: 1.0}, HopSettings(hops=2, blocks=8, keep=1.0))
    assert (hop.block, hop.bookmark, hop.score, hop.path) == (1, 2, 0.25, (0, 1, 2))


def test_weak_and_old_links_can_be_left_out() -> None:
    """Proves by hand: a least weight, and one that halves with age: the link of 3 is new, that of 2 a block old."""
    graph = _graph(FAMILY[:4])
    assert [hop.bookmark for hop in hop_from(graph, {2: 1.0}, HopSettings(weight_min=0.6))] == [0]
    faded = hop_from(graph, {2: 1.0}, HopSettings(keep=1.0, half_life_tokens=BLOCK_TOKENS))
    assert [(hop.bookmark, hop.score) for hop in faded] == [(3, 0.5), (0, 0.375)]


def test_nothing_leads_nowhere() -> None:
    """Proves that no hits, hits without a score, hops of 0, and a bookmark that stands alone give no blocks."""
    graph = _graph(FAMILY)
    for hits, how in (
        ({}, HopSettings()),
        ({2: 0.0}, HopSettings()),
        ({2: 1.0}, HopSettings(hops=0)),
        ({4: 1.0}, HopSettings()),
    ):
        assert hop_from(graph, hits, how) == ()
    with pytest.raises(BookmarkNotFound, match="expected a bookmark index from 0 to 2, got 3"):
        hop_from(graph, {3: 1.0}, HopSettings(), total=3)


@pytest.mark.parametrize("field", ["hops", "blocks", "keep", "weight_min", "half_life_tokens"])
def test_a_hop_setting_out_of_range_is_refused_by_name(field: str) -> None:
    """Proves that the error names the field."""
    with pytest.raises(InvalidRequest, match=rf"^expected hops.{field} to be .*, got -1"):
        HopSettings(**{field: -1})


@st.composite
def graphs(draw: st.DrawFn) -> list[list[tuple[int, float]]]:
    """Links of up to 12 bookmarks to earlier ones; weights are eighths, so that products are exact."""
    links: list[list[tuple[int, float]]] = []
    for at in range(draw(st.integers(1, 12))):
        parents = draw(st.lists(st.integers(0, at - 1), unique=True, max_size=LINKS_MAX)) if at else []
        weights = sorted((draw(st.integers(-8, 8)) / 8 for _ in parents), reverse=True)
        links.append(list(zip(parents, weights, strict=True)))
    return links


def _slowly(links: list[list[tuple[int, float]]], hits: dict[int, float], how: HopSettings) -> dict[int, float]:
    """Worth of every bookmark reached, hop by hop over plain lists."""
    edges: dict[int, list[tuple[int, float]]] = {at: [] for at in range(len(links))}
    for child, own in enumerate(links):
        for parent, weight in own:
            if weight > 0 and weight >= how.weight_min:
                edges[child].append((parent, weight))
                edges[parent].append((child, weight))
    worth = dict(hits)
    frontier = [hit for hit, score in hits.items() if score > 0]
    for _ in range(how.hops):
        reached: dict[int, float] = {}
        for source in frontier:
            for target, weight in edges[source]:
                if target not in worth:
                    reached[target] = max(reached.get(target, 0.0), worth[source] * weight * how.keep)
        worth |= reached
        frontier = list(reached)
    return {at: score for at, score in worth.items() if at not in hits}


@settings(deadline=None)
@given(links=graphs(), hops=st.integers(0, 4), least=st.sampled_from([0.0, 0.5]), data=st.data())
def test_hops_equal_a_plain_walk_over_paths(
    links: list[list[tuple[int, float]]], hops: int, least: float, data: st.DataObject
) -> None:
    """Proves for any graph: which bookmarks are reached, what they are worth, and that each path is made of links."""
    hits = data.draw(st.dictionaries(st.integers(0, len(links) - 1), st.sampled_from([0.0, 1.0, 2.0]), max_size=3))
    how = HopSettings(hops=hops, blocks=100, keep=0.5, weight_min=least)
    found = hop_from(_graph(links), hits, how)
    assert {hop.bookmark: hop.score for hop in found} == _slowly(links, hits, how)
    assert [hop.score for hop in found] == sorted((hop.score for hop in found), reverse=True)
    pairs = {frozenset((child, parent)) for child, own in enumerate(links) for parent, _ in own}
    for hop in found:
        assert hop.path[0] in hits
        assert hop.path[-1] == hop.bookmark
        assert len(hop.path) <= hops + 1
        assert {frozenset(step) for step in zip(hop.path, hop.path[1:], strict=False)} <= pairs
