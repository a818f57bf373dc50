"""Sums over windows of the newest lattice vectors of a gapless run.

Invariant: sums and products are integers below 2 ** 53, held in float64: exact, whatever the order and the split.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memsvc.policy.offer import Int16Array

Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Windows:
    """Sums of the vectors that end with each of consecutive tokens, float64 [n, dims], and their lengths, [n]."""

    sums: Float64Array
    lengths: Float64Array

    def __getitem__(self, own: slice) -> "Windows":
        return Windows(self.sums[own], self.lengths[own])

    def then(self, later: "Windows") -> "Windows":
        """These and later ones."""
        return Windows(np.concatenate([self.sums, later.sums]), np.concatenate([self.lengths, later.lengths]))


class RecentWindows:
    """The windows of `tokens` vectors that end with the newest tokens of the current run.

    Vectors before the run count as zero: the first windows are sums of what there is.

    Args:
        tokens: Of a window; a power of 2.
        held: Windows before the next token's that are held.

    Attributes:
        count: Vectors of the run so far; after a replay, of those that were given again.
    """

    def __init__(self, tokens: int, held: int) -> None:
        assert tokens.bit_count() == 1, f"expected a power of 2, got {tokens}"
        self._tokens, self._held = tokens, held
        # Vectors that the next windows begin with, and the windows held; None before the run's first vector.
        self._rows: Int32Array | None = None
        self._windows: Windows | None = None
        self.count = 0

    def push(self, vectors: Int16Array) -> Windows:
        """Adds [n, dims]; returns the `held` windows before and the n that end with these."""
        dims = vectors.shape[1]
        if self._rows is None or self._windows is None:
            self._rows = np.zeros((self._tokens - 1, dims), dtype=np.int32)
            self._windows = Windows(np.zeros((self._held, dims)), np.zeros(self._held))
        sums = np.concatenate([self._rows, vectors])
        self._rows = sums[len(sums) - self._tokens + 1 :].copy()
        # Windows of 2, of 4, and so on.
        width = 1
        while width < self._tokens:
            sums = sums[width:] + sums[:-width]
            width *= 2
        windows = self._windows.then(windows_of(sums))
        self._windows = windows[len(vectors) :]
        self.count += len(vectors)
        return windows

    def clear(self) -> None:
        """Ends the run."""
        self._rows = self._windows = None
        self.count = 0


def windows_of(sums: Int16Array | Int32Array) -> Windows:
    """Sums of vectors, [n, dims], with their lengths."""
    exact = sums.astype(np.float64)
    return Windows(exact, np.sqrt(np.vecdot(exact, exact)))


def cosines(a: Windows, b: Windows) -> Float64Array:
    """Cosine of each pair, [n] and [n] to [n]; 0 where one is zero."""
    norms = a.lengths * b.lengths
    cosine: Float64Array = np.vecdot(a.sums, b.sums) / np.where(norms > 0, norms, 1.0)
    return cosine
