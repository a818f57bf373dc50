# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The kernels: attention of a tile of rows over one split of its entries, and the merge of splits.

Invariants: every element of an output that a program owns is written; `forward.loading` holds the others.

Scores are kept in log2 units (log2(e) is folded into scale and bias), because exp2 is what the hardware has. Shapes:
R rows of a tile, T keys of a page, D head size, E = D / 2.
"""

import triton
import triton.language as tl

from attn_kernels.forward.arithmetic import narrow, product
from attn_kernels.forward.loading import (
    LN_2,
    LOG2_E,
    NEVER,
    PAGE,
    ahead,
    edges,
    joined,
    keys_of,
    load_keys,
    load_turned,
    load_values,
    rows_of,
)


@triton.jit
def absorb(ops, strides, sizes, rows, span, state, scale, TURNED: tl.constexpr, WHOLE: tl.constexpr):
    """Online softmax over entries span[0] .. span[1] - 1; without masks where they are WHOLE.

    `rows` holds batch row, KV head, the rotated queries, their positions and their weights of the bias [R]; `state` top
    [R], total [R] and output [R, D]. Queries are both halves [R, E], or the whole [R, D] twice where keys are TURNED.
    """
    batch, kv_head, q1, q2, at, alpha = rows
    top, total, out = state
    HEAD_DIM: tl.constexpr = out.shape[1]
    for index in range(span[0], span[1]):
        entry = batch * sizes.entries + index
        page, key_at, filled, sound = keys_of(ops, sizes, entry)
        if WHOLE:
            sound = tl.full([PAGE], 1, tl.int1)
        # A key that cannot be read scores NaN; those not filled score NaN too and are masked below.
        if TURNED:
            k = tl.load(ahead(ops.turned, sizes, kv_head, entry, HEAD_DIM))
            scores = product(q1, tl.trans(k), tl.zeros([q1.shape[0], PAGE], tl.float32))
        else:
            k1, k2 = load_keys(ops, strides, sizes, page, kv_head, key_at, sound, HEAD_DIM // 2)
            scores = product(q1, tl.trans(k1), tl.zeros([q1.shape[0], PAGE], tl.float32))
            scores = product(q2, tl.trans(k2), scores)
        bias = tl.load(ops.bias + entry)
        scores = scores * (scale * LOG2_E) + (alpha * bias)[:, None]
        if not WHOLE:
            seen = filled[None, :] & (key_at[None, :] <= at[:, None])
            scores = tl.where(seen, scores, float("-inf"))

        new_top = tl.maximum(top, tl.max(scores, axis=1))
        # A row that has seen no key yet: exp2(-inf - 0) is 0 where exp2(-inf + inf) is NaN.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(scores - base[:, None])
        kept = tl.exp2(top - base)
        total = total * kept + tl.sum(weights, axis=1)
        v = load_values(ops, strides, sizes, page, kv_head, sound, HEAD_DIM)
        out = product(narrow(weights, v.dtype), v, out * kept[:, None])
        top = new_top
    return top, total, out


@triton.jit(do_not_specialize=["sizes"])
def attend_split(
    ops, strides, sizes, scale, HEAD_DIM: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, TURNED: tl.constexpr
):
    """Attention state of one tile of rows over one split; grid (tiles, B * Hkv, splits)."""
    HALF: tl.constexpr = HEAD_DIM // 2
    # The last tiles see most keys, so they start first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch, kv_head, _row, inside, query, head = rows_of(sizes, tile, tl.program_id(1), GROUP, ROWS)
    at = tl.load(ops.query_position + batch * sizes.queries + query, mask=inside, other=-1)  # [R]
    start = ops.query + batch * strides.query[0] + head[:, None] * strides.query[1]  # [R, 1]
    known = (at >= 0) & (at < sizes.positions)
    within = (strides.query[2], strides.query[3])
    q1, q2 = load_turned(start, within, query, at, known, (ops.cos, ops.sin), HALF)
    alpha = tl.load(ops.alpha + head, mask=inside, other=0.0) * LOG2_E  # [R]

    earliest = tl.min(tl.where(inside, at, NEVER), axis=0)
    whole, end = edges(ops, sizes, batch, earliest, tl.max(at, axis=0))
    share = tl.cdiv(end, tl.num_programs(2))
    first = tl.program_id(2) * share
    last = tl.minimum(first + share, end)
    middle = tl.maximum(first, tl.minimum(whole, last))
    if TURNED:
        whole_query = joined(q1, q2)
        rows = (batch, kv_head, whole_query, whole_query, at, alpha)
    else:
        rows = (batch, kv_head, q1, q2, at, alpha)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    state = (top, tl.zeros([ROWS], tl.float32), tl.zeros([ROWS, HEAD_DIM], tl.float32))
    state = absorb(ops, strides, sizes, rows, (first, middle), state, scale, TURNED, True)
    top, total, out = absorb(ops, strides, sizes, rows, (middle, last), state, scale, TURNED, False)

    total_or_one = tl.where(total == 0.0, 1.0, total)
    out = out / total_or_one[:, None]
    lse = tl.where(total == 0.0, float("-inf"), top * LN_2 + tl.log(total_or_one))
    place = ((tl.program_id(2) * sizes.batch + batch) * sizes.kv_heads * GROUP + head) * sizes.queries + query  # [R]
    tl.store(ops.lse + place, lse, mask=inside)
    written = ops.out + place[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(written, narrow(out, ops.out.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["splits"])
def merge_splits(parts, part_lse, out, lse, splits, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr):
    """Merge a row's states over at most SPLITS splits; grid (rows,). Parts are [splits, rows, D] and [splits, rows]."""
    row = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS)
    column = tl.arange(0, HEAD_DIM)
    at = split * tl.num_programs(0).to(tl.int64) + row
    part = tl.load(part_lse + at, mask=split < splits, other=float("-inf"))  # [SPLITS]
    top = tl.max(part, axis=0)
    base = tl.where(top == float("-inf"), 0.0, top)
    weight = tl.exp(part - base)
    total = tl.sum(weight, axis=0)
    total_or_one = tl.where(total == 0.0, 1.0, total)
    value = parts + at[:, None] * HEAD_DIM + column[None, :]
    values = tl.load(value, mask=(split < splits)[:, None], other=0.0)  # [SPLITS, D]
    merged = tl.sum(values * weight[:, None], axis=0) / total_or_one
    tl.store(out + row * HEAD_DIM + column, narrow(merged, out.dtype.element_ty))
    tl.store(lse + row, tl.where(total == 0.0, float("-inf"), base + tl.log(total_or_one)))
