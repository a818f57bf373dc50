"""Launching the backward pass, and its registration as the gradient of the fused forward.

Invariant: nothing here waits for the device.

A page may be named by several entries, of one batch row or of many. Each entry's gradient goes to memory of its own
(float32, [B * S, Hkv, 64, D], for the length of the call), and each page sums those of its entries, found by sorting
the table, in their order: the same inputs give the same bits.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from attn_kernels.backward.kernel import Work, deltas, entry_gradients, page_gradients, row_gradients
from attn_kernels.backward.tilings import Tiling, entries_tiling, rows_tiling
from attn_kernels.forward.launch import on_device_of, operands, paged_forward, turned_keys
from attn_kernels.forward.loading import Operands, Sizes, Strides, turn_rows
from attn_kernels.records import PAGE_TOKENS

# Rows of a tile where each row is only passed over.
_PASS_ROWS = 32


@torch.library.custom_op("attn_kernels::paged_backward", mutates_args=())
def paged_backward(
    state: Sequence[Tensor],
    pages: Sequence[Tensor],
    table: Sequence[Tensor],
    rope: Sequence[Tensor],
    alpha: Tensor,
    scale: float,
    of_pages: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, keys, values, bias and alpha.

    Args:
        state: Gradients of out and lse, out, lse, query and position.
        of_pages: Whether keys and values are wanted; empty tensors stand for them otherwise.
        of_bias: Whether the bias is.
    """
    grad_out, grad_lse, out, lse, query, position = state
    ops, strides, sizes = operands(query, position, pages, table, rope, alpha)
    ops = ops._replace(out=out, lse=lse)
    entries = sizes.batch * sizes.entries
    rows = query.new_empty(
        (sizes.batch, sizes.kv_heads, query.shape[1] // sizes.kv_heads * sizes.queries, query.shape[3])
    )
    tiling = rows_tiling(query.shape[3], query.element_size())
    tiles = triton.cdiv(rows.shape[2], tiling.rows)
    parts = (entries, sizes.kv_heads, PAGE_TOKENS, query.shape[3]) if of_pages else (0,)
    grad_query = query.new_empty(query.shape)
    # Entries past a tile's causal edge give nothing to the bias and are not visited.
    bias_shape = (tiles, sizes.batch, sizes.kv_heads, sizes.entries) if of_bias else (0,)
    grad_bias = query.new_zeros(bias_shape, dtype=torch.float32)
    row_lse, delta, grad_alpha = (query.new_empty(rows.shape[:3], dtype=torch.float32) for _ in range(3))
    grad_keys, grad_values = (query.new_empty(parts, dtype=torch.float32) for _ in range(2))
    work = Work(
        grad_out, grad_lse.contiguous(), rows, row_lse, delta, grad_query, grad_alpha, grad_bias, grad_keys, grad_values
    )
    with on_device_of(query):
        ops = ops._replace(turned=turned_keys(ops, strides, sizes))
        _rows(ops, work, strides, sizes, scale, tiling, of_bias)
        if of_pages:
            _entries(ops, work, strides, sizes, scale)
            grad_keys, grad_values = _pages(table, sizes, pages, (grad_keys, grad_values))
    by_head = grad_alpha.view(sizes.batch, sizes.kv_heads, sizes.queries, -1).sum(dim=(0, 2)).flatten()
    return grad_query, grad_keys, grad_values, grad_bias.sum(dim=(0, 2)) if of_bias else grad_bias, by_head


def _rows(
    ops: Operands, work: Work, strides: Strides, sizes: Sizes, scale: float, tiling: Tiling, of_bias: bool
) -> None:
    """Rotated queries, lse and delta of each row, then the gradients of rows."""
    group, dim = ops.query.shape[1] // sizes.kv_heads, ops.query.shape[3]
    pairs, rows = sizes.batch * sizes.kv_heads, sizes.queries * group
    pass_grid = (triton.cdiv(rows, _PASS_ROWS), pairs)
    out_strides = work.grad_out.stride()
    turn_rows[pass_grid](ops, work.rows, work.row_lse, strides, sizes, HEAD_DIM=dim, GROUP=group, ROWS=_PASS_ROWS)
    deltas[pass_grid](ops, work, out_strides, sizes, HEAD_DIM=dim, GROUP=group, ROWS=_PASS_ROWS)
    row_gradients[(triton.cdiv(rows, tiling.rows), pairs)](
        ops,
        work,
        strides,
        out_strides,
        sizes,
        scale,
        HEAD_DIM=dim,
        GROUP=group,
        ROWS=tiling.rows,
        BIASED=of_bias,
        num_warps=tiling.warps,
        num_stages=tiling.stages,
    )


def _entries(ops: Operands, work: Work, strides: Strides, sizes: Sizes, scale: float) -> None:
    dim = ops.query.shape[3]
    tiling = entries_tiling(dim, ops.query.element_size())
    if sizes.entries:
        entry_gradients[(sizes.batch * sizes.entries, sizes.kv_heads)](
            ops,
            work,
            strides,
            work.grad_out.stride(),
            sizes,
            scale,
            HEAD_DIM=dim,
            GROUP=ops.query.shape[1] // sizes.kv_heads,
            ROWS=tiling.rows,
            num_warps=tiling.warps,
            num_stages=tiling.stages,
        )


def _pages(
    table: Sequence[Tensor], sizes: Sizes, pages: Sequence[Tensor], parts: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Gradients of the pools, from those of the entries."""
    page, tokens = (column.flatten() for column in table[:2])
    # Entries without a page of the pools are sorted behind all pages.
    named = page.masked_fill((page < 0) | (page >= sizes.pages) | (tokens <= 0), sizes.pages)
    by_page, entries = named.sort(stable=True)
    bounds = torch.searchsorted(by_page, torch.arange(sizes.pages + 1, dtype=torch.int32, device=page.device))
    keys, values = (pool.new_empty(pool.shape) for pool in pages[:2])
    for part, out in zip(parts, (keys, values), strict=True):
        if sizes.pages:
            page_gradients[(sizes.pages, sizes.kv_heads)](part, entries, bounds, out, HEAD_DIM=out.shape[3])
    return keys, values


@paged_backward.register_fake
def _paged_backward_fake(
    state: Sequence[Tensor],
    pages: Sequence[Tensor],
    table: Sequence[Tensor],
    _rope: Sequence[Tensor],
    alpha: Tensor,
    _scale: float,
    of_pages: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    query, bias = state[4], table[3]
    if of_pages:
        keys, values = (pool.new_empty(pool.shape) for pool in pages[:2])
    else:
        keys, values = (query.new_empty((0,), dtype=torch.float32) for _ in range(2))
    grad_bias = bias.new_empty(bias.shape if of_bias else (0,))
    return query.new_empty(query.shape), keys, values, grad_bias, alpha.new_empty(alpha.shape)


def _saved(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, position, pages, table, rope, alpha, scale = inputs
    ctx.save_for_backward(*output, query, position, alpha, *rope, *table, *pages)
    ctx.scale = scale


@functools.partial(paged_forward.register_autograd, setup_context=_saved)
def _gradients(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Any, ...]:
    out, lse, query, position, alpha, cos, sin, *rest = ctx.saved_tensors
    table, pages = rest[:4], rest[4:]
    wanted = ctx.needs_input_grad
    of_pages, of_bias = any(wanted[2][:2]), bool(wanted[3][3])
    state = [grad_out, grad_lse, out, lse, query, position]
    by_query, by_key, by_value, by_bias, by_alpha = paged_backward(
        state, pages, table, [cos, sin], alpha, ctx.scale, of_pages, of_bias
    )
    by_pages = [by_key, by_value] if of_pages else [None, None]
    no_scales = [None] * (len(pages) - 2)
    return (
        by_query,
        None,
        by_pages + no_scales,
        [None, None, None, by_bias if of_bias else None],
        [None, None],
        by_alpha,
        None,
    )
