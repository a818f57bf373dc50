"""Lattice arithmetic is exact and owes nothing to how rows were batched."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.lattice import SCALE, similarities, to_lattice

DIMS = [64, 576, 4096]
ROWS = 150

Rows = npt.NDArray[np.float32]


def _adversarial(dims: int, random: np.random.Generator) -> Rows:
    """Rows that strain rounding and partial sums: flat, spiked, mixed in sign, extreme in size, at half steps."""
    half_step = np.full(dims, 0.5 + 1e-3) + np.floor(SCALE / np.sqrt(dims))
    signs = random.choice([-1.0, 1.0], size=dims)
    spike = np.zeros(dims)
    spike[random.integers(dims)] = -3e38
    near_spike = np.ones(dims) * 1e-3
    near_spike[0] = 1.0
    decay = 0.9 ** np.arange(dims)
    kinds = [
        np.ones(dims),
        -np.ones(dims),
        signs,
        half_step,
        half_step * signs,
        spike,
        near_spike,
        decay,
        decay * signs,
    ]
    return np.array([*kinds, signs * 3e38, signs * 1e-40, np.zeros(dims)], dtype=np.float32)


def _rows(dims: int, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    plain = random.normal(size=(ROWS, dims)) * 10.0 ** random.integers(-30, 30, size=(ROWS, 1))
    rows = np.concatenate([_adversarial(dims, random), plain.astype(np.float32)])
    return rows[random.permutation(len(rows))]


@pytest.mark.parametrize("dims", DIMS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_float32_products_equal_integer_arithmetic(dims: int, seed: int) -> None:
    """Proves that BLAS in float32 gives the exact integers, and that no lattice vector is longer than 4096."""
    rows = _rows(dims, seed)
    for centre in (np.zeros(dims), rows[0].astype(np.float64)):
        lattice = to_lattice(rows, centre)
        wide = lattice.astype(np.int64)
        assert (wide * wide).sum(axis=1).max() <= 2**24
        assert np.array_equal(similarities(lattice, lattice).astype(np.int64), wide @ wide.T)


@pytest.mark.parametrize("dims", DIMS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, ROWS), max_size=6))
def test_any_batch_split_gives_the_same_bits(dims: int, seed: int, cuts: list[int]) -> None:
    """Proves that vectors and similarities of a row are the same alone, in any batch, and in any layout in memory."""
    rows = _rows(dims, seed)
    centre = np.random.default_rng(seed).normal(size=dims)
    bounds = sorted({0, *cuts, len(rows)})
    whole = to_lattice(rows, centre)
    parts = [to_lattice(rows[a:b], centre) for a, b in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(to_lattice(np.asfortranarray(rows), centre), whole)
    products = similarities(whole, whole)
    by_query = [similarities(part, whole.astype(np.float32)) for part in parts]
    by_row = [similarities(whole, part) for part in parts]
    assert np.array_equal(np.concatenate(by_query), products)
    assert np.array_equal(np.concatenate(by_row, axis=1), products)


def test_rounding_that_would_pass_4096_is_cut() -> None:
    """Proves that the guard on the length is needed and works: every component here rounds up."""
    dims = 4096
    # 44.505 a component: rounding to 45 makes a length of 45 * sqrt(4096) = 2880 of these alone; the rest is one spike.
    bulk = np.full(dims, 44.505)
    bulk[0] = np.sqrt(SCALE**2 - 44.505**2 * (dims - 1))
    rows = (bulk[None] / SCALE).astype(np.float32)
    scaled = rows / np.sqrt((rows.astype(np.float64) ** 2).sum()) * SCALE
    assert (np.rint(scaled) ** 2).sum() > 2**24
    lattice = to_lattice(rows, np.zeros(dims)).astype(np.int64)
    assert (lattice * lattice).sum() <= 2**24
    assert lattice[0, 1] == 44
