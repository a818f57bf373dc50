"""The graph of bookmarks: what was added is read back, at any cut, and walked both ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.errors import BookmarkNotFound
from memsvc.geometry import BLOCK_TOKENS
from memsvc.graph import Bookmark, BookmarkGraph, Link, faded

LINKS_MAX = 3


@dataclass(frozen=True)
class Added:
    """One bookmark as it goes in; links as (parent, weight)."""

    position: int
    links: list[tuple[int, float]]
    signal: float
    forced: bool


@st.composite
def bookmark_lists(draw: st.DrawFn, count_max: int = 25) -> list[Added]:
    """Bookmarks of ascending positions, each with up to LINKS_MAX links to earlier ones, strongest first."""
    floats = st.floats(-1, 1, width=32)
    added: list[Added] = []
    position = -1
    for at in range(draw(st.integers(0, count_max))):
        position += draw(st.integers(1, 100))
        parents = draw(st.lists(st.integers(0, at - 1), unique=True, max_size=LINKS_MAX)) if at else []
        weights = sorted(draw(st.lists(floats, min_size=len(parents), max_size=len(parents))), reverse=True)
        added.append(Added(position, list(zip(parents, weights, strict=True)), draw(floats), draw(st.booleans())))
    return added


def _extend(graph: BookmarkGraph, added: Sequence[Added]) -> list[int]:
    parents = np.full((len(added), LINKS_MAX), -1)
    # Weights beside a missing parent mean nothing: noise stands there.
    weights = np.full((len(added), LINKS_MAX), 0.75, dtype=np.float32)
    for row, one in enumerate(added):
        for column, (parent, weight) in enumerate(one.links):
            parents[row, column], weights[row, column] = parent, weight
    return graph.extend(
        np.array([one.position for one in added], dtype=np.int64),
        parents,
        weights,
        np.array([one.signal for one in added], dtype=np.float32),
        np.array([one.forced for one in added], dtype=np.bool_),
    ).tolist()


def _graph(added: list[Added], cuts: Sequence[int] = ()) -> BookmarkGraph:
    graph = BookmarkGraph(LINKS_MAX)
    bounds = sorted({0, *(min(cut, len(added)) for cut in cuts), len(added)})
    for start, end in pairwise(bounds):
        _extend(graph, added[start:end])
    return graph


def _by_hand(added: list[Added]) -> list[Bookmark]:
    found: list[Bookmark] = []
    chains = 0
    for index, one in enumerate(added):
        chain = found[one.links[0][0]].chain if one.links else chains
        chains = max(chains, chain + 1)
        links = tuple(Link(parent, weight) for parent, weight in one.links)
        found.append(Bookmark(index, one.position, one.position // BLOCK_TOKENS, chain, links, one.signal, one.forced))
    return found


def _children(added: list[Added], index: int) -> list[int]:
    return [at for at, one in enumerate(added) if index in [parent for parent, _ in one.links]]


def _expanded(added: list[Added], seeds: list[int], hops: int, limit: int) -> list[int]:
    found = list(dict.fromkeys(seeds))[:limit]
    frontier = found
    for _ in range(hops):
        reached = {other for at in frontier for other in [*_children(added, at), *(p for p, _ in added[at].links)]}
        frontier = sorted(reached - set(found), reverse=True)[: limit - len(found)]
        found = found + frontier
    return found


# 0 <- 1 <- 3 and 0 <- 2 <- 4, with 4 linked to 3 as well; 5 stands alone.
DIAMOND = [
    Added(10, [], 1.0, False),
    Added(70, [(0, 0.5)], 2.0, False),
    Added(80, [(0, 0.25)], 3.0, True),
    Added(200, [(1, 0.5)], 4.0, False),
    Added(201, [(2, 0.75), (3, 0.5)], 5.0, False),
    Added(500, [], 6.0, True),
]


def test_a_bookmark_reads_as_it_was_added() -> None:
    """Proves by hand: position, block, chain, links strongest first, signal and forced of one bookmark."""
    graph = _graph(DIAMOND)
    assert graph.bookmark(4) == Bookmark(4, 201, 3, 0, (Link(2, 0.75), Link(3, 0.5)), 5.0, False)
    assert graph.bookmark(5) == Bookmark(5, 500, 7, 1, (), 6.0, True)
    assert (len(graph), graph.link_count(), graph.chains.count()) == (6, 5, 2)


def test_expanding_goes_both_ways_newest_first() -> None:
    """Proves by hand: seeds as given, once each, then parents and children of each hop, newest first, to the limit."""
    graph = _graph(DIAMOND)
    assert graph.expand([3], hops=1, limit=10) == [3, 4, 1]
    assert graph.expand([3], hops=2, limit=10) == [3, 4, 1, 2, 0]
    assert graph.expand([3], hops=9, limit=4) == [3, 4, 1, 2]
    assert graph.expand([5, 0, 5], hops=1, limit=10) == [5, 0, 2, 1]
    assert graph.expand([3], hops=2, limit=10, total=4) == [3, 1, 0]
    assert graph.expand([3, 1], hops=0, limit=10) == [3, 1]
    assert graph.expand([3, 1], hops=5, limit=1) == [3]
    assert graph.expand([], hops=5, limit=10) == []


def test_chains_cross_where_parents_lie_in_several() -> None:
    """Proves by hand: only a bookmark with parents in two chains is a crossing, and only within the cut."""
    two = [Added(1, [], 0, False), Added(2, [], 0, False), Added(3, [(1, 0.5)], 0, False)]
    crossing = [*two, Added(4, [(2, 0.5), (1, 0.25)], 0, False), Added(5, [(2, 0.5), (0, 0.25)], 0, False)]
    assert _graph(crossing).crossings().tolist() == [4]
    assert _graph(crossing).crossings(4).tolist() == []
    assert _graph([]).crossings().tolist() == []
    assert BookmarkGraph(1).crossings().tolist() == []


def test_weights_fade_by_half_lives_only_when_read() -> None:
    """Proves by hand: halved with each half life, unchanged without one, and never in the graph itself."""
    graph = _graph(DIAMOND)
    parents, weights = graph.links()
    assert parents[4].tolist() == [2, 3, -1]
    assert faded(weights[4], np.array([0, 200, 100]), 100)[:2].tolist() == [0.75, 0.125]
    assert faded(weights[4], np.array([0, 200, 100]), 0).tolist() == weights[4].tolist()
    assert graph.bookmark(4).links == (Link(2, 0.75), Link(3, 0.5))


@settings(deadline=None)
@given(added=bookmark_lists(), data=st.data())
def test_crossings_equal_the_plain_model(added: list[Added], data: st.DataObject) -> None:
    """Proves for any graph and cut: crossings are the bookmarks whose parents' chains differ."""
    total = data.draw(st.integers(0, len(added)), label="total")
    model = _by_hand(added)[:total]
    crossing = [one.index for one in model if len({model[link.parent].chain for link in one.links}) > 1]
    assert _graph(added).crossings(total).tolist() == crossing


@settings(deadline=None)
@given(added=bookmark_lists(), cuts=st.lists(st.integers(0, 25)), data=st.data())
def test_any_cut_of_any_split_equals_the_plain_model(added: list[Added], cuts: list[int], data: st.DataObject) -> None:
    """Proves that however bookmarks were batched, every read at a cut is that of a graph with the first ones alone."""
    graph = _graph(added, cuts)
    total = data.draw(st.integers(0, len(added)), label="total")
    first = added[:total]
    model = _by_hand(added)[:total]
    assert graph.bookmarks(range(total), total) == model
    assert graph.positions(total).tolist() == [one.position for one in first]
    assert graph.blocks(total).tolist() == [one.block for one in model]
    assert graph.link_count(total) == sum(len(one.links) for one in first)
    assert [graph.children(index, total) for index in range(total)] == [_children(first, at) for at in range(total)]


@settings(deadline=None)
@given(added=bookmark_lists(), hops=st.integers(0, 4), limit=st.integers(0, 12), data=st.data())
def test_expanding_equals_the_plain_model(added: list[Added], hops: int, limit: int, data: st.DataObject) -> None:
    """Proves that any seeds, hops and limit, at any cut, reach what a walk over plain lists reaches, in its order."""
    total = data.draw(st.integers(0, len(added)), label="total")
    indices = st.lists(st.integers(0, total - 1), max_size=5) if total else st.just([])
    seeds = data.draw(indices, label="seeds")
    assert _graph(added).expand(seeds, hops, limit, total) == _expanded(added[:total], seeds, hops, limit)


@settings(deadline=None)
@given(added=bookmark_lists(), first_block=st.integers(0, 30), blocks=st.integers(0, 10))
def test_block_bounds_hold_the_bookmarks_of_each_block(added: list[Added], first_block: int, blocks: int) -> None:
    """Proves that bounds cut the bookmarks by block, empty blocks and those past the end included."""
    bounds = _graph(added).block_bounds(first_block, first_block + blocks).tolist()
    assert len(bounds) == blocks + 1
    for at, (start, end) in enumerate(pairwise(bounds)):
        expected = [i for i, one in enumerate(added) if one.position // BLOCK_TOKENS == first_block + at]
        assert list(range(start, end)) == expected


@pytest.mark.parametrize(("index", "total"), [(6, None), (-1, None), (4, 4), (0, 0)])
def test_an_index_past_the_cut_is_not_found(index: int, total: int | None) -> None:
    """Proves that every read of one bookmark refuses what is not there, or not there yet, and names the range."""
    graph = _graph(DIAMOND)
    end = 6 if total is None else total
    reads = [
        lambda: graph.bookmark(index, total),
        lambda: graph.bookmarks([index], total),
        lambda: graph.children(index, total),
        lambda: graph.expand([index], 1, 10, total),
    ]
    for read in reads:
        with pytest.raises(BookmarkNotFound, match=f"from 0 to {end - 1}, got {index}"):
            read()


def test_arrays_that_were_read_stay_while_the_graph_grows() -> None:
    """Proves that positions and blocks taken before an extension are unchanged after it, and cannot be written."""
    graph = _graph(DIAMOND[:4])
    positions, blocks = graph.positions(), graph.blocks()
    _extend(graph, DIAMOND[4:])
    assert (positions.tolist(), blocks.tolist()) == ([10, 70, 80, 200], [0, 1, 1, 3])
    assert not positions.flags.writeable
    assert not blocks.flags.writeable


def test_extending_returns_the_chains() -> None:
    """Proves that the chains of new bookmarks come back, and that none is an answer to none."""
    graph = BookmarkGraph(LINKS_MAX)
    assert _extend(graph, DIAMOND) == [0, 0, 0, 0, 0, 1]
    assert _extend(graph, []) == []
    assert len(graph) == 6


@pytest.mark.parametrize("wrong", [Added(500, [], 0.0, False), Added(501, [(6, 0.5)], 0.0, False)])
def test_our_own_mistakes_are_caught(wrong: Added) -> None:
    """Proves that a position that does not ascend, and a link to oneself, are refused before anything is added."""
    graph = _graph(DIAMOND)
    with pytest.raises(AssertionError):
        _extend(graph, [wrong])
    assert len(graph) == 6
