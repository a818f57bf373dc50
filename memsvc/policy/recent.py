"""The newest lattice vectors of a gapless run, and sums over windows of them.

Invariant: sums and products are integers below 2 ** 53, held in float64: exact, whatever the order and the split.
"""

import numpy as np
import numpy.typing as npt

from memsvc.policy.offer import Int16Array

Float64Array = npt.NDArray[np.float64]


class RecentVectors:
    """The last vectors of the current run.

    Args:
        count: How many are held at most.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows: Int16Array | None = None

    def push(self, vectors: Int16Array) -> Float64Array:
        """Adds [n, dims]; returns running sums [held before + n + 1, dims], of which row i is that of the first i."""
        rows = vectors if self._rows is None else np.concatenate([self._rows, vectors])
        self._rows = rows[max(0, len(rows) - self._count) :]
        sums = np.zeros((len(rows) + 1, rows.shape[1]))
        np.cumsum(rows, axis=0, dtype=np.float64, out=sums[1:])
        return sums

    def clear(self) -> None:
        """Ends the run."""
        self._rows = None


def cosines(a: Float64Array, b: Float64Array) -> Float64Array:
    """Cosine of each pair of rows of integers, [n, dims] twice to [n]; 0 where one is zero."""
    dot, a_squares, b_squares = (np.einsum("nd,nd->n", x, y) for x, y in ((a, b), (a, a), (b, b)))
    norms = np.sqrt(a_squares) * np.sqrt(b_squares)
    cosine: Float64Array = dot / np.where(norms > 0, norms, 1.0)
    return cosine
