"""Tokens that draw attention are bookmarks: spikes of the attention mass that the client reports.

The client sends "attention_mass", the attention that each token receives within the window, in any unit of its own
(what it sums over heads and layers is up to it), negative counting as 0. The score is log2 of the mass over the median
mass of the AROUND_TOKENS tokens before it in the same gapless run (of two, the lower): a spike is what stands out from
its surroundings, so neither the unit nor a slow drift shows, and other spikes around do not hide it as they would in a
mean (some tokens receive fifty times what is usual). 0 where nothing comes before. Not smoothed: a spike is one token.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from memsvc.policy.base import signal_of
from memsvc.policy.offer import Float32Array, Needs, Offer
from memsvc.policy.quantile import Float64Array, Scale
from memsvc.policy.threshold import MeasuredPolicy

MASS_SIGNAL = "attention_mass"
SIGNAL = "attention"
AROUND_TOKENS = 64
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
        around = _medians_before(masses)[before:]
        octaves = np.log2((masses[before:] + _MASS_MIN) / (around + _MASS_MIN))
        return np.where(before + np.arange(offer.count) > 0, octaves, 0.0).astype(np.float32)

    def recollect(self, offer: Offer) -> None:
        """Takes in the newest masses."""
        self._push(offer)

    def skip(self) -> None:
        """Begins new surroundings."""
        self._recent = np.empty(0, dtype=np.float64)

    def _push(self, offer: Offer) -> Float64Array:
        own = np.maximum(signal_of(offer.signals, MASS_SIGNAL, offer.count).astype(np.float64), 0.0)
        masses = np.concatenate([self._recent, own])
        self._recent = masses[max(0, len(masses) - AROUND_TOKENS) :]
        return masses


def _medians_before(masses: Float64Array) -> Float64Array:
    """Lower median of the up to AROUND_TOKENS values before each, [n] to [n]; 0 before the first."""
    medians = np.zeros(len(masses))
    for at in range(1, min(AROUND_TOKENS, len(masses))):
        medians[at] = np.sort(masses[:at])[(at - 1) // 2]
    if len(masses) > AROUND_TOKENS:
        middle = (AROUND_TOKENS - 1) // 2
        around = sliding_window_view(masses[:-1], AROUND_TOKENS)
        medians[AROUND_TOKENS:] = np.partition(around, middle, axis=1)[:, middle]
    return medians


class AttentionPolicy(MeasuredPolicy):
    """Bookmarks the share `coverage` of the tokens whose attention mass spikes most."""

    signals = (MASS_SIGNAL,)

    def __init__(self, coverage: float) -> None:
        super().__init__(AttentionMeasure(), Scale.between(-OCTAVES_MAX, OCTAVES_MAX), coverage, smoothed=False)
