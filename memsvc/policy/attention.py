"""Tokens that draw attention are bookmarks: spikes of the attention mass that the client reports.

The client sends "attention_mass", the attention that each token receives within the window, in any unit of its own
(what it sums over heads and layers is up to it), negative counting as 0. The score is log2 of the mass over the mean
mass of the MEAN_TOKENS tokens before it in the same gapless run: a spike is what stands out from its surroundings, so
neither the unit nor a slow drift shows. 0 where nothing comes before. Not smoothed: a spike is one token.
"""

import numpy as np
import numpy.typing as npt

from memsvc.policy.base import signal_of
from memsvc.policy.offer import Float32Array, Needs, Offer
from memsvc.policy.quantile import Scale
from memsvc.policy.threshold import MeasuredPolicy

MASS_SIGNAL = "attention_mass"
SIGNAL = "attention"
MEAN_TOKENS = 64
OCTAVES_MAX = 16.0
# Added to both sides of the ratio, so that no mass at all has one.
_MASS_MIN = 2.0**-20


class AttentionMeasure:
    """Octaves by which a token's attention mass exceeds that of its recent surroundings."""

    signal = SIGNAL
    needs = Needs()

    def __init__(self) -> None:
        self._recent = np.empty(0, dtype=np.float64)

    def measure(self, offer: Offer) -> Float32Array:
        """Of each token against those before it."""
        before, masses = len(self._recent), self._push(offer)
        # The absent ones before a run weigh nothing; each sum has the same order whatever the split.
        padded = np.concatenate([np.zeros(MEAN_TOKENS), masses])
        sums = np.zeros(offer.count)
        for back in range(MEAN_TOKENS, 0, -1):
            sums += padded[MEAN_TOKENS + before - back : MEAN_TOKENS + before - back + offer.count]
        counts = np.minimum(MEAN_TOKENS, before + np.arange(offer.count))
        means = sums / np.maximum(counts, 1)
        octaves = np.log2((masses[before:] + _MASS_MIN) / (means + _MASS_MIN))
        return np.where(counts > 0, octaves, 0.0).astype(np.float32)

    def recollect(self, offer: Offer) -> None:
        """Takes in the newest masses."""
        self._push(offer)

    def skip(self) -> None:
        """Begins new surroundings."""
        self._recent = np.empty(0, dtype=np.float64)

    def _push(self, offer: Offer) -> npt.NDArray[np.float64]:
        own = np.maximum(signal_of(offer.signals, MASS_SIGNAL, offer.count).astype(np.float64), 0.0)
        masses = np.concatenate([self._recent, own])
        self._recent = masses[max(0, len(masses) - MEAN_TOKENS) :]
        return masses


class AttentionPolicy(MeasuredPolicy):
    """Bookmarks the share `coverage` of the tokens whose attention mass spikes most."""

    signals = (MASS_SIGNAL,)

    def __init__(self, coverage: float) -> None:
        super().__init__(AttentionMeasure(), Scale.between(-OCTAVES_MAX, OCTAVES_MAX), coverage, smoothed=False)
