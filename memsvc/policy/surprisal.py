"""Surprising tokens are bookmarks: smoothed surprisal above one running quantile of all that came before.

Smoothing is the mean over five tokens centred at the one decided, so decisions lag two tokens; at either end of a
gapless run it is the mean of those that exist. The threshold is the (1 - coverage) quantile of the smoothed values
before the token, off a histogram of 1024 bins over 0 to 32 nats: the lower edge of the lowest bin with at most the
share `coverage` of the values in it or above. A token in that bin or above is a bookmark. Counts are integers and every
sum has a fixed order: the split into steps cannot show.

Measured (design study, 131,072 tokens): keeps recall at 10 % of the tokens; a quota per block or a stride does not.
"""

import numpy as np
import numpy.typing as npt

from memsvc.geometry import BLOCK_TOKENS
from memsvc.policy.base import SMOOTHING_DELAY_TOKENS, Decision, Signals, signal_of

SIGNAL = "surprisal"
# Tokens on each side of the one decided, and with it.
_SPAN_TOKENS = 2 * SMOOTHING_DELAY_TOKENS + 1
# Tokens at the start of a stream that fill the histogram only: fewer make no quantile.
_WARMUP_TOKENS = 64
_BINS = 1024
_BINS_PER_NAT = 32

_Values = npt.NDArray[np.float64]


class SurprisalPolicy:
    """Bookmarks the share `coverage` of the tokens that surprised most, plus the best of any block that got none."""

    signals: tuple[str, ...] = (SIGNAL,)

    def __init__(self, coverage: float) -> None:
        self._threshold = RunningQuantile(coverage)
        self._smoother = CentredMean()
        # Next position to be fed, and to be decided.
        self._next = 0
        self._position = 0
        # Most surprising token of the current block; None once the block needs no forced bookmark.
        self._best: Decision | None = None

    def decide(self, first_position: int, count: int, signals: Signals) -> list[Decision]:
        """Feeds surprisal in nats; settles the tokens up to two before the last one fed."""
        assert first_position == self._next, f"expected position {self._next}, got {first_position}"
        surprisal = signal_of(signals, SIGNAL, count)
        self._next += count
        return self._settle(self._smoother.push(surprisal))

    def skip(self, position: int) -> list[Decision]:
        """Settles the last two tokens before the gap with what is there, then starts a new run at `position`."""
        decisions = self._settle(self._smoother.flush())
        self._next = self._position = position
        self._best = None
        return decisions

    def _settle(self, smoothed: _Values) -> list[Decision]:
        bins = np.clip(smoothed * _BINS_PER_NAT, 0, _BINS - 1).astype(np.int64)
        decisions: list[Decision] = []
        for signal, bin_index in zip(smoothed.tolist(), bins.tolist(), strict=True):
            offset = self._position % BLOCK_TOKENS
            if self._threshold.exceeded_by(bin_index):
                decisions.append(Decision(self._position, signal, forced=False))
                self._best = None
            elif offset == 0 or (self._best is not None and signal > self._best.signal):
                self._best = Decision(self._position, signal, forced=True)
            if offset == BLOCK_TOKENS - 1 and self._best is not None:
                decisions.append(self._best)
            self._threshold.count(bin_index)
            self._position += 1
        return decisions


class RunningQuantile:
    """Histogram of all values so far, and the bin at and above which at most `coverage` of them lie."""

    def __init__(self, coverage: float) -> None:
        self._coverage = coverage
        self._histogram = [0] * _BINS
        self._total = 0
        # Lowest bin with at most coverage * total values in it or above, and how many those are.
        self._cut = 0
        self._above = 0

    def exceeded_by(self, bin_index: int) -> bool:
        """Whether a value in this bin lies above the quantile of those counted so far; never during warm-up."""
        return self._total >= _WARMUP_TOKENS and bin_index >= self._cut

    def count(self, bin_index: int) -> None:
        """Adds one value; the cut moves by as many bins as that takes, mostly none or one."""
        histogram = self._histogram
        histogram[bin_index] += 1
        self._total += 1
        self._above += bin_index >= self._cut
        above_max = self._coverage * self._total
        while self._above > above_max:
            self._above -= histogram[self._cut]
            self._cut += 1
        while self._cut > 0 and self._above + histogram[self._cut - 1] <= above_max:
            self._cut -= 1
            self._above += histogram[self._cut]


class CentredMean:
    """Means of five neighbouring values, two before and two after, over gapless runs."""

    def __init__(self) -> None:
        # Row 0: values, row 1: 1 where one exists. Two absent ones stand before a run, the last four wait for the next.
        self._held = np.zeros((2, SMOOTHING_DELAY_TOKENS), dtype=np.float64)

    def push(self, values: npt.NDArray[np.float32]) -> _Values:
        """Adds [n] values; returns the means that they complete, in order."""
        return self._extend(np.stack([values.astype(np.float64), np.ones(len(values))]))

    def flush(self) -> _Values:
        """Ends the run: the means still waiting, over the values that exist. The next push begins another."""
        means = self._extend(np.zeros((2, SMOOTHING_DELAY_TOKENS), dtype=np.float64))
        self._held = np.zeros((2, SMOOTHING_DELAY_TOKENS), dtype=np.float64)
        return means

    def _extend(self, fed: _Values) -> _Values:
        held = np.concatenate([self._held, fed], axis=1)
        complete = max(0, held.shape[1] - _SPAN_TOKENS + 1)
        sums = held[:, :complete].copy()
        for shift in range(1, _SPAN_TOKENS):
            sums += held[:, shift : shift + complete]
        self._held = held[:, complete:]
        means: _Values = sums[0] / sums[1]
        return means
