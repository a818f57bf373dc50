"""The same attention for torch's FlexAttention: `score_mod`, `mask_mod`, and what it takes for granted.

A second oracle, and the baseline that the fused kernel is measured by. FlexAttention knows no pages and no rotation
inside: keys are gathered and rotated first, and the mask is built from positions on every call.

Invariants:
  - alpha * bias of a key's page is added by `score_mod`;
  - `mask_mod` lets a query see what is filled and not behind its own packed position;
  - rounding is as in `reference`, as far as FlexAttention lets it: it rounds weights as the reference does.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from attn_kernels.records import PAGE_TOKENS, AttentionState, PageTable, Request
from attn_kernels.reference import gathered

Mod = Callable[..., Tensor]


def attend(
    request: Request, work: torch.dtype, attention: Callable[..., Any] = flex_attention, mask: BlockMask | None = None
) -> AttentionState:
    """Attend through FlexAttention.

    Args:
        work: Dtype of queries, keys and values once they are rotated, in at least float32.
        attention: `flex_attention` itself, which holds all scores at once, or `torch.compile(flex_attention)`.
        mask: Of `block_mask`, where it is built once for many calls; built here otherwise.

    Returns:
        Output in `work`; lse in float32, or in float64 as `work`.

    Raises:
        IndexError: A page or a position outside the pools or tables.
    """
    held = gathered(request, torch.promote_types(work, torch.float32), rounding=work)
    out, aux = attention(
        *(x.to(work) for x in (held.query, held.keys, held.values)),
        score_mod=score_mod(request.table, request.alpha),
        block_mask=block_mask(request) if mask is None else mask,
        scale=request.scale,
        enable_gqa=request.query.shape[1] != held.keys.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    return AttentionState(out, aux.lse)


def score_mod(table: PageTable, alpha: Tensor) -> Mod:
    """What FlexAttention adds to scores."""
    bias = table.bias

    def biased(score: Tensor, batch: Tensor, head: Tensor, _query: Tensor, key: Tensor) -> Tensor:
        # Scores come in float32 at least, in float64 where all is: the product must not be narrower.
        return score + alpha[head].to(score.dtype) * bias[batch, key // PAGE_TOKENS].to(score.dtype)

    return biased


def mask_mod(table: PageTable, position: Tensor) -> Mod:
    """Which keys FlexAttention lets a query see."""
    tokens, start = table.tokens, table.position

    def seen(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        entry, slot = key // PAGE_TOKENS, key % PAGE_TOKENS
        return (slot < tokens[batch, entry]) & (start[batch, entry] + slot <= position[batch, query])

    return seen


def block_mask(request: Request, build: Callable[..., BlockMask] = create_block_mask) -> BlockMask:
    """Which blocks of queries and keys FlexAttention visits; heads share one."""
    batch, _heads, count, _dim = request.query.shape
    keys = request.table.page.shape[1] * PAGE_TOKENS
    mod = mask_mod(request.table, request.position)
    return build(mod, batch, None, count, keys, device=request.query.device)
