"""Sketches bound similarities from above."""

import numpy as np
import pytest

from memsvc.lattice import SIMILARITY_UNIT, to_lattice
from memsvc.shards.sketch import MARGIN, Sketch


@pytest.mark.parametrize("sample", ["like the data", "all zero", "all equal"])
def test_a_sketch_bounds_every_similarity(sample: str) -> None:
    """The product of two sketches plus the margin is never below the similarity, however bad the sample was."""
    generator = np.random.default_rng(7)
    data = generator.standard_normal((600, 96)).astype(np.float32)
    data[:200] = data[200:400] + 0.01 * data[400:600]
    rows = to_lattice(data, np.zeros(96)).astype(np.float32)
    rows[599] = 0
    samples = {"like the data": rows, "all zero": np.zeros_like(rows), "all equal": np.tile(rows[:1], (600, 1))}
    sketches = Sketch(samples[sample]).of(rows)
    similarity = rows.astype(np.float64) @ rows.T.astype(np.float64) * SIMILARITY_UNIT
    assert (sketches @ sketches.T + MARGIN >= similarity).all()


def test_a_sketch_is_tight_where_the_data_has_few_dimensions() -> None:
    """Vectors in a space of 40 dimensions are sketched without loss."""
    generator = np.random.default_rng(8)
    plane = generator.standard_normal((40, 300))
    rows = to_lattice((generator.standard_normal((500, 40)) @ plane).astype(np.float32), np.zeros(300))
    wide = rows.astype(np.float32)
    sketches = Sketch(wide).of(wide)
    similarity = wide.astype(np.float64) @ wide.T.astype(np.float64) * SIMILARITY_UNIT
    # What is left is rounding to the lattice: a half of 1 / 4095 in each dimension.
    assert np.abs(sketches @ sketches.T - similarity).max() < 300 * (0.5 / 4095) ** 2 * 2 + MARGIN
