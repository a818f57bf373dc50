"""Projections: similarities that nearly hold, lengths that do, and files that are trusted only as written."""

from pathlib import Path

import numpy as np

from memsvc.shards.projection import PROJECTED_DIMS, Projection

DIMS = 200


def _rows(count: int) -> np.ndarray:
    """Vectors most of whose length lies in 100 of 200 dimensions, turned at random."""
    generator = np.random.default_rng(1)
    turn, _ = np.linalg.qr(generator.standard_normal((DIMS, DIMS)))
    scale = np.where(np.arange(DIMS) < 100, 200.0, 5.0)
    return (generator.standard_normal((count, DIMS)) * scale @ turn).astype(np.float32)


def test_a_projection_keeps_lengths_and_nearly_keeps_similarities() -> None:
    """Proves that a row is as long as its projection, and that cosines move by less than what is left out."""
    rows = _rows(2000)
    projection = Projection.learnt(rows[:1000])
    assert projection.width == PROJECTED_DIMS
    projected = projection.of(rows)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), np.linalg.norm(rows, axis=1), rtol=1e-4)
    unit, own = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (rows, projected))
    # Of a row's square, 72 of 200 dimensions at 25 against 100 at 40,000 are left out: 0.0005 of it, for either row.
    assert np.abs(unit[:100] @ unit.T - own[:100] @ own.T).max() < 0.005


def test_few_dimensions_stay_as_they_are() -> None:
    """Proves that nothing is left out where there are no more dimensions than directions."""
    rows = _rows(50)[:, :PROJECTED_DIMS]
    np.testing.assert_allclose(Projection.learnt(rows).of(rows), rows, rtol=1e-6)


def test_saved_directions_are_read_back_for_their_shard_only(tmp_path: Path) -> None:
    """Proves that the same directions come back, and none for other bookmarks or damaged bytes."""
    rows = _rows(500)
    projection = Projection.learnt(rows)
    projection.save(tmp_path, "hnsw", 3, "ab" * 16)
    loaded = Projection.load(tmp_path, "hnsw", 3, "ab" * 16, DIMS)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.of(rows), projection.of(rows))
    assert Projection.load(tmp_path, "hnsw", 3, "cd" * 16, DIMS) is None
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert Projection.load(tmp_path, "hnsw", 3, "ab" * 16, DIMS) is None
