"""Upper bounds of similarities from an eighth of the arithmetic, so that an exact search can skip what cannot win.

A vector x is split into its projection p onto a few directions that carry much of the data, and a rest of length r.
By Cauchy-Schwarz <x, y> <= <p_x, p_y> + r_x r_y, and that is the plain dot product of the vectors (p, r).

Invariants:
    The bound holds for any vectors, whatever the sample was; a poor sample only makes it loose.
"""

import numpy as np
import numpy.typing as npt

from memsvc.lattice import SCALE
from memsvc.shards.base import Float32Array

# Directions, so that a sketch has 64 dimensions. Of 576 (SmolLM2, layer 6), 47 to 127 cost the same at 24,000 rows.
_RANK = 63
# Power iterations from random directions; a third one gains nothing that can be measured.
_ITERATIONS = 2
# Float32 error of a 64-term dot product of vectors no longer than 1.001 is below 64 * 2 ** -24 = 4e-6.
MARGIN = 1e-5


class Sketch:
    """Directions found in a sample of lattice vectors.

    Args:
        sample: float32 [n, dims], n at least 64, dims above 64.

    Source: randomised subspace iteration (arXiv 0909.4061).
    """

    dims = _RANK + 1

    def __init__(self, sample: Float32Array) -> None:
        generator = np.random.default_rng(0)
        basis = generator.standard_normal((sample.shape[1], _RANK))
        for _ in range(_ITERATIONS):
            moved = sample.T @ (sample @ basis.astype(np.float32))
            basis, _ = np.linalg.qr(moved.astype(np.float64))
        self._basis: npt.NDArray[np.float64] = basis / SCALE

    def of(self, rows: Float32Array) -> Float32Array:
        """Sketches of lattice vectors, [n, dims] to [n, 64]: sketch dot sketch + MARGIN >= dot / SCALE ** 2."""
        exact = rows.astype(np.float64)
        parts = exact @ self._basis
        squares = np.einsum("nd,nd->n", exact, exact) / SCALE**2 - np.einsum("nd,nd->n", parts, parts)
        # The directions are orthonormal to 1e-15 only, and a rest must not be rounded below its true length.
        rest = np.sqrt(np.maximum(squares, 0.0) + 1e-12)
        return np.column_stack([parts, rest]).astype(np.float32)
