"""Several policies' scores in one: the weighted mean of their standardised signals, above a running threshold.

Each signal is standardised by the mean and deviation of all its values before the token, and cut to Z_MAX deviations on
each side; the weighted mean of these is averaged over five tokens. Units do not matter then, only weights do.
"""

from collections.abc import Sequence

import numpy as np

from memsvc.policy.base import Signals, signal_of
from memsvc.policy.offer import Measure
from memsvc.policy.quantile import Scale
from memsvc.policy.smoothing import CentredMean, Float64Array
from memsvc.policy.threshold import ThresholdPolicy

Z_MAX = 8.0
# A signal that varied less than this so far has no say yet.
_DEVIATION_MIN = 1e-6


class HybridPolicy(ThresholdPolicy):
    """Bookmarks the share `coverage` of the tokens with the highest weighted mean.

    Args:
        parts: Signal of each part and its weight above 0, in the order in which they are summed.
        signals: Those that the client sends.
        measures: Those that make the others.
    """

    def __init__(
        self,
        coverage: float,
        parts: Sequence[tuple[str, float]],
        signals: tuple[str, ...],
        measures: tuple[Measure, ...],
    ) -> None:
        super().__init__("hybrid", Scale.between(-Z_MAX, Z_MAX), coverage, CentredMean())
        self.signals, self.measures = signals, measures
        total = sum(weight for _, weight in parts)
        self._names = [name for name, _ in parts]
        self._weights = [weight / total for _, weight in parts]
        self._standard = RunningStandard(len(parts))

    def _scores(self, signals: Signals, count: int) -> Float64Array:
        # All are looked at before any is fed: a missing one must change nothing.
        values = np.array([signal_of(signals, name, count) for name in self._names], dtype=np.float64)
        scores = np.zeros(count)
        for weight, standard in zip(self._weights, self._standard.of(values), strict=True):
            scores += weight * standard
        return scores


class RunningStandard:
    """Standardises values by the mean and deviation of all that came before each, each signal by itself.

    Args:
        signals: How many there are.
    """

    def __init__(self, signals: int) -> None:
        self._count = 0
        # Sums of values, then of their squares, of each signal.
        self._sums = np.zeros((2 * signals, 1))

    def of(self, values: Float64Array) -> Float64Array:
        """Deviations of each value from the mean so far, [signals, n] likewise, within Z_MAX; 0 while none varied."""
        # cumsum adds one value after the other: the split into calls cannot show.
        added = np.concatenate([values, values * values])
        sums = np.cumsum(np.concatenate([self._sums, added], axis=1), axis=1)
        counts = np.maximum(1, self._count + np.arange(values.shape[1]))
        means, squares = (sums[:, :-1] / counts).reshape(2, *values.shape)
        deviation = np.sqrt(np.maximum(0.0, squares - means * means))
        varied = deviation > _DEVIATION_MIN
        standard = np.where(varied, (values - means) / np.where(varied, deviation, 1.0), 0.0)
        self._count += values.shape[1]
        self._sums = sums[:, -1:]
        return np.clip(standard, -Z_MAX, Z_MAX)
