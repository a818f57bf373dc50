"""Launching the fused forward: the torch operator, its fake for torch.compile, grids and partial states.

Invariant: nothing here waits for the device, so that a launch can be captured in a CUDA graph.
"""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import triton
from torch import Tensor

from attn_kernels.errors import FusedUnavailable
from attn_kernels.forward.kernel import attend_split, merge_splits
from attn_kernels.forward.loading import Operands, Sizes, Strides, turn_keys
from attn_kernels.forward.tilings import Tiling, splits_for, tiling_for, turns_ahead
from attn_kernels.records import PAGE_TOKENS, AttentionState, QuantPages, Request

# What the interpreter is taken to have: enough for tests on a CPU to split.
_INTERPRETED_MULTIPROCESSORS = 2
# First compute capability with conversions of float8_e4m3fn.
_FLOAT8_CAPABILITY = (8, 9)


def attend(request: Request) -> AttentionState:
    """Attend with the fused kernel. The request has been checked.

    Raises:
        FusedUnavailable: CPU tensors outside Triton's interpreter, or float8 on a GPU without it.
    """
    check_device(request)
    out, lse = paged_forward(request.query, request.position, *flattened(request), request.alpha, request.scale)
    return AttentionState(out, lse)


def check_device(request: Request) -> None:
    """Refuse what no kernel can run on.

    Raises:
        FusedUnavailable: CPU tensors outside Triton's interpreter, or float8 on a GPU without it.
    """
    device = request.query.device
    if device.type != "cuda":
        if isinstance(attend_split, triton.JITFunction):
            raise FusedUnavailable(f"impl: expected CUDA tensors, or TRITON_INTERPRET=1, for FUSED, got {device}")
    elif request.pages.keys.dtype == torch.float8_e4m3fn:
        capability = torch.cuda.get_device_capability(device)
        if capability < _FLOAT8_CAPABILITY:
            raise FusedUnavailable(f"pages: expected compute capability 8.9 for float8_e4m3fn, got {capability}")


def flattened(request: Request) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Pages, table and rope as torch's operators take them; quantised pages bring their scales."""
    pages, table, rope = request.pages, request.table, request.rope
    pools = [pages.keys, pages.values]
    if isinstance(pages, QuantPages):
        pools += [pages.key_scale, pages.value_scale]
    return pools, [table.page, table.tokens, table.position, table.bias], [rope.cos, rope.sin]


def operands(
    query: Tensor,
    position: Tensor,
    pages: Sequence[Tensor],
    table: Sequence[Tensor],
    rope: Sequence[Tensor],
    alpha: Tensor,
) -> tuple[Operands, Strides, Sizes]:
    """What kernels take, but for `turned`, `out` and `lse`, which stand for nothing yet."""
    at, page, tokens, start, bias, cos, sin, weight = (x.contiguous() for x in (position, *table, *rope, alpha))
    keys, values = pages[:2]
    scales = [scale.contiguous() for scale in pages[2:]] or [weight, weight]
    # The query and alpha stand for what no kernel touches until it is replaced.
    ops = Operands(
        query, at, keys, values, scales[0], scales[1], page, tokens, start, bias, cos, sin, weight, query, query, weight
    )
    sizes = Sizes(query.shape[0], keys.shape[1], query.shape[2], page.shape[1], keys.shape[0], cos.shape[0])
    return ops, Strides(query.stride(), keys.stride(), values.stride()), sizes


def turned_keys(ops: Operands, strides: Strides, sizes: Sizes) -> Tensor:
    """Every entry's rotated keys, [B, Hkv, S, 64, D]."""
    dim = ops.query.shape[-1]
    turned: Tensor = ops.query.new_empty((sizes.batch, sizes.kv_heads, sizes.entries, PAGE_TOKENS, dim))
    if sizes.entries:
        grid = (sizes.batch * sizes.entries, sizes.kv_heads)
        turn_keys[grid](ops._replace(turned=turned), strides, sizes, HEAD_DIM=dim)
    return turned


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Kernels are launched on the current device, which has to be the tensors' own."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


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
    ops, strides, sizes = operands(query, position, pages, table, rope, alpha)
    rows = count * (heads // sizes.kv_heads)
    processors = multiprocessors(query.device)
    tiling = tiling_for(rows, dim, query.element_size())
    tiles = triton.cdiv(rows, tiling.rows)
    splits = splits_for(tiling, tiles * batch * sizes.kv_heads, sizes.entries, processors)
    out = query.new_empty((batch, heads, count, dim))
    lse = query.new_empty((batch, heads, count), dtype=torch.float32)
    # One split writes the result itself.
    parts = out if splits == 1 else query.new_empty((splits, *out.shape), dtype=torch.float32)
    part_lse = lse if splits == 1 else query.new_empty((splits, *lse.shape), dtype=torch.float32)
    with on_device_of(query):
        if turns_ahead(tiling, tiles):
            ops = ops._replace(turned=turned_keys(ops, strides, sizes))
        ops = ops._replace(out=parts, lse=part_lse)
        _attend(ops, strides, sizes, scale, (tiles, batch * sizes.kv_heads, splits), tiling)
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


def multiprocessors(device: torch.device) -> int:
    """How many the device has, which decides how far work is split."""
    if device.type != "cuda":
        return _INTERPRETED_MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
