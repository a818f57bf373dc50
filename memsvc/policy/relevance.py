"""Tokens that continue a topic are bookmarks: the best earlier match lies above a running threshold.

This is the original rule of bookmark creation. The score is the similarity to the bookmark that the token resembles
most among the earlier ones (`memsvc.policy.earlier`), 0 if there is none, averaged over five tokens. What is met for
the first time scores low: such a block is left to its forced bookmark. `novelty` is the opposite.
"""

from memsvc.policy.offer import Float32Array, Needs, Offer
from memsvc.policy.quantile import Scale
from memsvc.policy.threshold import MeasuredPolicy

SIGNAL = "relevance"


class RelevanceMeasure:
    """Similarity to the best earlier bookmark, in [-1, 1]."""

    signal = SIGNAL
    needs = Needs(vectors=True, earlier=True)

    def measure(self, offer: Offer) -> Float32Array:
        """As the offer has it."""
        return offer.best_earlier()

    def recollect(self, offer: Offer) -> None:
        """Nothing: bookmarks are remembered where they are settled."""

    def skip(self) -> None:
        """Nothing: bookmarks before a gap stay where they are."""


class RelevancePolicy(MeasuredPolicy):
    """Bookmarks the share `coverage` of the tokens that resemble something earlier most."""

    def __init__(self, coverage: float) -> None:
        super().__init__(RelevanceMeasure(), Scale.between(-1.0, 1.0), coverage)
