"""What the policies with a coverage share: a score a token, smoothed, against a threshold that follows the stream.

A token whose score lies above the threshold is a bookmark. A block whose 64 tokens gave none gets its best token, when
its last one is decided. The threshold is one for the whole stream: a quota a block keeps recall badly (design study).

Each token moves the threshold that the next one meets. Where a log says which were above it, many tokens are checked at
once; those that it is wrong about are decided one by one.
"""

import numpy as np

from memsvc.geometry import BLOCK_TOKENS
from memsvc.policy.base import Decision, Int64Array, Signals, signal_of
from memsvc.policy.offer import Measure
from memsvc.policy.quantile import BoolArray, HeldQuantile, Scale
from memsvc.policy.smoothing import CentredMean, Float64Array, Smoother


class ThresholdPolicy:
    """Bookmarks the tokens with the highest scores, and the best of any block that got none.

    Args:
        signal: Name of the score; other policies replace `_scores`.
        scale: Where scores lie on the histogram.
        coverage: Share of the tokens, from COVERAGE_MIN to 1, forced bookmarks included.
        smoother: Applied to the scores first.
    """

    signals: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()

    def __init__(self, signal: str, scale: Scale, coverage: float, smoother: Smoother) -> None:
        self._signal, self._scale, self._smoother = signal, scale, smoother
        self._threshold = HeldQuantile(coverage)
        # Next position to be fed, and to be decided.
        self._next = 0
        self._position = 0
        # Highest score of the current block; None once the block needs no forced bookmark.
        self._best: Decision | None = None

    def decide(
        self, first_position: int, count: int, signals: Signals, logged: Int64Array | None = None
    ) -> list[Decision]:
        """Feeds the score's signal; settles the tokens up to two before the last one fed, if smoothed, or all."""
        assert first_position == self._next, f"expected position {self._next}, got {first_position}"
        scores = self._scores(signals, count)
        self._next += count
        settled = self._smoother.push(scores)
        return self._settle(settled) if logged is None else self._settle_as(settled, logged)

    def skip(self, position: int) -> list[Decision]:
        """Settles what waits before the gap with what is there, then starts a new run at `position`."""
        decisions = self._settle(self._smoother.flush())
        self._next = self._position = position
        self._best = None
        return decisions

    def _scores(self, signals: Signals, count: int) -> Float64Array:
        return signal_of(signals, self._signal, count).astype(float)

    def _settle(self, scores: Float64Array) -> list[Decision]:
        decisions: list[Decision] = []
        threshold = self._threshold
        for score, bin_index in zip(scores.tolist(), self._scale.bins(scores).tolist(), strict=True):
            offset = self._position % BLOCK_TOKENS
            taken = threshold.takes(bin_index)
            if taken:
                decisions.append(Decision(self._position, score, forced=False))
                self._best = None
            elif offset == 0 or (self._best is not None and score > self._best.signal):
                self._best = Decision(self._position, score, forced=True)
            threshold.count(bin_index, taken=taken)
            if offset == BLOCK_TOKENS - 1 and self._best is not None:
                decisions.append(self._best)
                threshold.count_forced()
            self._position += 1
        return decisions

    def _settle_as(self, scores: Float64Array, logged: Int64Array) -> list[Decision]:
        """As `_settle`, told which tokens were above the threshold."""
        decisions: list[Decision] = []
        start = 0
        while start < len(scores):
            steady = self._threshold.steady
            own = scores[start : start + max(1, steady)]
            agreed = self._agreed(own, logged) if steady else None
            decisions += self._settle(own) if agreed is None else agreed
            start += len(own)
        return decisions

    def _agreed(self, scores: Float64Array, logged: Int64Array) -> list[Decision] | None:
        """What these tokens settle if the log is right about them; None, and nothing is settled, if it is not."""
        first, count = self._position, len(scores)
        taken = np.zeros(count, dtype=np.bool_)
        taken[logged[(logged >= first) & (logged < first + count)] - first] = True
        best, forced = self._forced(scores, taken)
        ends = np.zeros(count, dtype=np.bool_)
        ends[[decision.position // BLOCK_TOKENS * BLOCK_TOKENS + BLOCK_TOKENS - 1 - first for decision in forced]] = (
            True
        )
        if not self._threshold.count_as(self._scale.bins(scores), taken, ends):
            return None
        self._best = best
        self._position += count
        above = zip((first + np.flatnonzero(taken)).tolist(), scores[taken].tolist(), strict=True)
        decisions = forced + [Decision(position, score, forced=False) for position, score in above]
        return sorted(decisions, key=lambda decision: decision.position) if forced else decisions

    def _forced(self, scores: Float64Array, taken: BoolArray) -> tuple[Decision | None, list[Decision]]:
        """What `_best` is after these tokens, and what their blocks force."""
        best, forced = self._best, []
        first, end = self._position, self._position + len(scores)
        for begin in range(first - first % BLOCK_TOKENS, end, BLOCK_TOKENS):
            start = max(first, begin)
            own = slice(start - first, begin + BLOCK_TOKENS - first)
            if taken[own].any() or (start > begin and best is None):
                best = None
                continue
            place = int(scores[own].argmax())
            if start == begin or best is None or scores[own][place] > best.signal:
                best = Decision(start + place, float(scores[own][place]), forced=True)
            if begin + BLOCK_TOKENS <= end:
                forced.append(best)
        return best, forced


class MeasuredPolicy(ThresholdPolicy):
    """A threshold policy whose score is one measure.

    Args:
        coverage: Share of the tokens, from COVERAGE_MIN to 1.
        smoothed: Whether neighbouring tokens' scores are averaged.
    """

    def __init__(self, measure: Measure, scale: Scale, coverage: float, *, smoothed: bool = True) -> None:
        smoother = CentredMean() if smoothed else Smoother()
        super().__init__(measure.signal, scale, coverage, smoother)
        self.measures = (measure,)
