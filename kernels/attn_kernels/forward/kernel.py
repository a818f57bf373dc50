# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The kernels: attention of a tile of rows over one split of its entries, the merge of splits, and keys rotated ahead.

Invariants:
  - addresses are 64-bit: a pool may hold more than 2^31 elements;
  - of a page, only keys below `tokens` are read, and every element of an output that a program owns is written;
  - a page outside the pools or a position outside the tables is never followed: it turns the result into NaN.

Scores are kept in log2 units (log2(e) is folded into scale and bias), because exp2 is what the hardware has. Shapes:
R rows of a tile, T keys of a page, D head size, E = D / 2.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from attn_kernels.forward.arithmetic import narrow, product
from attn_kernels.records import PAGE_TOKENS

PAGE = tl.constexpr(PAGE_TOKENS)
# Entries looked at together in search of the causal edge.
SCAN = tl.constexpr(128)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


class Operands(NamedTuple):
    """Tensors of one launch. All but query, keys and values are contiguous.

    `out` is [splits, B, H, n, D] and `lse` [splits, B, H, n]; both hold one split's state each. `turned` is every
    entry's rotated keys, [B, Hkv, S, 64, D], if keys are rotated ahead, and is not touched otherwise.
    """

    query: Any
    query_position: Any
    key_pool: Any
    value_pool: Any
    page: Any
    tokens: Any
    position: Any
    bias: Any
    cos: Any
    sin: Any
    alpha: Any
    turned: Any
    out: Any
    lse: Any


class Strides(NamedTuple):
    """In elements, of query [B, H, n, D], keys and values [P, Hkv, 64, D]."""

    query: tuple[int, ...]
    key_pool: tuple[int, ...]
    value_pool: tuple[int, ...]


class Sizes(NamedTuple):
    """Batch rows B, KV heads Hkv, queries n, entries S, pages P and table positions L."""

    batch: int
    kv_heads: int
    queries: int
    entries: int
    pages: int
    positions: int


@triton.jit
def load_turned(start, strides, row, at, mask, angles, HALF: tl.constexpr):
    """Rows [R] of a matrix, rotated by halves to positions `at` [R]: both halves, each [R, E]; NaN where masked.

    `strides` are those of a row and of a column; `angles` the tables (cos, sin), contiguous.
    """
    column = tl.arange(0, HALF)[None, :]
    source = start + row[:, None] * strides[0] + column * strides[1]
    first = tl.load(source, mask=mask[:, None], other=0.0)
    second = tl.load(source + HALF * strides[1], mask=mask[:, None], other=0.0)
    angle = at.to(tl.int64)[:, None] * (2 * HALF) + column
    cos = tl.load(angles[0] + angle, mask=mask[:, None], other=float("nan"))
    sin = tl.load(angles[1] + angle, mask=mask[:, None], other=float("nan"))
    turned = first.to(tl.float32) * cos - second.to(tl.float32) * sin
    other = second.to(tl.float32) * cos + first.to(tl.float32) * sin
    return narrow(turned, first.dtype), narrow(other, first.dtype)


@triton.jit
def keys_of(ops, sizes, entry):
    """Page of an entry, packed positions of its keys, which of them are filled, and which of those can be read."""
    slot = tl.arange(0, PAGE)
    page = tl.load(ops.page + entry).to(tl.int64)
    tokens = tl.load(ops.tokens + entry)
    at = tl.load(ops.position + entry) + slot
    readable = tl.where((page >= 0) & (page < sizes.pages), tokens, 0)
    return page, at, slot < tokens, (slot < readable) & (at >= 0) & (at < sizes.positions)


@triton.jit
def load_keys(ops, strides, page, kv_head, at, sound, HALF: tl.constexpr):
    """A page's rotated keys, both halves [T, E]; NaN where they cannot be read."""
    start = ops.key_pool + page * strides.key_pool[0] + kv_head * strides.key_pool[1]
    within = (strides.key_pool[2], strides.key_pool[3])
    slot = tl.arange(0, PAGE).to(tl.int64)
    return load_turned(start, within, slot, at, sound, (ops.cos, ops.sin), HALF)


@triton.jit
def ahead(turned, entry, kv_heads, kv_head, entries, HALF: tl.constexpr):
    """Addresses of an entry's rotated keys, first halves [T, E]."""
    batch = entry // entries
    block = ((batch * kv_heads + kv_head) * entries + entry % entries) * PAGE * (2 * HALF)
    return turned + block + tl.arange(0, PAGE)[:, None] * (2 * HALF) + tl.arange(0, HALF)[None, :]


@triton.jit(do_not_specialize=["sizes"])
def turn_keys(ops, strides, sizes, HEAD_DIM: tl.constexpr):
    """Rotate the keys of every entry once, into `turned`; grid (B * S, Hkv)."""
    HALF: tl.constexpr = HEAD_DIM // 2
    entry, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    page, at, _filled, sound = keys_of(ops, sizes, entry)
    first, second = load_keys(ops, strides, page, kv_head, at, sound, HALF)
    to = ahead(ops.turned, entry, sizes.kv_heads, kv_head, sizes.entries, HALF)
    tl.store(to, first)
    tl.store(to + HALF, second)


@triton.jit
def edge(tokens, position, entries, latest):
    """One past the last entry that holds a key at or before `latest`."""
    end = 0
    for first in range(0, entries, SCAN):
        entry = first + tl.arange(0, SCAN)
        held = tl.load(tokens + entry, mask=entry < entries, other=0)
        start = tl.load(position + entry, mask=entry < entries, other=0)
        seen = (held > 0) & (start <= latest)
        end = tl.maximum(end, tl.max(tl.where(seen, entry + 1, 0), axis=0))
    return end


@triton.jit(do_not_specialize=["sizes"])
def attend_split(
    ops, strides, sizes, scale, HEAD_DIM: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, TURNED: tl.constexpr
):
    """Attention state of one tile of rows over one split; grid (tiles, B * Hkv, splits)."""
    HALF: tl.constexpr = HEAD_DIM // 2
    batch = (tl.program_id(1) // sizes.kv_heads).to(tl.int64)
    kv_head = (tl.program_id(1) % sizes.kv_heads).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < sizes.queries * GROUP
    query = (row // GROUP).to(tl.int64)
    head = kv_head * GROUP + row % GROUP

    at = tl.load(ops.query_position + batch * sizes.queries + query, mask=inside, other=-1)  # [R]
    rows = ops.query + batch * strides.query[0] + head[:, None] * strides.query[1]  # [R, 1]
    known = (at >= 0) & (at < sizes.positions)
    within = (strides.query[2], strides.query[3])
    q1, q2 = load_turned(rows, within, query, at, known, (ops.cos, ops.sin), HALF)
    alpha = tl.load(ops.alpha + head, mask=inside, other=0.0) * LOG2_E  # [R]

    row_entries = batch * sizes.entries
    end = edge(ops.tokens + row_entries, ops.position + row_entries, sizes.entries, tl.max(at, axis=0))
    share = tl.cdiv(end, tl.num_programs(2))
    first_entry = tl.program_id(2) * share
    slot = tl.arange(0, PAGE)
    column = tl.arange(0, HEAD_DIM)

    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    for entry in range(first_entry, tl.minimum(first_entry + share, end)):
        page, key_at, filled, sound = keys_of(ops, sizes, row_entries + entry)
        # A key that cannot be read scores NaN; those not filled score NaN too and are masked below.
        if TURNED:
            turned = ahead(ops.turned, row_entries + entry, sizes.kv_heads, kv_head, sizes.entries, HALF)
            k1, k2 = tl.load(turned), tl.load(turned + HALF)
        else:
            k1, k2 = load_keys(ops, strides, page, kv_head, key_at, sound, HALF)
        scores = product(q1, tl.trans(k1), tl.zeros([ROWS, PAGE], tl.float32))
        scores = product(q2, tl.trans(k2), scores)
        bias = tl.load(ops.bias + row_entries + entry)
        scores = scores * (scale * LOG2_E) + (alpha * bias)[:, None]
        seen = filled[None, :] & (key_at[None, :] <= at[:, None])
        scores = tl.where(seen, scores, float("-inf"))

        new_top = tl.maximum(top, tl.max(scores, axis=1))
        # A row that has seen no key yet: exp2(-inf - 0) is 0 where exp2(-inf + inf) is NaN.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(scores - base[:, None])
        kept = tl.exp2(top - base)
        total = total * kept + tl.sum(weights, axis=1)
        value = ops.value_pool + page * strides.value_pool[0] + kv_head * strides.value_pool[1]
        value += slot.to(tl.int64)[:, None] * strides.value_pool[2] + column[None, :] * strides.value_pool[3]
        v = tl.load(value, mask=sound[:, None], other=0.0)
        out = product(narrow(weights, v.dtype), v, out * kept[:, None])
        top = new_top

    total_or_one = tl.where(total == 0.0, 1.0, total)
    out = out / total_or_one[:, None]
    lse = tl.where(total == 0.0, float("-inf"), top * LN_2 + tl.log(total_or_one))
    state = ((tl.program_id(2) * sizes.batch + batch) * sizes.kv_heads * GROUP + head) * sizes.queries + query  # [R]
    tl.store(ops.lse + state, lse, mask=inside)
    written = ops.out + state[:, None] * HEAD_DIM + column[None, :]
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
