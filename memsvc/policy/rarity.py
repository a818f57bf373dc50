"""Tokens with rare ids are bookmarks: how seldom the id has come up in this session so far.

The score is log2((tokens before + 1) / (times the id came before + 1)) in bits, averaged over five tokens: ids of all
earlier tokens count, across gaps too. It needs no model, and no vectors; a step without ids is refused.

Measured (design study, 131,072 tokens, numbers, a rarity of this kind at 20 %): rank 1 / top 16 of 0.67 / 1.00, against
0.94 / 1.00 of surprisal at 10 %.
"""

import numpy as np

from memsvc.policy.offer import Float32Array, Needs, Offer
from memsvc.policy.quantile import Scale
from memsvc.policy.threshold import MeasuredPolicy

SIGNAL = "rarity"
BITS_MAX = 32.0


class RarityMeasure:
    """Bits that say how seldom a token's id came before."""

    signal = SIGNAL
    needs = Needs(ids=True)

    def __init__(self) -> None:
        self._times: dict[int, int] = {}
        self._tokens = 0

    def measure(self, offer: Offer) -> Float32Array:
        """Of each token among those before it."""
        bits: Float32Array = np.log2(np.array(self._count(offer), dtype=np.float64)).astype(np.float32)
        return bits

    def recollect(self, offer: Offer) -> None:
        """Counts the ids."""
        self._count(offer)

    def skip(self) -> None:
        """Nothing: what was counted stays."""

    def _count(self, offer: Offer) -> list[float]:
        times, shares = self._times, []
        for token in offer.ids.tolist():
            before = times.get(token, 0)
            shares.append((self._tokens + 1) / (before + 1))
            times[token] = before + 1
            self._tokens += 1
        return shares


class RarityPolicy(MeasuredPolicy):
    """Bookmarks the share `coverage` of the tokens with the rarest ids."""

    def __init__(self, coverage: float) -> None:
        super().__init__(RarityMeasure(), Scale.between(0.0, BITS_MAX), coverage)
