"""Tokens far from where the text has been are bookmarks: the distance to a running mean of the recent embeddings.

The score is one minus the cosine between a token's vector and the sum of the MEAN_TOKENS vectors before it in the same
gapless run, averaged over five tokens; 1 where nothing comes before. The mean moves with the text: what leaves the
passage's usual region stands out, whether or not it was ever met earlier.
"""

import numpy as np

from memsvc.policy.offer import Float32Array, Needs, Offer
from memsvc.policy.quantile import Scale
from memsvc.policy.recent import RecentWindows, cosines, windows_of
from memsvc.policy.threshold import MeasuredPolicy

SIGNAL = "distance"
# Recent tokens that make the mean: about a block.
MEAN_TOKENS = 64


class DistanceMeasure:
    """One minus the cosine to the mean of the recent vectors, in [0, 2]."""

    signal = SIGNAL
    needs = Needs(vectors=True, vectors_back=MEAN_TOKENS)

    def __init__(self) -> None:
        self._means = RecentWindows(MEAN_TOKENS, held=1)

    def measure(self, offer: Offer) -> Float32Array:
        """Of each token to those before it."""
        means = self._means.push(offer.vectors)[:-1]
        return (1 - cosines(windows_of(offer.vectors), means)).astype(np.float32)

    def recollect(self, offer: Offer) -> None:
        """Takes in the newest vectors."""
        self._means.push(offer.vectors)

    def skip(self) -> None:
        """Begins a new mean."""
        self._means.clear()


class DistancePolicy(MeasuredPolicy):
    """Bookmarks the share `coverage` of the tokens that lie farthest from the recent mean."""

    def __init__(self, coverage: float) -> None:
        super().__init__(DistanceMeasure(), Scale.between(0.0, 2.0), coverage)
