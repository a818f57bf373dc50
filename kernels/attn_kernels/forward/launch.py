"""Launching the fused forward: the torch operator, its fake for torch.compile, grids and partial states.

Invariant: nothing here waits for the device, so that a launch can be captured in a CUDA graph.
"""

import contextlib
from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from attn_kernels.errors import FusedUnavailable
from attn_kernels.forward.kernel import Operands, Sizes, Strides, attend_split, merge_splits, turn_keys
from attn_kernels.forward.tilings import Tiling, splits_for, tiling_for, turns_ahead
from attn_kernels.records import PAGE_TOKENS, AttentionState, Request

# What the interpreter is taken to have: enough for tests on a CPU to split.
_INTERPRETED_MULTIPROCESSORS = 2


def attend(request: Request) -> AttentionState:
    """Attend with the fused kernel. The request has been checked.

    Raises:
        FusedUnavailable: CPU tensors outside Triton's interpreter.
    """
    device = request.query.device
    if device.type != "cuda" and isinstance(attend_split, triton.JITFunction):
        raise FusedUnavailable(f"impl: expected CUDA tensors, or TRITON_INTERPRET=1, for FUSED, got {device}")
    pages, table, rope = request.pages, request.table, request.rope
    out, lse = paged_forward(
        request.query,
        request.position,
        [pages.keys, pages.values],
        [table.page, table.tokens, table.position, table.bias],
        [rope.cos, rope.sin],
        request.alpha,
        request.scale,
    )
    return AttentionState(out, lse)


@torch.library.custom_op("attn_kernels::paged_forward", mutates_args=())
def paged_forward(
    query: Tensor,
    position: Tensor,
    pages: Sequence[Tensor],
    table: Sequence[Tensor],
    rope: Sequence[Tensor],
    alpha: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """`attn_kernels.api.paged_attention` with its records flattened, as torch's operators take them."""
    batch, heads, count, dim = query.shape
    keys, values = pages
    kv_heads, entries = keys.shape[1], table[0].shape[1]
    rows = count * (heads // kv_heads)
    tiling = tiling_for(rows, dim, query.element_size())
    tiles = triton.cdiv(rows, tiling.rows)
    ahead = turns_ahead(tiling, tiles)
    splits = splits_for(tiling, tiles * batch * kv_heads, entries, _multiprocessors(query.device))
    out = query.new_empty((batch, heads, count, dim))
    lse = query.new_empty((batch, heads, count), dtype=torch.float32)
    # One split writes the result itself.
    parts = out if splits == 1 else query.new_empty((splits, *out.shape), dtype=torch.float32)
    part_lse = lse if splits == 1 else query.new_empty((splits, *lse.shape), dtype=torch.float32)
    turned = keys.new_empty((batch, kv_heads, entries, PAGE_TOKENS, dim)) if ahead else keys
    at, page, tokens, start, bias, cos, sin, weight = (x.contiguous() for x in (position, *table, *rope, alpha))
    ops = Operands(query, at, keys, values, page, tokens, start, bias, cos, sin, weight, turned, parts, part_lse)
    strides = Strides(query.stride(), keys.stride(), values.stride())
    sizes = Sizes(batch, kv_heads, count, entries, keys.shape[0], rope[0].shape[0])
    with torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext():
        if ahead:
            turn_keys[(batch * entries, kv_heads)](ops, strides, sizes, HEAD_DIM=dim)
        _attend(ops, strides, sizes, scale, (tiles, batch * kv_heads, splits), tiling)
        if splits > 1:
            merge_splits[(batch * heads * count,)](
                parts, part_lse, out, lse, splits, HEAD_DIM=dim, SPLITS=triton.next_power_of_2(splits)
            )
    return out, lse


@paged_forward.register_fake
def _paged_forward_fake(query: Tensor, *_others: object) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[:-1], dtype=torch.float32)


def _attend(
    ops: Operands, strides: Strides, sizes: Sizes, scale: float, grid: tuple[int, int, int], tiling: Tiling
) -> None:
    attend_split[grid](
        ops,
        strides,
        sizes,
        scale,
        HEAD_DIM=ops.query.shape[-1],
        GROUP=ops.query.shape[1] // sizes.kv_heads,
        ROWS=tiling.rows,
        TURNED=turns_ahead(tiling, grid[0]),
        num_warps=tiling.warps,
        num_stages=tiling.stages,
    )


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED_MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
