"""Tokens that resemble nothing earlier are bookmarks: the best earlier match lies below a running threshold.

The score is one minus the similarity to the bookmark that the token resembles most among the earlier ones
(`memsvc.policy.earlier`), averaged over five tokens. The first tokens of a session score 1. `relevance` is the
opposite.
"""

from memsvc.policy.offer import Float32Array, Needs, Offer
from memsvc.policy.quantile import Scale
from memsvc.policy.threshold import MeasuredPolicy

SIGNAL = "novelty"


class NoveltyMeasure:
    """One minus the similarity to the best earlier bookmark, in [0, 2]."""

    signal = SIGNAL
    needs = Needs(vectors=True, earlier=True)

    def measure(self, offer: Offer) -> Float32Array:
        """The opposite of what the offer has."""
        return 1 - offer.best_earlier()

    def recollect(self, offer: Offer) -> None:
        """Nothing: bookmarks are remembered where they are settled."""

    def skip(self) -> None:
        """Nothing: bookmarks before a gap stay where they are."""


class NoveltyPolicy(MeasuredPolicy):
    """Bookmarks the share `coverage` of the tokens that resemble anything earlier least."""

    def __init__(self, coverage: float) -> None:
        super().__init__(NoveltyMeasure(), Scale.between(0.0, 2.0), coverage)
