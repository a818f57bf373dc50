"""Thresholds that follow a stream of values: a causal quantile off a histogram, and one that also holds a coverage.

Values are given as bins: see `Scale`. Counts are integers, and a threshold changes by one value after the other: how
values were split into calls cannot show. Where a log says which values were taken, many are checked against it and
counted at once, and the threshold is the same afterwards.
"""

from array import array
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
# Values of a log that are looked at with one and the same histogram; those that came after it are counted apart.
_LOOKED_AT = 1024

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


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
        # Not numpy's own: single counts are read and written far faster here.
        self._histogram = array("q", bytes(8 * BINS))
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
        self._histogram = array("q", [count // 2 for count in self._histogram])
        self.total = sum(self._histogram)
        self._above = sum(self._histogram[self._cut :])

    def edge_share(self, bin_index: int, above_max: float) -> float:
        """Share of this bin that has room among the `above_max` best: not 0 in the first bin below the cut only."""
        if bin_index != self._cut - 1:
            return 0.0
        return (above_max - self._above) / self._histogram[bin_index]

    def against(self, bins: Int64Array, above_max: Float64Array) -> tuple[BoolArray, Int64Array, Float64Array]:
        """What `reached_by` and `edge_share` would say of the next values, each added after it was asked about.

        Args:
            bins: Of the values, [n].
            above_max: That the cut is moved to before each, [n].

        Returns:
            Whether each is reached, [n]; places of those in the first bin below the cut, and their shares, [e] each.
        """
        above = np.zeros(BINS + 1, dtype=np.int64)
        above[:BINS] = _at_or_above(np.frombuffer(self._histogram, dtype=np.int64))
        reached = np.empty(len(bins), dtype=np.bool_)
        places, shares = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float64)]
        for start in range(0, len(bins), _LOOKED_AT):
            own, room = bins[start : start + _LOOKED_AT], above_max[start : start + _LOOKED_AT]
            # Those that came since the histogram decide about few: about those near the cut.
            found = above[own] + np.arange(len(own)) <= room
            near = np.flatnonzero((above[own] <= room) & ~found)
            found[near] = above[own[near]] + _earlier(own, own[near], near) <= room[near]
            reached[start : start + len(own)] = found
            below = np.flatnonzero((above[own + 1] <= room) & ~found)
            passing = above[own[below] + 1] + _earlier(own, own[below] + 1, below)
            edge = passing <= room[below]
            below, passing = below[edge], passing[edge]
            reaching = above[own[below]] + _earlier(own, own[below], below)
            places.append(start + below)
            shares.append((room[below] - passing) / (reaching - passing))
            above[:BINS] += _at_or_above(np.bincount(own, minlength=BINS))
        return reached, np.concatenate(places), np.concatenate(shares)

    def add_all(self, bins: Int64Array) -> None:
        """Adds values, [n], to the histogram and leaves the cut where it is."""
        counts = np.frombuffer(self._histogram, dtype=np.int64)
        counts += np.bincount(bins, minlength=BINS)
        self.total += len(bins)
        self._above += int(np.count_nonzero(bins >= self._cut))


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

    @property
    def steady(self) -> int:
        """How many of the next values `count_as` takes at once at most: up to the one that halves what came before."""
        return 0 if self._counted < WARMUP_TOKENS else self._halving - self._counted - 1

    def count_as(self, bins: Int64Array, taken: BoolArray, forced: BoolArray) -> bool:
        """Adds values as `count` and `count_forced` do, if `takes` says of all of them what is given; else adds none.

        Args:
            bins: Of the next values, [n], n at least 1 and at most `steady`.
            taken: Whether each was above the threshold, [n].
            forced: Whether one was forced after it, [n].

        Cost: 0.2 us a value where there are thousands, of the 2 us of `takes` and `count`.
        """
        forced_then = self._forced + np.cumsum(forced)
        taken_then = self._taken + np.cumsum(taken) + np.cumsum(forced)
        rooms = self._rooms(taken_then, forced_then)
        found, places, shares = self._quantile.against(bins, np.append(self._above_max, rooms[:-1]))
        saved = self._saved
        for place, share in zip(places.tolist(), shares.tolist(), strict=True):
            saved += share
            found[place] = saved >= 1
            saved -= saved >= 1
        if not np.array_equal(found, taken):
            return False
        self._quantile.add_all(bins)
        self._counted += len(bins)
        self._taken, self._forced = int(taken_then[-1]), int(forced_then[-1])
        self._saved, self._above_max = saved, float(rooms[-1])
        self._quantile.move_cut(self._above_max)
        return True

    def _rooms(self, taken: Int64Array, forced: Int64Array) -> Float64Array:
        """What `_move` would set `_above_max` to after each of the next values, [n], by the same operations."""
        steps = np.arange(1, len(taken) + 1)
        coverage, counted, total = self._quantile.coverage, self._counted + steps, self._quantile.total + steps
        share = coverage - forced / counted
        share += (coverage * counted - taken) / np.clip(counted, _PAYBACK_TOKENS_MIN, PAYBACK_TOKENS)
        rooms: Float64Array = np.clip(share, 0.0, 1.0) * total
        return rooms

    def _move(self) -> None:
        coverage, counted = self._quantile.coverage, self._counted
        # What blocks force is not the threshold's to give. Paying it back alone would leave a standing debt.
        share = coverage - self._forced / counted
        share += (coverage * counted - self._taken) / min(PAYBACK_TOKENS, max(_PAYBACK_TOKENS_MIN, counted))
        self._above_max = min(1.0, max(0.0, share)) * self._quantile.total
        self._quantile.move_cut(self._above_max)


def _at_or_above(counts: Int64Array) -> Int64Array:
    """Sum of each bin's count and of all above it, [BINS]."""
    sums: Int64Array = np.cumsum(counts[::-1])[::-1]
    return sums


def _earlier(bins: Int64Array, floors: Int64Array, places: Int64Array) -> Int64Array:
    """How many of the first `places` of some values lie in the bin `floors` or above it, [n] by [m] and [m] to [m]."""
    narrow = bins.astype(np.int16)
    # One by one: there are few, and counting so takes a microsecond each.
    wanted = zip(floors.tolist(), places.tolist(), strict=True)
    return np.array([np.count_nonzero(narrow[:place] >= floor) for floor, place in wanted], dtype=np.int64)
