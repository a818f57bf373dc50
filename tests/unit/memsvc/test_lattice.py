"""Lattice vectors: what they keep of an embedding."""

import numpy as np
import pytest

from memsvc.lattice import SCALE, SIMILARITY_UNIT, centre_of, similarities, to_lattice


def test_the_row_at_the_centre_becomes_zero() -> None:
    """Proves that a row equal to the centre has no direction: all zeros, similarity 0 to everything."""
    rows = np.array([[1.5, -2.0, 3.0], [2.5, -2.0, 3.0]], dtype=np.float32)
    lattice = to_lattice(rows, rows[0].astype(np.float64))
    assert lattice.tolist() == [[0, 0, 0], [SCALE, 0, 0]]
    assert similarities(lattice[:1], lattice).tolist() == [[0.0, 0.0]]


def test_similarity_is_the_cosine_about_the_centre() -> None:
    """Proves that lattice similarities equal float64 cosines within what rounding to integers moves."""
    dims = 576
    rows = np.random.default_rng(7).normal(size=(100, dims)).astype(np.float32)
    centre = centre_of(rows)
    offsets = rows - centre
    unit = offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
    lattice = to_lattice(rows, centre)
    found = similarities(lattice, lattice).astype(np.float64) * SIMILARITY_UNIT
    # Each vector moves by at most sqrt(dims) / 2 of SCALE, and both sides of a product move.
    bound = 2 * (np.sqrt(dims) / 2 / SCALE) + (np.sqrt(dims) / 2 / SCALE) ** 2
    assert np.abs(found - unit @ unit.T).max() <= bound


def test_the_centre_is_the_mean() -> None:
    """Proves that the centre is the rows' mean in float64, whatever their layout in memory."""
    rows = np.random.default_rng(8).normal(size=(300, 5)).astype(np.float32)
    assert np.allclose(centre_of(rows), rows.astype(np.float64).mean(axis=0), rtol=0, atol=1e-15)
    assert np.array_equal(centre_of(np.asfortranarray(rows)), centre_of(rows))


@pytest.mark.parametrize("dims", [1, 2, 3, 63, 64, 65])
def test_any_number_of_dimensions_works(dims: int) -> None:
    """Proves that odd sizes fold to the same sums: every row has the lattice's length."""
    rows = np.random.default_rng(dims).normal(size=(9, dims)).astype(np.float32)
    lattice = to_lattice(rows, np.zeros(dims)).astype(np.int64)
    lengths = np.sqrt((lattice * lattice).sum(axis=1))
    assert np.abs(lengths - SCALE).max() <= np.sqrt(dims) / 2
    assert to_lattice(rows[:0], np.zeros(dims)).shape == (0, dims)
