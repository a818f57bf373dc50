"""Fewer dimensions to search over: the directions that carry most of a sample.

A row keeps its length: its projection is stretched to it, because what the directions miss would else make rows look
less similar the less of them the directions carry. Of 16 best among 15,000 tokens of SmolLM2 (layer 6), the 128 best by
128 directions hold 0.994 with this and 0.988 without.

Invariants:
    A projection depends on its own row and the directions alone.
"""

from pathlib import Path
from typing import Self

import numpy as np

from memsvc.lattice import to_lattice
from memsvc.shards.base import Float32Array, Int16Array
from memsvc.shards.files import store, stored

# Directions, if a vector has more dimensions than that.
PROJECTED_DIMS = 128
# Power iterations from random directions, as in `memsvc.shards.sketch`.
_ITERATIONS = 2


class Projection:
    """Directions of lattice vectors.

    Args:
        basis: Orthogonal columns of one length, whole numbers, float32 [dims, width].
    """

    def __init__(self, basis: Float32Array) -> None:
        self._basis = basis

    @classmethod
    def learnt(cls, sample: Float32Array, most: int = PROJECTED_DIMS) -> Self:
        """Directions of a sample, float32 [n, dims]; at most so many, and all where there are no more.

        Source: randomised subspace iteration (arXiv 0909.4061).
        """
        dims = sample.shape[1]
        if dims <= most:
            return cls(np.eye(dims, dtype=np.float32))
        generator = np.random.default_rng(0)
        basis = generator.standard_normal((dims, most), dtype=np.float32)
        for _ in range(_ITERATIONS):
            basis, _ = np.linalg.qr(sample.T @ (sample @ basis))
        # Rounded as lattice vectors are: products of a row with them are exact, whatever rows share the call.
        return cls(np.ascontiguousarray(to_lattice(basis.T, np.zeros(dims)).T.astype(np.float32)))

    @property
    def width(self) -> int:
        """Dimensions of a projection."""
        return int(self._basis.shape[1])

    def of(self, rows: Int16Array | Float32Array) -> Float32Array:
        """Projections of lattice vectors, [n, dims] to float32 [n, width]."""
        wide = rows.astype(np.float32, copy=False)
        parts = wide @ self._basis
        squares = np.einsum("nd,nd->n", wide, wide), np.einsum("nd,nd->n", parts, parts)
        stretch = np.sqrt(squares[0] / np.maximum(squares[1], 1.0))
        projected: Float32Array = parts * stretch[:, None]
        return projected

    def save(self, folder: Path, kind: str, first: int, digest: str) -> None:
        """Write the directions beside a shard's file (see `memsvc.shards.files`), durably. Raises StorageFailed."""
        store(folder, _kind_of(kind), first, digest, lambda path: self._basis.tofile(path))

    @classmethod
    def load(cls, folder: Path, kind: str, first: int, digest: str, dims: int) -> Self | None:
        """The directions saved for exactly this shard; None if there are none or they are damaged."""
        path = stored(folder, _kind_of(kind), first, digest)
        if path is None:
            return None
        return cls(np.frombuffer(path.read_bytes(), dtype=np.float32).reshape(dims, -1))


def _kind_of(kind: str) -> str:
    return f"{kind}-projection"
