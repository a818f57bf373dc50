"""Tokens where the topic changes are bookmarks: the newest window resembles none of the recent ones.

    tokens up to t   | 16 | 16 | 16 | 16 | 16 | 16 | 16 |   16    |
                       earlier windows: one cluster each   current

The score is one minus the largest cosine between the sum of the current window's vectors and that of an earlier one, so
coming back to a topic of a moment ago is no change. It peaks when the current window lies wholly in the new topic, up
to 16 tokens after the change. Windows are averages already: nothing more is smoothed. The first 31 tokens of a gapless
run score 0, since they have nothing to change from.
"""

import numpy as np

from memsvc.policy.offer import Float32Array, Needs, Offer
from memsvc.policy.quantile import Int64Array, Scale
from memsvc.policy.recent import Float64Array, RecentVectors, cosines
from memsvc.policy.threshold import MeasuredPolicy

SIGNAL = "topic_shift"
WINDOW_TOKENS = 16
EARLIER_WINDOWS = 7
# Vectors before a token that its windows reach back to.
_BACK_TOKENS = WINDOW_TOKENS * (EARLIER_WINDOWS + 1) - 1


class TopicShiftMeasure:
    """One minus the cosine between the current window and the nearest of the recent ones, in [0, 2]."""

    signal = SIGNAL
    needs = Needs(vectors=True, vectors_back=_BACK_TOKENS)

    def __init__(self) -> None:
        self._recent = RecentVectors(_BACK_TOKENS)

    def measure(self, offer: Offer) -> Float32Array:
        """Of the window that ends with each token."""
        sums = self._recent.push(offer.vectors)
        # Vectors up to and with each token, and the same a window earlier, and so on.
        ends = np.arange(len(sums) - offer.count, len(sums)) - WINDOW_TOKENS * np.arange(EARLIER_WINDOWS + 2)[:, None]
        nearest = np.full(offer.count, -1.0)
        current = _between(sums, ends[1], ends[0])
        for start, end in zip(ends[2:], ends[1:-1], strict=True):
            similarity = cosines(current, _between(sums, start, end))
            nearest = np.where(start >= 0, np.maximum(nearest, similarity), nearest)
        return np.where(ends[2] >= 0, 1 - nearest, 0.0).astype(np.float32)

    def recollect(self, offer: Offer) -> None:
        """Takes in the newest vectors."""
        self._recent.push(offer.vectors)

    def skip(self) -> None:
        """Begins new windows."""
        self._recent.clear()


class TopicShiftPolicy(MeasuredPolicy):
    """Bookmarks the share `coverage` of the tokens whose recent past changed most."""

    def __init__(self, coverage: float) -> None:
        super().__init__(TopicShiftMeasure(), Scale.between(0.0, 2.0), coverage, smoothed=False)


def _between(sums: Float64Array, starts: Int64Array, ends: Int64Array) -> Float64Array:
    """Sums of the vectors from each start to its end, [n, dims]; of no meaning where a start is negative."""
    window: Float64Array = sums[np.maximum(0, ends)] - sums[np.maximum(0, starts)]
    return window
