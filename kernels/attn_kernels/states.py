"""Merging attention states: softmax over a union of key sets from the softmax over each."""

from collections.abc import Sequence

import torch

from attn_kernels.errors import UnsupportedShape
from attn_kernels.records import AttentionState


def merge(states: Sequence[AttentionState]) -> AttentionState:
    """Attention over all keys of `states`, which must share no key; associative and commutative up to rounding.

    Raises:
        UnsupportedShape: No state, or states of different sizes.

    Numerics: weights and sums in float32 (float64 for states of that dtype), rounded once to the states' dtype.
    Source: attention states as in flashinfer's recursive attention.
    """
    if not states:
        raise UnsupportedShape("states: expected at least one, got none")
    shapes = {tuple(state.out.shape) for state in states}
    if len(shapes) > 1:
        raise UnsupportedShape(f"states: expected outputs of one shape, got {sorted(shapes)}")
    lse = torch.stack([state.lse for state in states])
    total = torch.logsumexp(lse, dim=0)
    # Where no state has seen a key, total is -inf and every weight has to be 0, not exp(-inf + inf).
    weight = torch.exp(lse - torch.where(total == -torch.inf, 0.0, total))
    out = sum(w.unsqueeze(-1) * state.out.to(w.dtype) for w, state in zip(weight, states, strict=True))
    assert isinstance(out, torch.Tensor)
    return AttentionState(out.to(states[0].out.dtype), total)
