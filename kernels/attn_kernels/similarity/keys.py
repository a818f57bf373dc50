"""A hit as one integer, so that sorting keys is the order of hits, ties included: torch's half of it.

    key = ordered bits of the float32 score * 2 ** 32 + index        (index below 2 ** 31)

Invariant: a larger key is a better hit: the larger score, of equal ones the newer bookmark.
"""

import torch
from torch import Tensor

# Key of no hit: below every other.
NOTHING = -(2**63)
_INDEX_BITS = 32


def packed(scores: Tensor, index: Tensor) -> Tensor:
    """Keys, int64, of float32 scores and int64 indices of shapes that broadcast."""
    # -0.0 and 0.0 are equal scores: the sum has one of them only.
    ordered = _flipped((scores + 0.0).view(torch.int32))
    return (ordered.to(torch.int64) << _INDEX_BITS) | index


def index_of(keys: Tensor) -> Tensor:
    """Index of each key, int64; -1 for NOTHING."""
    return torch.where(keys == NOTHING, -1, keys & (2**_INDEX_BITS - 1))


def score_of(keys: Tensor) -> Tensor:
    """Score of each key, float32; minus infinity for NOTHING."""
    scores = _flipped((keys >> _INDEX_BITS).to(torch.int32)).view(torch.float32)
    return torch.where(keys == NOTHING, -torch.inf, scores)


def _flipped(bits: Tensor) -> Tensor:
    """Bits of a float32 as an integer of the same order, and back: it is its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
