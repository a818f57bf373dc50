"""The eager oracle: the same sum as the kernel's, written plainly over gathered keys.

Invariants:
  - `work` is the dtype of every product and sum; float64 is the yardstick that errors are measured against;
  - with `rounding` given, values are rounded where the fused kernel rounds them (kernels/README.md lists the points);
  - keys that are masked never enter a product, whatever bytes lie there.

Differentiable by autograd. Holds all scores at once, [B, H, n, S * 64]: for tests and small inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attn_kernels.quantised import dequantise
from attn_kernels.records import PAGE_TOKENS, AttentionState, PageTable, QuantPages, Request


@dataclass(frozen=True)
class Gathered:
    """What a request attends to, out of its pages.

    Args:
        query: Rotated, [B, H, n, D].
        keys: Rotated, [B, Hkv, S * 64, D]; 0 where not filled, as values.
        values: [B, Hkv, S * 64, D].
        seen: Which keys a query may see, bool [B, n, S * 64].
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    seen: Tensor


def attend(request: Request, work: torch.dtype = torch.float32, rounding: torch.dtype | None = None) -> AttentionState:
    """Attend in `work` precision; see the module's head for `rounding`.

    Returns:
        Output in `rounding`, or in `work` without it; lse in `work`.

    Raises:
        IndexError: A page or a position outside the pools or tables.
    """
    held = gathered(request, work, rounding)
    weights, total, lse = _softmax(_scores(request, held))
    batch, heads, count, dim = request.query.shape
    kv_heads = held.values.shape[1]
    weights = _rounded(weights, rounding).reshape(batch, kv_heads, heads // kv_heads, count, weights.shape[-1])
    out = torch.einsum("bhgnk,bhkd->bhgnd", weights, held.values).reshape(batch, heads, count, dim)
    return AttentionState((out / total[..., None]).to(rounding or work), lse)


def received(request: Request, work: torch.dtype = torch.float32, rounding: torch.dtype | None = None) -> Tensor:
    """Attention that each key gets, summed over queries and heads, [B, S, 64] in `work`; 0 where not filled."""
    weights, total, _lse = _softmax(_scores(request, gathered(request, work, rounding)))
    mass = (weights / total[..., None]).sum(dim=(1, 2))
    return mass.reshape(*request.table.page.shape, PAGE_TOKENS)


def gathered(request: Request, work: torch.dtype, rounding: torch.dtype | None = None) -> Gathered:
    """Rotated queries and keys, values, and which keys are seen, in `work` precision.

    Raises:
        IndexError: As `attend`.
    """
    position, table = request.position.long(), request.table
    pages = dequantise(request.pages) if isinstance(request.pages, QuantPages) else request.pages
    filled, key_position = _placed(table)
    cos, sin = request.rope.cos.to(work), request.rope.sin.to(work)
    query = _rotate(request.query.to(work), cos[position][:, None], sin[position][:, None])
    keys, values = (_gather(pool, table, filled).to(work) for pool in (pages.keys, pages.values))
    keys = _rotate(keys, cos[key_position][:, None], sin[key_position][:, None])
    seen = filled[:, None] & (key_position[:, None] <= position[..., None])
    return Gathered(_rounded(query, rounding), _rounded(keys, rounding), _rounded(values, rounding), seen)


def _scores(request: Request, held: Gathered) -> Tensor:
    """Scores [B, H, n, S * 64], -inf where not seen."""
    query, keys, work = held.query, held.keys, held.query.dtype
    batch, heads, count, dim = query.shape
    grouped = query.reshape(batch, keys.shape[1], heads // keys.shape[1], count, dim)
    scores = torch.einsum("bhgnd,bhkd->bhgnk", grouped, keys).flatten(1, 2) * request.scale
    bias = request.table.bias.to(work).repeat_interleave(PAGE_TOKENS, dim=1)
    scores = scores + request.alpha.to(work)[:, None, None] * bias[:, None, None, :]
    return scores.masked_fill(~held.seen[:, None], -torch.inf)


def _placed(table: PageTable) -> tuple[Tensor, Tensor]:
    """Which keys are filled, bool [B, S * 64], and where they are, int64 [B, S * 64], 0 where not filled."""
    in_page = torch.arange(PAGE_TOKENS, device=table.page.device)
    filled = (in_page < table.tokens[..., None]).flatten(1)
    position = (table.position.long()[..., None] + in_page).flatten(1)
    return filled, position.masked_fill(~filled, 0)


def _gather(pool: Tensor, table: PageTable, filled: Tensor) -> Tensor:
    """Keys or values of every entry, [B, Hkv, S * 64, D], 0 where not filled."""
    page = table.page.long().masked_fill(table.tokens == 0, 0)
    # [B, S, Hkv, 64, D] to [B, Hkv, S * 64, D]
    gathered = pool[page].transpose(1, 2).flatten(2, 3)
    return gathered.masked_fill(~filled[:, None, :, None], 0)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding over the last axis, halves rotated as transformers does."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _rounded(x: Tensor, rounding: torch.dtype | None) -> Tensor:
    return x if rounding is None else x.to(rounding).to(x.dtype)


def _softmax(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights exp(score - max), their sum (1 where there is no key) and log-sum-exp (-inf there)."""
    if scores.shape[-1] == 0:
        none = scores.sum(dim=-1)
        return scores, none + 1, none - torch.inf
    top = scores.amax(dim=-1, keepdim=True)
    weights = torch.exp(scores - top.masked_fill(top == -torch.inf, 0))
    total = weights.sum(dim=-1)
    lse = top.squeeze(-1) + torch.log(total)
    return weights, total.masked_fill(total == 0, 1), lse
