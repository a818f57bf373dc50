"""Growth: replicas that stay near what they came from, and exponents at equal agreement."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_growth
from benchmarks.bench_growth import (
    BLOCKS,
    DIMS,
    FINDERS,
    GrowingGraph,
    Point,
    best_blocks,
    growing,
    growth_of,
    load,
    measure,
)


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
    """Proves on 1,500 synthetic bookmarks that every finder agrees once it is wide, and looks at less than all."""
    text = load(None, 1500, 6, 0)
    true = best_blocks(text, 1500)
    for name in FINDERS:
        grown = growing(name, 1500)
        grown.grow(text.rows[:1000])
        grown.grow(text.rows)
        points = measure(name, grown.search, text, 1500, true)
        assert points[-1].agreement >= 0.95
        assert points[0].visited < points[3].visited < 1500


def test_the_true_blocks_are_those_of_a_comparison_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that however bookmarks are cut into pieces, the best blocks are those of the largest dot products."""
    text = load(None, 700, 5, 0)
    dots = text.queries.astype(np.int64) @ text.rows.astype(np.int64).T
    of_blocks = [np.maximum.reduceat(own, np.flatnonzero(np.diff(text.blocks, prepend=-1))) for own in dots]
    for piece in (1, 33, 8192):
        monkeypatch.setattr(bench_growth, "PIECE_ROWS", piece)
        for found, own in zip(best_blocks(text, 700), of_blocks, strict=True):
            assert found == set(np.argsort(-own)[:BLOCKS].tolist())


def test_shards_are_as_large_as_said_and_hold_every_bookmark_once() -> None:
    """Proves that shards of 300, 600 and 1,200 bookmarks take over from each other, whatever came at once, and that a
    search that is as wide as all of them finds nothing twice and nearly all: a graph need not lead everywhere."""
    text = load(None, 1500, 3, 0)
    graphs = GrowingGraph(1, first_rows=300, growth=2)
    for end in (10, 299, 301, 1500):
        graphs.grow(text.rows[:end])
    found, _ = graphs.search(text.queries[0], 1500)
    assert len(set(found.tolist())) == len(found)
    for first, size in ((0, 300), (300, 600), (900, 600)):
        assert 0.99 * size <= np.count_nonzero((found >= first) & (found < first + size)) <= size
