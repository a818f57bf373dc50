"""Thresholds that follow a stream of values: a causal quantile off a histogram, and one that also holds a coverage.

Values are given as bins: see `Scale`. Counts are integers, and a threshold changes by one value after the other: how
values were split into calls cannot show.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 1024
# Values at the start of a stream that fill the histogram only: fewer make no quantile.
WARMUP_TOKENS = 64
# Tokens over which `HeldQuantile` pays back what it is ahead or behind. A short span would be a quota a passage, and a
# quota keeps recall badly (design study). At the start of a stream, where the quantile is least sure, it is as long as
# the stream so far, from the second number on.
PAYBACK_TOKENS = 4096
_PAYBACK_TOKENS_MIN = 256

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values lie on the histogram: bin 0 begins at `low`, values outside fall into the first or last bin."""

    low: float
    bins_per_unit: float

    @classmethod
    def between(cls, low: float, high: float) -> "Scale":
        """All bins from low to high."""
        return cls(low, BINS / (high - low))

    def bins(self, values: Float64Array) -> Int64Array:
        """Bin of each value, [n] to [n]."""
        return np.clip((values - self.low) * self.bins_per_unit, 0, BINS - 1).astype(np.int64)


class RunningQuantile:
    """Histogram of all values so far, and the bin at and above which at most `coverage` of them lie."""

    def __init__(self, coverage: float) -> None:
        self.coverage = coverage
        self._histogram = [0] * BINS
        self.total = 0
        # Lowest bin with at most the share asked for of the values in it or above, and how many those are.
        self._cut = 0
        self._above = 0

    def reached_by(self, bin_index: int) -> bool:
        """Whether a value in this bin lies above the quantile of those counted so far."""
        return bin_index >= self._cut

    def add(self, bin_index: int) -> None:
        """Adds one value to the histogram and leaves the cut where it is."""
        self._histogram[bin_index] += 1
        self.total += 1
        self._above += bin_index >= self._cut

    def move_cut(self, above_max: float) -> None:
        """Moves the cut to the lowest bin with at most so many values in it or above."""
        histogram = self._histogram
        while self._above > above_max:
            self._above -= histogram[self._cut]
            self._cut += 1
        while self._cut > 0 and self._above + histogram[self._cut - 1] <= above_max:
            self._cut -= 1
            self._above += histogram[self._cut]

    def halve(self) -> None:
        """Halves every count, rounding down: what comes weighs twice as much as what came."""
        self._histogram = [count // 2 for count in self._histogram]
        self.total = sum(self._histogram)
        self._above = sum(self._histogram[self._cut :])

    def edge_share(self, bin_index: int, above_max: float) -> float:
        """Share of this bin that has room among the `above_max` best: not 0 in the first bin below the cut only."""
        if bin_index != self._cut - 1:
            return 0.0
        return (above_max - self._above) / self._histogram[bin_index]


class HeldQuantile:
    """A running quantile that holds the share of what is taken, forced values included, at `coverage`.

    Three things would carry it off. The beginning may be unlike the rest, above all for what is compared with a past
    that is still short: whenever a quarter more values have come, those before count half. Values may drift: what is
    ahead or behind is paid back over PAYBACK_TOKENS by asking for a smaller or larger share, and the share that was
    forced so far is not asked for. Many values may share a bin: of the bin that the quantile falls into, as many are
    taken as there is room for.
    """

    def __init__(self, coverage: float) -> None:
        self._quantile = RunningQuantile(coverage)
        self._counted = 0
        self._halving = 2 * WARMUP_TOKENS
        self._taken = 0
        self._forced = 0
        self._above_max = 0.0
        # What the values in the quantile's bin have saved up: one is taken whenever this reaches one.
        self._saved = 0.0

    def takes(self, bin_index: int) -> bool:
        """Whether this value is above the threshold; the one after it in the same bin may not be."""
        if self._counted < WARMUP_TOKENS:
            return self._quantile.coverage >= 1
        if self._quantile.reached_by(bin_index):
            return True
        self._saved += self._quantile.edge_share(bin_index, self._above_max)
        taken = self._saved >= 1
        self._saved -= taken
        return taken

    def count(self, bin_index: int, *, taken: bool) -> None:
        """Adds one value, and what was made of it."""
        self._taken += taken
        self._counted += 1
        self._quantile.add(bin_index)
        if self._counted == self._halving:
            self._quantile.halve()
            self._halving += self._halving // 4
        self._move()

    def count_forced(self) -> None:
        """Counts a forced one among those taken, so that blocks do not raise a small coverage."""
        self._taken += 1
        self._forced += 1
        self._move()

    def _move(self) -> None:
        coverage, counted = self._quantile.coverage, self._counted
        # What blocks force is not the threshold's to give. Paying it back alone would leave a standing debt.
        share = coverage - self._forced / counted
        share += (coverage * counted - self._taken) / min(PAYBACK_TOKENS, max(_PAYBACK_TOKENS_MIN, counted))
        self._above_max = min(1.0, max(0.0, share)) * self._quantile.total
        self._quantile.move_cut(self._above_max)
