"""Smoothing of a signal: the mean over five tokens centred at the one decided, so that decisions lag two tokens.

At either end of a gapless run it is the mean of those that exist. Every sum has a fixed order: the split into calls
cannot show.
"""

import numpy as np
import numpy.typing as npt

from memsvc.policy.base import SMOOTHING_DELAY_TOKENS

# Tokens on each side of the one decided, and with it.
_SPAN_TOKENS = 2 * SMOOTHING_DELAY_TOKENS + 1

Float64Array = npt.NDArray[np.float64]


class Smoother:
    """No smoothing: each value as it is, at once."""

    def push(self, values: npt.NDArray[np.floating]) -> Float64Array:
        """Adds [n] values; returns those that they complete, in order."""
        return values.astype(np.float64)

    def flush(self) -> Float64Array:
        """Ends the run: the values still waiting. The next push begins another."""
        return np.empty(0, dtype=np.float64)


class CentredMean(Smoother):
    """Means of five neighbouring values, two before and two after, over gapless runs."""

    def __init__(self) -> None:
        # Row 0: values, row 1: 1 where one exists. Two absent ones stand before a run, the last four wait for the next.
        self._held = np.zeros((2, SMOOTHING_DELAY_TOKENS), dtype=np.float64)

    def push(self, values: npt.NDArray[np.floating]) -> Float64Array:
        """Adds [n] values; returns the means that they complete, in order."""
        return self._extend(np.stack([values.astype(np.float64), np.ones(len(values))]))

    def flush(self) -> Float64Array:
        """Ends the run: the means still waiting, over the values that exist. The next push begins another."""
        means = self._extend(np.zeros((2, SMOOTHING_DELAY_TOKENS), dtype=np.float64))
        self._held = np.zeros((2, SMOOTHING_DELAY_TOKENS), dtype=np.float64)
        return means

    def _extend(self, fed: Float64Array) -> Float64Array:
        held = np.concatenate([self._held, fed], axis=1)
        complete = max(0, held.shape[1] - _SPAN_TOKENS + 1)
        sums = held[:, :complete].copy()
        for shift in range(1, _SPAN_TOKENS):
            sums += held[:, shift : shift + complete]
        self._held = held[:, complete:]
        means: Float64Array = sums[0] / sums[1]
        return means
