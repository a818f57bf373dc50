"""What the policies with a coverage share: a score a token, smoothed, against a threshold that follows the stream.

A token whose score lies above the threshold is a bookmark. A block whose 64 tokens gave none gets its best token, when
its last one is decided. The threshold is one for the whole stream: a quota a block keeps recall badly (design study).
"""

from memsvc.geometry import BLOCK_TOKENS
from memsvc.policy.base import Decision, Signals, signal_of
from memsvc.policy.offer import Measure
from memsvc.policy.quantile import HeldQuantile, Scale
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

    def decide(self, first_position: int, count: int, signals: Signals) -> list[Decision]:
        """Feeds the score's signal; settles the tokens up to two before the last one fed, if smoothed, or all."""
        assert first_position == self._next, f"expected position {self._next}, got {first_position}"
        scores = self._scores(signals, count)
        self._next += count
        return self._settle(self._smoother.push(scores))

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
