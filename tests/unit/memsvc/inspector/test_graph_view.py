"""Places of a graph's nodes, the links between them, and where a graph begins."""

import numpy as np

from memsvc.inspector.graph_view import edges_between, largest_heads, places
from memsvc.session.overview import BookmarkColumns


def test_nodes_of_a_graph_stand_apart() -> None:
    """Proves that no two of 5,000 nodes in many chains of many sizes share a place."""
    chains = np.sort((np.random.default_rng(1).pareto(1.0, 5000) * 5).astype(np.int64) % 200)
    at = places(chains)
    assert at.shape == (5000, 2)
    assert len(np.unique(np.round(at, 3), axis=0)) == 5000


def test_links_are_those_with_both_ends_there() -> None:
    """Proves that a link to what is not shown, a weak one, and none at all are left out."""
    columns = BookmarkColumns(
        positions=np.arange(5),
        chains=np.zeros(5, dtype=np.int64),
        parents=np.array([[-1, -1], [0, -1], [1, 0], [2, 0], [3, 1]]),
        weights=np.array([[0, 0], [0.9, 0], [0.8, 0.3], [0.7, 0.6], [0.5, 0.4]], dtype=np.float32),
    )
    edges = edges_between(columns, np.array([0, 1, 3, 4]), 0.45)
    assert list(zip(edges.source, edges.target, edges.weight, strict=True)) == [(1, 0, 0.9), (3, 0, 0.6), (4, 3, 0.5)]
    assert edges_between(columns, np.empty(0, dtype=np.int64), 0.0).source == []


def test_a_graph_begins_at_the_newest_of_the_largest_chains() -> None:
    """Proves the order of the chains, and which bookmark stands for each."""
    assert largest_heads(np.array([0, 1, 1, 2, 1, 0])) == [4, 5, 3]
    assert largest_heads(np.empty(0, dtype=np.int64)) == []
