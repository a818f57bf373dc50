"""How far a gradient in low precision may be from the float64 one.

|gradient - float64| <= largest |eager - float64| + rounding term, element by element, eager being autograd through the
rounding reference. The term covers what may differ between the two, with u the dtype's and v float32's unit roundoff,
over sums of magnitudes: W weights, M = W (|grad_out| . |value| + |grad_out| . |out| + |grad_lse|) for grad_score, in
which A stands for |out| (attention over |values|), and all of it in float64:

    weight    2 e of its score (tests/kernel/bounds.py), and sums
    grad      8 u: in both, four roundings that the other does not share. The kernel rounds weights, out within delta,
              grad_score and the result; eager rounds weights, their gradient, that of what was rotated and the result
    sums      (K S + 4 S + D + R) v over K keys of S entries, D elements and R rows of a head's group

    grad_value    sum over rows W |grad_out|              each times (2 e + 8 u + sums), with its own magnitudes
    grad_query    scale R'(sum over keys M |R key|)       R' the rotation back with |cos| and |sin|
    grad_key      scale R'(sum over rows M |R query|)
    grad_alpha    sum M |bias|        grad_bias    sum M |alpha|
"""

from dataclasses import replace

import torch
from torch import Tensor

from attn_kernels import AttentionState, Impl, Pages, PageTable, Rope, reference
from attn_kernels.records import PAGE_TOKENS, Request
from tests.kernel.bounds import score_error
from tests.kernel.cases import run

NAMES = ("query", "keys", "values", "alpha", "bias")
_FLOAT32_ROUNDOFF = 2.0**-24


def upstream(made: Request, seed: int = 1) -> AttentionState:
    """Gradients of a result, from a seed."""
    rng = torch.Generator().manual_seed(seed)
    device, shape = made.query.device, made.query.shape
    out = torch.randn(shape, generator=rng).to(device, made.query.dtype)
    return AttentionState(out, torch.randn(shape[:3], generator=rng).to(device))


def gradients(made: Request, given: AttentionState, impl: Impl | None) -> dict[str, Tensor]:
    """Gradients by name, of an implementation, or of the oracle in float64 when there is none."""
    leaves = [made.query, made.pages.keys, made.pages.values, made.alpha, made.table.bias]
    leaves = [leaf.detach().to(leaf.dtype if impl else torch.float64).clone().requires_grad_() for leaf in leaves]
    query, keys, values, alpha, bias = leaves
    table = replace(made.table, bias=bias)
    held = replace(made, query=query, pages=Pages(keys, values), alpha=alpha, table=table)
    state = run(held, impl) if impl else reference.attend(held, torch.float64)
    torch.autograd.backward((state.out, state.lse), (given.out.to(state.out.dtype), given.lse.to(state.lse.dtype)))
    return {name: leaf.grad for name, leaf in zip(NAMES, leaves, strict=True) if leaf.grad is not None}


def assert_gradients_within_bound(got: dict[str, Tensor], made: Request, given: AttentionState) -> None:
    """Compare with the float64 oracle, see the module's head."""
    exact, eager = gradients(made, given, None), gradients(made, given, Impl.REFERENCE)
    magnitude = _magnitudes(made, given)
    factor = _factor(made)
    for name in NAMES:
        bound = (eager[name].double() - exact[name]).abs().max() + factor * magnitude[name]
        excess = (got[name].double() - exact[name]).abs() - bound
        # Written so that NaN fails.
        assert bool((excess <= 0).all()), f"{name}: beyond by {excess.max().item():.3g} of {bound.max().item():.3g}"


def _factor(made: Request) -> float:
    u = 0.0 if made.query.dtype == torch.float32 else torch.finfo(made.query.dtype).eps / 2
    entries, group = made.table.page.shape[1], made.query.shape[1] // made.pages.keys.shape[1]
    rows = group * made.query.shape[2]
    terms = (PAGE_TOKENS + 4) * entries + made.query.shape[3] + rows + 8
    return 2 * score_error(made) + 8 * u + terms * _FLOAT32_ROUNDOFF


def _magnitudes(made: Request, given: AttentionState) -> dict[str, Tensor]:
    """Sums of magnitudes by name: gradients of a surrogate in which nothing cancels.

    The surrogate, sum of M (scale |R| |query| . |R| |key| + |alpha bias|) + W |grad_out| . |value|, is linear in each
    magnitude, so that autograd does its gathering and turning back. |R| is rotation with |cos|, |sin| and no minus.
    """
    groups = made.query.shape[1] // made.pages.keys.shape[1]
    weights, mass = _weights(made, given, groups)
    leaves = (made.query, made.pages.keys, made.pages.values, made.alpha, made.table.bias)
    leaves = tuple(leaf.detach().double().abs().nan_to_num(0).requires_grad_() for leaf in leaves)
    query, keys, values, alpha, bias = leaves
    # Without rotation the oracle gathers only.
    still = Rope(torch.ones_like(made.rope.cos), torch.zeros_like(made.rope.sin))
    table = replace(made.table, bias=bias)
    held = reference.gathered(replace(made, query=query, pages=Pages(keys, values), rope=still), torch.float64)
    q = _turned(held.query, made.position.long(), made.rope)
    k = _turned(held.keys, _key_position(table), made.rope).repeat_interleave(groups, dim=1)
    score = made.scale * (q @ k.transpose(2, 3))
    score = score + (alpha[:, None, None] * bias.repeat_interleave(PAGE_TOKENS, dim=1)[:, None, None])
    by_value = given.out.double().abs() @ held.values.repeat_interleave(groups, dim=1).transpose(2, 3)
    ((mass * score).sum() + (weights * by_value).sum()).backward()
    return {name: leaf.grad for name, leaf in zip(NAMES, leaves, strict=True) if leaf.grad is not None}


def _weights(made: Request, given: AttentionState, groups: int) -> tuple[Tensor, Tensor]:
    """W and M of the module's head, [B, H, n, S * 64]."""
    held = reference.gathered(made, torch.float64)
    scores = made.scale * (held.query @ held.keys.repeat_interleave(groups, dim=1).transpose(2, 3))
    bias = made.table.bias.double().repeat_interleave(PAGE_TOKENS, dim=1)
    scores = scores + made.alpha.double()[:, None, None] * bias[:, None, None]
    scores = scores.masked_fill(~held.seen[:, None], -torch.inf)
    weights = torch.softmax(scores, dim=-1).nan_to_num(0)
    grad, wide = given.out.double().abs(), held.values.abs().repeat_interleave(groups, dim=1)
    own = (grad * (weights @ wide)).sum(dim=-1, keepdim=True)
    return weights, weights * (grad @ wide.transpose(2, 3) + own + given.lse.double().abs()[..., None])


def _key_position(table: PageTable) -> Tensor:
    slots = torch.arange(PAGE_TOKENS, device=table.page.device)
    position = (table.position.long()[..., None] + slots).flatten(1)
    return position.masked_fill((slots >= table.tokens[..., None]).flatten(1), 0)


def _turned(x: Tensor, position: Tensor, rope: Rope) -> Tensor:
    cos, sin = (angles.double().abs()[position][:, None] for angles in (rope.cos, rope.sin))
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin
