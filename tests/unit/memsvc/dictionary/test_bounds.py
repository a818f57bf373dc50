"""Bounds hold for every vector below, and are as tight as their shape allows where that can be said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.dictionary.bounds import BoundKind, Bounds, make_bounds
from memsvc.lattice import SCALE, to_lattice
from memsvc.shards.sketch import Sketch

DIMS = 80
BOUNDING: tuple[BoundKind, ...] = ("box", "projected", "ball")


def _vectors(count: int, seed: int, spread: float = 0.5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal(DIMS) + spread * generator.standard_normal((count, DIMS))
    rows[generator.random(count) < 0.1] = 0.0
    # A single direction holds the whole length: the largest value that a lattice vector can have.
    rows[generator.random(count) < 0.1] = -1e3 * np.eye(DIMS)[3]
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


def _bounds(kind: BoundKind) -> Bounds:
    return make_bounds(kind, DIMS, Sketch(_vectors(100, seed=1).astype(np.float32)))


def _most(bounds: Bounds, query: np.ndarray, node: int) -> float:
    return float(bounds.reach(bounds.prepare(query), np.array([node])).most[0])


@pytest.mark.parametrize("kind", BOUNDING)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 30), spread=st.sampled_from([0.0, 0.1, 3.0]))
def test_no_vector_below_a_node_exceeds_its_bound(kind: BoundKind, seed: int, count: int, spread: float) -> None:
    """Proves that over segments and over nodes of segments the bound is at least each exact dot product."""
    rows, queries = _vectors(2 * count, seed, spread), _vectors(5, seed + 1)
    bounds = _bounds(kind)
    bounds.set_rows(0, rows[:count])
    bounds.set_rows(1, rows[count:])
    bounds.set_nodes(100, np.array([0, 1]))
    exact = queries.astype(np.int64) @ rows.T.astype(np.int64)
    for query, dots in zip(queries, exact, strict=True):
        assert _most(bounds, query, 0) >= dots[:count].max()
        assert _most(bounds, query, 1) >= dots[count:].max()
        assert _most(bounds, query, 100) >= dots.max()


@pytest.mark.parametrize("kind", ["box", "ball"])
def test_the_bound_of_one_vector_is_its_similarity(kind: BoundKind) -> None:
    """Proves that a box or ball around one vector is it but for rounding: 8 bits of each dimension, or of float32."""
    rows = _vectors(40, seed=5)
    bounds = _bounds(kind)
    for node, row in enumerate(rows):
        bounds.set_rows(node, row[None])
    query = _vectors(1, seed=6)[0]
    reach = bounds.reach(bounds.prepare(query), np.arange(40))
    loose = (reach.most - rows.astype(np.int64) @ query.astype(np.int64)) / SCALE**2
    # Codes of neighbouring values c and c + 1 lie (2 c + 1) * 0.254 apart: at most 65, on average far less.
    assert loose.max() < (0.08 if kind == "box" else 1e-4)


def test_a_centroid_bounds_nothing() -> None:
    """Proves that the estimate is the dot product with the mean of all below, and that it claims no bound."""
    rows, query = _vectors(30, seed=7), _vectors(1, seed=8)[0]
    bounds = _bounds("centroid")
    bounds.set_rows(0, rows[:10])
    bounds.set_rows(1, rows[10:])
    bounds.set_nodes(2, np.array([0, 1]))
    reach = bounds.reach(bounds.prepare(query), np.array([2]))
    assert reach.most.tolist() == [np.inf]
    mean = rows.astype(np.float64).mean(axis=0)
    # Float32 rounds each term of a sum of at most 2 ** 24 by 2 ** -24 of it.
    assert abs(float(reach.likely[0]) - mean @ query) <= 2 * DIMS


def test_a_node_says_how_many_bytes_it_takes() -> None:
    """Proves the sizes that the module states, here for 80 dimensions."""
    assert [_bounds(kind).node_bytes for kind in ("box", "projected", "ball", "centroid")] == [160, 512, 324, 320]
