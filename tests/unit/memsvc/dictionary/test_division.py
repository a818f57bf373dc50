"""Dividing a full checkpoint: into parts that are smaller, whole, and alike."""

import numpy as np
import pytest

from memsvc.dictionary.division import direction_of, divided
from memsvc.lattice import to_lattice

DIMS = 20


def _around(axes: list[int], spread: float = 0.1) -> np.ndarray:
    rows = np.eye(DIMS)[axes] + spread * np.random.default_rng(0).standard_normal((len(axes), DIMS))
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


def test_two_topics_are_told_apart() -> None:
    """Proves that vectors along two axes, mixed, are divided by axis."""
    axes = [0, 7, 7, 0, 0, 7, 0, 7, 0, 7]
    parts = divided(_around(axes), 8)
    assert sorted({axes[at] for at in part.tolist()} for part in parts) == [{0}, {7}]


@pytest.mark.parametrize("count", [9, 33, 200])
def test_equal_vectors_are_cut_in_the_middle(count: int) -> None:
    """Proves that division ends where nothing tells vectors apart, and that each is in exactly one part."""
    for rows in (np.repeat(_around([3]), count, axis=0), np.zeros((count, DIMS), dtype=np.int16)):
        parts = divided(rows, 8)
        assert all(1 <= len(part) <= 8 for part in parts)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))


def test_a_lone_vector_is_no_half() -> None:
    """Proves that one vector far from all others does not become a part of its own."""
    parts = divided(_around([0] * 32 + [9], spread=0.01), 32)
    assert min(len(part) for part in parts) >= 33 // 8


def test_a_direction_is_that_of_the_mean() -> None:
    """Proves that a direction has length 1 and points where the mean points, and that of opposites is zero."""
    rows = _around([0, 1], spread=0.0)
    # Half a unit of rounding in each of two dimensions.
    np.testing.assert_allclose(direction_of(rows)[:2] / 4095, np.sqrt([0.5, 0.5]), atol=1 / 4095)
    assert not direction_of(np.stack([rows[0], -rows[0]])).any()
