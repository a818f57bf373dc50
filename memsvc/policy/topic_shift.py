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
from memsvc.policy.quantile import Scale
from memsvc.policy.recent import RecentWindows, cosines
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
        self._recent = RecentWindows(WINDOW_TOKENS, WINDOW_TOKENS * EARLIER_WINDOWS)

    def measure(self, offer: Offer) -> Float32Array:
        """Of the window that ends with each token."""
        # Tokens of the run up to and with each.
        known = self._recent.count + np.arange(1, offer.count + 1)
        windows = self._recent.push(offer.vectors)
        newest = len(windows.lengths) - offer.count
        current, nearest = windows[newest:], np.full(offer.count, -1.0)
        for back in range(1, EARLIER_WINDOWS + 1):
            start = newest - WINDOW_TOKENS * back
            similarity = cosines(current, windows[start : start + offer.count])
            whole = known >= WINDOW_TOKENS * (back + 1)
            nearest = np.where(whole, np.maximum(nearest, similarity), nearest)
        return np.where(known >= 2 * WINDOW_TOKENS, 1 - nearest, 0.0).astype(np.float32)

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
