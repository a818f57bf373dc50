"""Tokens far from where the text has been are bookmarks: the distance to a running mean of the recent embeddings.

The score is one minus the cosine between a token's vector and the sum of the MEAN_TOKENS vectors before it in the same
gapless run, averaged over five tokens; 1 where nothing comes before. The mean moves with the text: what leaves the
passage's usual region stands out, whether or not it was ever met earlier.
"""

import numpy as np

from memsvc.policy.offer import Float32Array, Needs, Offer
from memsvc.policy.quantile import Scale
from memsvc.policy.recent import RecentVectors, cosines
from memsvc.policy.threshold import MeasuredPolicy

SIGNAL = "distance"
# Recent tokens that make the mean: about a block.
MEAN_TOKENS = 64


class DistanceMeasure:
    """One minus the cosine to the mean of the recent vectors, in [0, 2]."""

    signal = SIGNAL
    needs = Needs(vectors=True, vectors_back=MEAN_TOKENS)

    def __init__(self) -> None:
        self._recent = RecentVectors(MEAN_TOKENS)

    def measure(self, offer: Offer) -> Float32Array:
        """Of each token to those before it."""
        sums = self._recent.push(offer.vectors)
        ends = np.arange(len(sums) - 1 - offer.count, len(sums) - 1)
        means = sums[ends] - sums[np.maximum(0, ends - MEAN_TOKENS)]
        return (1 - cosines(offer.vectors.astype(np.float64), means)).astype(np.float32)

    def recollect(self, offer: Offer) -> None:
        """Takes in the newest vectors."""
        self._recent.push(offer.vectors)

    def skip(self) -> None:
        """Begins a new mean."""
        self._recent.clear()


class DistancePolicy(MeasuredPolicy):
    """Bookmarks the share `coverage` of the tokens that lie farthest from the recent mean."""

    def __init__(self, coverage: float) -> None:
        super().__init__(DistanceMeasure(), Scale.between(0.0, 2.0), coverage)
