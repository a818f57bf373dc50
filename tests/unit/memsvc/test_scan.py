"""Comparing only likely rows finds what comparing all rows finds."""

import numpy as np
import pytest

from memsvc.lattice import SCALE, to_lattice
from memsvc.shards.base import NOTHING
from memsvc.shards.scan import best_of_matrix, compare_all, compare_likely
from memsvc.shards.sketch import Sketch

ROWS, DIMS = 8500, 96


def _vectors(spread: float) -> np.ndarray:
    generator = np.random.default_rng(11)
    topics = generator.standard_normal((150, DIMS))
    data = topics[generator.integers(0, 150, ROWS)] + spread * generator.standard_normal((ROWS, DIMS))
    return to_lattice(data.astype(np.float32), np.zeros(DIMS)).astype(np.float32)


@pytest.mark.parametrize("spread", [0.05, 0.4, 5.0])
@pytest.mark.parametrize("floor", [-(SCALE**2), int(0.4 * SCALE**2), int(0.98 * SCALE**2)])
def test_likely_rows_hold_the_best(spread: float, floor: int) -> None:
    """Both ways agree on tight clusters, on loose ones, and on noise where nothing can be skipped."""
    rows = _vectors(spread)
    wide = rows[::283].copy()
    sketch = Sketch(rows)
    floors = np.full(len(wide), floor, dtype=np.float32)
    bounds = sketch.of(wide) @ sketch.of(rows).T
    likely = compare_likely(wide, rows, bounds, 4, floors)
    np.testing.assert_array_equal(likely, compare_all(wide, rows, 4, floors))
    # A row is its own best match.
    assert (likely[:, 0] != NOTHING).all()


@pytest.mark.parametrize("columns", [0, 1, 127, 300])
def test_best_of_matrix_orders_ties_by_index(columns: int) -> None:
    """Equal dot products come newest first, fewer than k leave blanks, and the floor itself is still a hit."""
    keys = best_of_matrix(np.full((2, columns), 5.0, dtype=np.float32), 3, np.full(2, 5.0, dtype=np.float32))
    newest = [(5 << 38) + column for column in range(columns)][::-1][:3]
    assert keys.tolist() == [newest + [NOTHING] * (3 - len(newest))] * 2
    above = best_of_matrix(np.full((2, columns), 5.0, dtype=np.float32), 3, np.full(2, 6.0, dtype=np.float32))
    assert (above == NOTHING).all()
