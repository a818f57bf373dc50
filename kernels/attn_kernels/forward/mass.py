# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Attention that each key receives, summed over queries and heads: a second pass over keys, with the lse of the first.

Deterministic: one program sums a page's weights over all queries in order, and heads are summed by torch.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from attn_kernels.forward.arithmetic import product
from attn_kernels.forward.launch import check_device, flattened, on_device_of, operands
from attn_kernels.forward.loading import LOG2_E, PAGE, joined, keys_of, load_keys, turn_rows
from attn_kernels.records import PAGE_TOKENS, Request

# Rows of a tile and warps, in half precision and float32; chosen to fit.
_ROWS = 64
_ROWS_FLOAT32 = 16


def received(request: Request, lse: Tensor) -> Tensor:
    """Attention that each key gets, float32 [B, S, 64]. The request has been checked.

    Raises:
        FusedUnavailable: As `forward.attend`.
    """
    check_device(request)
    mass: Tensor = received_mass(
        request.query, lse, request.position, *flattened(request), request.alpha, request.scale
    )
    return mass


@torch.library.custom_op("attn_kernels::received_mass", mutates_args=())
def received_mass(
    query: Tensor,
    lse: Tensor,
    position: Tensor,
    pages: Sequence[Tensor],
    table: Sequence[Tensor],
    rope: Sequence[Tensor],
    alpha: Tensor,
    scale: float,
) -> Tensor:
    """`received` with its records flattened."""
    heads, count, dim = query.shape[1:]
    ops, strides, sizes = operands(query, position, pages, table, rope, alpha)
    ops = ops._replace(lse=lse.contiguous())
    group = heads // sizes.kv_heads
    tile = _ROWS_FLOAT32 if query.dtype == torch.float32 else _ROWS
    rows = query.new_empty((sizes.batch, sizes.kv_heads, count * group, dim))
    row_lse = query.new_empty(rows.shape[:-1], dtype=torch.float32)
    mass = query.new_empty((sizes.batch, sizes.entries, sizes.kv_heads, PAGE_TOKENS), dtype=torch.float32)
    with on_device_of(query):
        grid = (triton.cdiv(count * group, tile), sizes.batch * sizes.kv_heads)
        turn_rows[grid](ops, rows, row_lse, strides, sizes, HEAD_DIM=dim, GROUP=group, ROWS=tile)
        if sizes.entries:
            sum_weights[(sizes.batch * sizes.entries, sizes.kv_heads)](
                ops, rows, row_lse, mass, strides, sizes, scale, HEAD_DIM=dim, GROUP=group, ROWS=tile
            )
    return mass.sum(dim=2)


@received_mass.register_fake
def _received_mass_fake(
    query: Tensor, _lse: Tensor, _position: Tensor, _pages: Sequence[Tensor], table: Sequence[Tensor], *_others: object
) -> Tensor:
    return query.new_empty((*table[0].shape, PAGE_TOKENS), dtype=torch.float32)


@triton.jit(do_not_specialize=["sizes"])
def sum_weights(
    ops,
    rows,
    row_lse,
    mass,
    strides,
    sizes,
    scale,
    HEAD_DIM: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Weights of a page's keys, summed over all rows of a KV head, to `mass` [B, S, Hkv, 64]; grid (B * S, Hkv)."""
    entry, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    batch = entry // sizes.entries
    page, key_at, filled, sound = keys_of(ops, sizes, entry)
    first, second = load_keys(ops, strides, sizes, page, kv_head, key_at, sound, HEAD_DIM // 2)
    k = joined(first, second)
    bias = tl.load(ops.bias + entry)
    column = tl.arange(0, HEAD_DIM)[None, :]
    held = sizes.queries * GROUP
    first_row = (batch * sizes.kv_heads + kv_head) * held
    total = tl.zeros([PAGE], tl.float32)
    for start in range(0, held, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = row < held
        at = tl.load(ops.query_position + batch * sizes.queries + row // GROUP, mask=inside, other=-1)
        q = tl.load(rows + (first_row + row)[:, None] * HEAD_DIM + column, mask=inside[:, None], other=0.0)
        lse = tl.load(row_lse + first_row + row, mask=inside, other=float("inf"))
        alpha = tl.load(ops.alpha + kv_head * GROUP + row % GROUP, mask=inside, other=0.0) * LOG2_E
        scores = (
            product(q, tl.trans(k), tl.zeros([ROWS, PAGE], tl.float32)) * (scale * LOG2_E)
            + (alpha * bias - lse)[:, None]
        )
        seen = filled[None, :] & (key_at[None, :] <= at[:, None])
        total += tl.sum(tl.where(seen, tl.exp2(scores), 0.0), axis=0)
    tl.store(mass + (entry * sizes.kv_heads + kv_head) * PAGE + tl.arange(0, PAGE), total)
