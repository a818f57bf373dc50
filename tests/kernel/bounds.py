"""How far a low-precision result may be from the float64 one.

|result - float64| <= largest |eager - float64| + rounding term, element by element. `eager` rounds where the kernel
rounds (kernels/README.md); the term covers what may differ between the two, with u the dtype's and v float32's unit
roundoff:

    score e   (D + 8) v S of the dot product in another order, S >= sum |q_d k_d| scale + |alpha bias|; in half
              precision, one rotated element that falls to the other side of a tie: 2 u scale |q|max |k|max
    weight    2 u, for they are rounded relative to another maximum; 8 v of exponential and scaling
    sums      (K + 4 E) v over K keys and E rescalings
    output    2 u, the other side of a tie
    out       A (2 e + weight + sums + output), A = attention over |values|
    lse       e + sums + 8 v (1 + |lse|)
"""

from dataclasses import replace

import torch

from attn_kernels import PAGE_TOKENS, AttentionState, Pages, QuantPages, reference
from attn_kernels.quantised import dequantise
from attn_kernels.records import Request

_FLOAT32_ROUNDOFF = 2.0**-24


def assert_within_bound(state: AttentionState, made: Request) -> None:
    """Compare a state with the float64 oracle, see the module's head.

    Of quantised pages, what they stand for is taken as exact.
    """
    if isinstance(made.pages, QuantPages):
        made = replace(made, pages=dequantise(made.pages))
    exact = reference.attend(made, torch.float64)
    eager = reference.attend(made, torch.float32, rounding=made.query.dtype)
    score, lse_term = score_error(made), _sums(made) + 8 * _FLOAT32_ROUNDOFF
    u = 0.0 if made.query.dtype == torch.float32 else torch.finfo(made.query.dtype).eps / 2
    magnitudes = replace(made, pages=Pages(made.pages.keys, made.pages.values.abs()))
    allowed = reference.attend(magnitudes, torch.float64).out * (2 * score + 4 * u + lse_term)
    _assert_close(state.out.double(), exact.out, (eager.out.double() - exact.out).abs().max() + allowed)
    unseen = exact.lse == -torch.inf
    assert torch.equal(state.lse == -torch.inf, unseen)
    assert torch.equal(state.out[unseen], torch.zeros_like(state.out[unseen]))
    lse, want, plain = (x.lse.double().masked_fill(unseen, 0) for x in (state, exact, eager))
    _assert_close(lse, want, (plain - want).abs().max() + score + lse_term * (1 + want.abs()))


def _assert_close(got: torch.Tensor, want: torch.Tensor, bound: torch.Tensor) -> None:
    excess = (got - want).abs() - bound
    # Written so that NaN fails.
    assert bool((excess <= 0).all()), f"beyond the bound by {excess.max().item():.3g} of {bound.max().item():.3g}"


def score_error(made: Request) -> float:
    """How far a score may be from another computation of it that rounds at the same points."""
    query, keys = made.query.double(), made.pages.keys.double().nan_to_num(0)
    bias = made.alpha.abs().max().item() * (made.table.bias.abs().max().item() if made.table.bias.numel() else 0)
    longest = made.scale * query.norm(dim=-1).max().item() * keys.norm(dim=-1).max().item()
    error = (query.shape[-1] + 8) * _FLOAT32_ROUNDOFF * (longest + bias)
    if made.query.dtype != torch.float32:
        # Rotation may lengthen an element by up to sqrt 2.
        u = torch.finfo(made.query.dtype).eps / 2
        error += 2 * u * made.scale * 2 * query.abs().max().item() * keys.abs().max().item()
    return float(error)


def _sums(made: Request) -> float:
    entries = made.table.page.shape[1]
    return (PAGE_TOKENS + 4) * entries * _FLOAT32_ROUNDOFF
