"""What is found owes nothing to how rows and queries share a call, or to when a thread was waited for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.lattice import to_lattice
from memsvc.shards.index import StreamIndex
from memsvc.shards.projection import Projection
from protos.memsvc.v1 import types_pb2 as wire
from tests.property.small_parts import make_parts_small

DIMS = 300


def _vectors(count: int, seed: int = 1) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIMS))
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


@settings(max_examples=20, deadline=None)
@given(cuts=st.sets(st.integers(1, 399), max_size=40), seed=st.integers(0, 3))
def test_a_projection_is_the_same_in_any_company(cuts: set[int], seed: int) -> None:
    """Proves that a row's projection is the same bit for bit, alone, among few and among many."""
    rows = _vectors(400, seed)
    projection = Projection.learnt(rows.astype(np.float32))
    parts = [projection.of(part) for part in np.split(rows, sorted(cuts))]
    assert np.array_equal(np.concatenate(parts), projection.of(rows))


@pytest.mark.parametrize("finder", ["HNSW", "FAISS", "WALK", "DICTIONARY"])
@pytest.mark.parametrize("count", [150, 185, 300])
def test_waiting_for_threads_shows_nothing_early(finder: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that links are the same, and distinct, whether threads were waited for at a bad moment or never."""
    make_parts_small(monkeypatch)
    rows, found = _vectors(count + 50), []
    for settled in (False, True):
        spec = wire.SearchSpec(finder=wire.FinderKind.Value(f"FINDER_KIND_{finder}"), link_similarity_min=-1.0)
        index = StreamIndex(DIMS, spec, group_rows=30)
        for first in range(0, count, 50):
            index.best_earlier(rows[first : first + 50], first, 3)
            index.add(rows[first : min(count, first + 50)])
        if settled:
            index.settle()
        found.append(index.best_earlier(rows[count:], count, 3).index)
    assert all(len(set(own)) == len(own) for own in found[1].tolist())
    assert np.array_equal(*found)
