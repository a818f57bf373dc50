"""Growth: replicas that stay near what they came from, and exponents at equal agreement."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_growth import DIMS, GrowingDictionary, GrowingGraph, Point, growth_of, load, measure


def _points(visited: dict[int, float]) -> list[Point]:
    """At each size: 0.90 for half of `visited` and 1.00 for twice it, so that 0.95 takes `visited`."""
    return [
        Point("own", size, width, agreement, factor * value, factor * value / 1000)
        for size, value in visited.items()
        for width, agreement, factor in ((16, 0.90, 0.5), (24, 1.00, 2.0))
    ]


def test_an_exponent_is_that_of_a_power_law() -> None:
    """Proves that figures that grow with the square root give 0.5, in nodes and in time."""
    growth = growth_of("own", _points({size: 7.0 * math.sqrt(size) for size in (100, 1000, 10_000)}))
    assert (growth.visited, growth.time) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_size_that_never_agrees_has_no_exponent() -> None:
    """Proves that no exponent is told from sizes that missed the agreement."""
    missed = [Point("own", 1000, 16, 0.94, 50.0, 1.0)]
    assert math.isnan(growth_of("own", [*_points({100: 40.0}), *missed]).visited)


def test_replicas_follow_the_bookmarks_there_are(tmp_path: Path) -> None:
    """Proves that past the real bookmarks come replicas of them, 0.86 similar, in blocks of their own."""
    generator = np.random.default_rng(0)
    codes = generator.integers(-127, 128, (120, DIMS)).astype(np.int8)
    asked = {"query_codes": codes[:9], "query_scale": np.ones(9, dtype=np.float32)}
    np.savez(tmp_path / "own.npz", codes=codes, scale=np.ones(120, np.float32), positions=np.arange(120) * 8, **asked)
    text = load(tmp_path / "own.npz", 300, 5, 0)
    assert (text.rows.shape, len(text.queries)) == ((300, DIMS), 5)
    assert (np.diff(text.blocks) >= 0).all()
    assert len(set(text.blocks.tolist())) == 15 + 15 + 8
    similar = (text.rows[120:240].astype(float) * text.rows[:120]).sum(axis=1) / 4095**2
    # One over the root of 1 + 0.6 squared; two random vectors of 576 dimensions are 0 +- 0.042 similar.
    np.testing.assert_allclose(np.median(similar), 1 / math.sqrt(1.36), atol=0.02)


def test_finders_are_measured_against_the_truth() -> None:
    """Proves on 1,500 synthetic bookmarks that both finders agree once they are wide, and look at less than all."""
    text = load(None, 1500, 6, 0)
    for grown in (GrowingDictionary(), GrowingGraph()):
        grown.grow(text.rows[:1000])
        grown.grow(text.rows)
        points = measure("own", grown.search, text, 1500)
        assert points[-1].agreement >= 0.95
        assert points[0].visited < points[-1].visited < 1500
