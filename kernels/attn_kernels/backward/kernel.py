# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The kernels of the backward pass: what rows bring along, gradients of rows, of entries, and of pages.

Invariants:
  - no atomics: every sum is done by one program in a fixed order, so the same inputs give the same bits;
  - every element of an output that a program owns is written;
  - what cannot be read turns gradients into NaN, as it does the result (`forward.loading`).

With weights w = exp(score - lse), and for each row delta = grad_out . out - grad_lse:

    grad_value = sum over rows of w grad_out        grad_score = w (grad_out . value - delta)

and from grad_score those of rotated queries and keys, turned back, and of alpha and bias. Weights are computed again,
not kept. Shapes as in `forward.kernel`.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from attn_kernels.forward.arithmetic import narrow, product
from attn_kernels.forward.loading import (
    LOG2_E,
    NEVER,
    PAGE,
    SCAN,
    ahead,
    edges,
    halves,
    joined,
    keys_of,
    load_values,
    rows_of,
)


class Work(NamedTuple):
    """Tensors of the backward pass; all but `grad_out` are contiguous, and float32 but for it and `rows`.

    `rows` [B, Hkv, n * G, D] holds rotated queries, `row_lse` their lse in log2 units, `delta` as in the module's head.
    `grad_alpha` is a row's share, [B, Hkv, n * G], and `grad_bias` a tile's, [tiles, B * Hkv, S].
    """

    grad_out: Any
    grad_lse: Any
    rows: Any
    row_lse: Any
    delta: Any
    grad_query: Any
    grad_alpha: Any
    grad_bias: Any
    grad_keys: Any
    grad_values: Any


@triton.jit
def turn_back(first, second, at, mask, ops, HALF: tl.constexpr):
    """The transpose of rotation to `at`, of both halves [R, E] in float32; NaN where masked."""
    angle = at.to(tl.int64)[:, None] * (2 * HALF) + tl.arange(0, HALF)[None, :]
    cos = tl.load(ops.cos + angle, mask=mask[:, None], other=float("nan"))
    sin = tl.load(ops.sin + angle, mask=mask[:, None], other=float("nan"))
    return first * cos + second * sin, second * cos - first * sin


@triton.jit(do_not_specialize=["sizes"])
def deltas(ops, work, out_strides, sizes, HEAD_DIM: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr):
    """delta of each row; grid (tiles, B * Hkv)."""
    pair = tl.program_id(1)
    batch, _kv_head, row, inside, query, head = rows_of(sizes, tl.program_id(0), pair, GROUP, ROWS)
    column = tl.arange(0, HEAD_DIM)[None, :]
    state = (batch * sizes.kv_heads * GROUP + head) * sizes.queries + query
    out = tl.load(ops.out + state[:, None] * HEAD_DIM + column, mask=inside[:, None], other=0.0)
    place = batch * out_strides[0] + head * out_strides[1] + query * out_strides[2]
    source = work.grad_out + place[:, None] + column * out_strides[3]
    grad = tl.load(source, mask=inside[:, None], other=0.0)
    total = tl.sum(out.to(tl.float32) * grad.to(tl.float32), axis=1)
    total -= tl.load(work.grad_lse + state, mask=inside, other=0.0)
    tl.store(work.delta + pair.to(tl.int64) * sizes.queries * GROUP + row, total, mask=inside)


@triton.jit
def load_rows(ops, work, out_strides, sizes, rows, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Of rows (batch row, KV head, row [R], whether it exists): rotated queries, grad_out, position and numbers.

    The numbers are lse and weight of the bias in log2 units, and delta. A row that does not exist weighs 0.
    """
    batch, kv_head, row, inside = rows
    column = tl.arange(0, HEAD_DIM)[None, :]
    query, head = (row // GROUP).to(tl.int64), kv_head * GROUP + row % GROUP
    held = (batch * sizes.kv_heads + kv_head) * sizes.queries * GROUP + row
    q = tl.load(work.rows + held[:, None] * HEAD_DIM + column, mask=inside[:, None], other=0.0)
    source = work.grad_out + batch * out_strides[0] + (head * out_strides[1] + query * out_strides[2])[:, None]
    grad = tl.load(source + column * out_strides[3], mask=inside[:, None], other=0.0)
    at = tl.load(ops.query_position + batch * sizes.queries + query, mask=inside, other=-1)
    lse = tl.load(work.row_lse + held, mask=inside, other=float("inf"))
    delta = tl.load(work.delta + held, mask=inside, other=0.0)
    alpha = tl.load(ops.alpha + head, mask=inside, other=0.0) * LOG2_E
    return q, grad, at, lse, alpha, delta


@triton.jit
def gather_row_gradients(
    ops, strides, sizes, loaded, where, span, sums, scale, BIASED: tl.constexpr, WHOLE: tl.constexpr
):
    """Add what entries span[0] .. span[1] - 1 give to `sums`: rotated grad_query and grad_alpha.

    `where` holds batch row, KV head and the address of this tile's row of grad_bias.
    """
    q, grad, at, lse, alpha, delta = loaded
    batch, kv_head, grad_bias = where
    dq, dalpha = sums
    HEAD_DIM: tl.constexpr = q.shape[1]
    for index in range(span[0], span[1]):
        entry = batch * sizes.entries + index
        page, key_at, filled, sound = keys_of(ops, sizes, entry)
        if WHOLE:
            filled = tl.full([PAGE], 1, tl.int1)
            sound = filled
        # Those not filled must not reach a product, which 0 times NaN would.
        k = tl.load(ahead(ops.turned, sizes, kv_head, entry, HEAD_DIM), mask=filled[:, None], other=0.0)
        v = load_values(ops, strides, sizes, page, kv_head, sound, HEAD_DIM)
        bias = tl.load(ops.bias + entry)
        scores = product(q, tl.trans(k), tl.zeros([q.shape[0], PAGE], tl.float32))
        weights = tl.exp2(scores * (scale * LOG2_E) + (alpha * bias - lse)[:, None])
        if not WHOLE:
            seen = filled[None, :] & (key_at[None, :] <= at[:, None])
            weights = tl.where(seen, weights, 0.0)
        by_weight = product(grad, tl.trans(v), tl.zeros([q.shape[0], PAGE], tl.float32))
        by_score = weights * (by_weight - delta[:, None])
        share = tl.sum(by_score, axis=1)
        dalpha += share * bias
        if BIASED:
            tl.store(grad_bias + index, tl.sum(share * alpha, axis=0) / LOG2_E)
        dq = product(narrow(by_score, k.dtype), k, dq)
    return dq, dalpha


@triton.jit(do_not_specialize=["sizes"])
def row_gradients(
    ops,
    work,
    strides,
    out_strides,
    sizes,
    scale,
    HEAD_DIM: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BIASED: tl.constexpr,
):
    """grad_query of a tile of rows, and its shares of grad_alpha and grad_bias; grid (tiles, B * Hkv)."""
    HALF: tl.constexpr = HEAD_DIM // 2
    # The last tiles see most keys, so they start first.
    tile, pair = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    batch, kv_head, row, inside, query, head = rows_of(sizes, tile, pair, GROUP, ROWS)
    loaded = load_rows(ops, work, out_strides, sizes, (batch, kv_head, row, inside), GROUP, HEAD_DIM)
    at = loaded[2]
    earliest = tl.min(tl.where(inside, at, NEVER), axis=0)
    whole, end = edges(ops, sizes, batch, earliest, tl.max(at, axis=0))
    whole = tl.minimum(whole, end)
    tile_bias = work.grad_bias + (tile.to(tl.int64) * tl.num_programs(1) + pair) * sizes.entries
    where = (batch, kv_head, tile_bias)
    sums = (tl.zeros([ROWS, HEAD_DIM], tl.float32), tl.zeros([ROWS], tl.float32))
    sums = gather_row_gradients(ops, strides, sizes, loaded, where, (0, whole), sums, scale, BIASED, True)
    dq, dalpha = gather_row_gradients(ops, strides, sizes, loaded, where, (whole, end), sums, scale, BIASED, False)

    known = (at >= 0) & (at < sizes.positions)
    turned, other = halves(dq * scale)
    first, second = turn_back(turned, other, at, known, ops, HALF)
    state = (batch * sizes.kv_heads * GROUP + head) * sizes.queries + query
    place = work.grad_query + state[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(place, narrow(joined(first, second), work.grad_query.dtype.element_ty), mask=inside[:, None])
    tl.store(work.grad_alpha + pair.to(tl.int64) * sizes.queries * GROUP + row, dalpha, mask=inside)


@triton.jit
def bounds_of(ops, sizes, batch, first_key, last_key):
    """The first query that sees the first key, and the one from which on all see the last; n where there is none."""
    found = sizes.queries
    whole = 0
    for first in range(0, sizes.queries, SCAN):
        query = first + tl.arange(0, SCAN)
        exists = query < sizes.queries
        at = tl.load(ops.query_position + batch * sizes.queries + query, mask=exists, other=NEVER)
        found = tl.minimum(found, tl.min(tl.where(exists & (at >= first_key), query, sizes.queries), axis=0))
        whole = tl.maximum(whole, tl.max(tl.where(at < last_key, query + 1, 0), axis=0))
    return found, whole


@triton.jit
def gather_entry_gradients(
    ops,
    work,
    out_strides,
    sizes,
    entry,
    span,
    sums,
    scale,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Add what rows span[0] .. span[1] - 1 give to `sums`: gradients of rotated keys and of values.

    `entry` holds batch row, KV head, rotated keys, values, bias, positions of keys and which are filled.
    """
    batch, kv_head, k, v, bias, key_at, filled = entry
    dk, dv = sums
    held = sizes.queries * GROUP
    for first in range(span[0], span[1], ROWS):
        row = first + tl.arange(0, ROWS)
        rows = (batch, kv_head, row, row < held)
        q, grad, at, lse, alpha, delta = load_rows(ops, work, out_strides, sizes, rows, GROUP, v.shape[1])
        scores = product(k, tl.trans(q), tl.zeros([PAGE, ROWS], tl.float32))
        weights = tl.exp2(scores * (scale * LOG2_E) + (alpha * bias - lse)[None, :])
        if not WHOLE:
            seen = filled[:, None] & (key_at[:, None] <= at[None, :])
            weights = tl.where(seen, weights, 0.0)
        dv = product(narrow(weights, grad.dtype), grad, dv)
        by_weight = product(v, tl.trans(grad), tl.zeros([PAGE, ROWS], tl.float32))
        dk = product(narrow(weights * (by_weight - delta[None, :]), q.dtype), q, dk)
    return dk, dv


@triton.jit(do_not_specialize=["sizes"])
def entry_gradients(
    ops,
    work,
    strides,
    out_strides,
    sizes,
    scale,
    HEAD_DIM: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Gradients of an entry's keys, turned back, and values, float32 [B * S, Hkv, 64, D]; grid (B * S, Hkv)."""
    HALF: tl.constexpr = HEAD_DIM // 2
    number, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    batch = number // sizes.entries
    page, key_at, filled, sound = keys_of(ops, sizes, number)
    k = tl.load(ahead(ops.turned, sizes, kv_head, number, HEAD_DIM))
    v = load_values(ops, strides, sizes, page, kv_head, sound, HEAD_DIM)
    entry = (batch, kv_head, k, v, tl.load(ops.bias + number), key_at, filled)

    # rows     0 .. start        see nothing of the page
    #      start .. middle       see some of it, or the page is not full
    #     middle .. held         see all of it
    count = tl.sum(filled.to(tl.int32), axis=0)
    held = tl.where(count > 0, sizes.queries * GROUP, 0)
    found, whole = bounds_of(ops, sizes, batch, tl.min(key_at, axis=0), tl.max(key_at, axis=0))
    start = found * GROUP // ROWS * ROWS
    middle = tl.where(count == PAGE, tl.cdiv(whole * GROUP, ROWS) * ROWS, held)
    middle = tl.minimum(tl.maximum(middle, start), held)
    nothing = tl.zeros([PAGE, HEAD_DIM], tl.float32)
    sums = (nothing, nothing)
    sums = gather_entry_gradients(
        ops, work, out_strides, sizes, entry, (start, middle), sums, scale, GROUP, ROWS, False
    )
    dk, dv = gather_entry_gradients(
        ops, work, out_strides, sizes, entry, (middle, held), sums, scale, GROUP, ROWS, True
    )

    # Unfilled slots have no position and keep their 0.
    known = (key_at >= 0) & (key_at < sizes.positions)
    turned, other = halves(dk * scale)
    one, two = turn_back(turned, other, key_at, known, ops, HALF)
    slot = ((number * sizes.kv_heads + kv_head) * PAGE + tl.arange(0, PAGE))[:, None] * HEAD_DIM
    slot += tl.arange(0, HEAD_DIM)[None, :]
    tl.store(work.grad_keys + slot, tl.where(filled[:, None], joined(one, two), 0.0))
    tl.store(work.grad_values + slot, dv)


@triton.jit
def page_gradients(parts, entries, bounds, out, HEAD_DIM: tl.constexpr):
    """Sum of what the entries that name a page give to it, in their order; grid (P, Hkv).

    `entries` holds entries by page, those of page p from bounds[p] to bounds[p + 1]. `out` is [P, Hkv, 64, D].
    """
    page, kv_head, kv_heads = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    within = tl.arange(0, PAGE)[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    total = tl.zeros([PAGE, HEAD_DIM], tl.float32)
    for index in range(tl.load(bounds + page), tl.load(bounds + page + 1)):
        entry = tl.load(entries + index).to(tl.int64)
        total += tl.load(parts + (entry * kv_heads + kv_head) * (PAGE * HEAD_DIM) + within)
    place = out + (page * kv_heads + kv_head) * (PAGE * HEAD_DIM) + within
    tl.store(place, narrow(total, out.dtype.element_ty))
