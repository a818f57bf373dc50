# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What all kernels read and how: operands, rotation, pages and their positions, keys and queries rotated ahead.

Invariants:
  - addresses are 64-bit: a pool may hold more than 2^31 elements;
  - of a page, only keys below `tokens` are read;
  - a page outside the pools or a position outside the tables is never followed: it turns the result into NaN.

Pages are dequantised here: elements of another type than the query's are taken as quantised, in float32 until they are
rotated. Shapes: R rows of a tile, T keys of a page, D head size, E = D / 2.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from attn_kernels.forward.arithmetic import narrow
from attn_kernels.records import PAGE_TOKENS

PAGE = tl.constexpr(PAGE_TOKENS)
# Entries looked at together in search of the causal edge: one step up to 65,536 keys.
SCAN = tl.constexpr(1024)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# A position past all others, for rows that a tile does not fill.
NEVER = tl.constexpr(2**31 - 1)


class Operands(NamedTuple):
    """Tensors of one launch. All but query, keys and values are contiguous.

    `out` is [splits, B, H, n, D] and `lse` [splits, B, H, n]; both hold one split's state each. `turned` is every
    entry's rotated keys, [B, Hkv, S, 64, D], if keys are rotated ahead, and is not touched otherwise. The scales are
    [P, Hkv, D] and [P, Hkv, 64] of quantised pages, and are not touched otherwise.
    """

    query: Any
    query_position: Any
    key_pool: Any
    value_pool: Any
    key_scale: Any
    value_scale: Any
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
def rows_of(sizes, tile, pair, GROUP: tl.constexpr, ROWS: tl.constexpr):
    """Of a tile's rows: batch row, KV head, row, whether it exists, query and head; `pair` counts batch x KV heads."""
    batch = (pair // sizes.kv_heads).to(tl.int64)
    kv_head = (pair % sizes.kv_heads).to(tl.int64)
    row = tile * ROWS + tl.arange(0, ROWS)
    return batch, kv_head, row, row < sizes.queries * GROUP, (row // GROUP).to(tl.int64), kv_head * GROUP + row % GROUP


@triton.jit
def turn(first, second, at, mask, angles, HALF: tl.constexpr):
    """Both halves [R, E], float32, rotated to positions `at` [R]; NaN where masked. `angles` are (cos, sin)."""
    angle = at.to(tl.int64)[:, None] * (2 * HALF) + tl.arange(0, HALF)[None, :]
    cos = tl.load(angles[0] + angle, mask=mask[:, None], other=float("nan"))
    sin = tl.load(angles[1] + angle, mask=mask[:, None], other=float("nan"))
    return first * cos - second * sin, second * cos + first * sin


@triton.jit
def load_turned(start, strides, row, at, mask, angles, HALF: tl.constexpr):
    """Rows [R] of a matrix, rotated by halves to positions `at` [R]: both halves, each [R, E]; NaN where masked.

    `strides` are those of a row and of a column; `angles` the tables (cos, sin), contiguous.
    """
    source = start + row[:, None] * strides[0] + tl.arange(0, HALF)[None, :] * strides[1]
    first = tl.load(source, mask=mask[:, None], other=0.0)
    second = tl.load(source + HALF * strides[1], mask=mask[:, None], other=0.0)
    one, two = turn(first.to(tl.float32), second.to(tl.float32), at, mask, angles, HALF)
    return narrow(one, first.dtype), narrow(two, first.dtype)


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
def load_keys(ops, strides, sizes, page, kv_head, at, sound, HALF: tl.constexpr):
    """A page's rotated keys in the query's dtype, both halves [T, E]; NaN where they cannot be read."""
    start = ops.key_pool + page * strides.key_pool[0] + kv_head * strides.key_pool[1]
    slot = tl.arange(0, PAGE).to(tl.int64)
    if ops.key_pool.dtype.element_ty == ops.query.dtype.element_ty:
        within = (strides.key_pool[2], strides.key_pool[3])
        return load_turned(start, within, slot, at, sound, (ops.cos, ops.sin), HALF)
    column = tl.arange(0, HALF)
    source = start + slot[:, None] * strides.key_pool[2] + column[None, :] * strides.key_pool[3]
    scale = ops.key_scale + (page * sizes.kv_heads + kv_head) * (2 * HALF) + column
    pages = page + 0 * column
    some = (pages >= 0) & (pages < sizes.pages)
    first = tl.load(source, mask=sound[:, None], other=0.0).to(tl.float32)
    second = tl.load(source + HALF * strides.key_pool[3], mask=sound[:, None], other=0.0).to(tl.float32)
    first = first * tl.load(scale, mask=some, other=0.0)[None, :]
    second = second * tl.load(scale + HALF, mask=some, other=0.0)[None, :]
    one, two = turn(first, second, at, sound, (ops.cos, ops.sin), HALF)
    return narrow(one, ops.query.dtype.element_ty), narrow(two, ops.query.dtype.element_ty)


@triton.jit
def load_values(ops, strides, sizes, page, kv_head, sound, HEAD_DIM: tl.constexpr):
    """A page's values in the query's dtype [T, D]; 0 where they cannot be read."""
    slot = tl.arange(0, PAGE)
    source = ops.value_pool + page * strides.value_pool[0] + kv_head * strides.value_pool[1]
    source += slot.to(tl.int64)[:, None] * strides.value_pool[2]
    source += tl.arange(0, HEAD_DIM)[None, :] * strides.value_pool[3]
    value = tl.load(source, mask=sound[:, None], other=0.0)
    if ops.value_pool.dtype.element_ty == ops.query.dtype.element_ty:
        return value
    scale = ops.value_scale + (page * sizes.kv_heads + kv_head) * PAGE + slot
    scaled = value.to(tl.float32) * tl.load(scale, mask=sound, other=0.0)[:, None]
    return narrow(scaled, ops.query.dtype.element_ty)


@triton.jit
def joined(first, second):
    """[R, D] of both halves [R, E]."""
    return tl.reshape(tl.permute(tl.join(first, second), (0, 2, 1)), [first.shape[0], 2 * first.shape[1]])


@triton.jit
def halves(x):
    """Both halves [R, E] of [R, D]."""
    return tl.split(tl.permute(tl.reshape(x, [x.shape[0], 2, x.shape[1] // 2]), (0, 2, 1)))


@triton.jit
def ahead(turned, sizes, kv_head, entry, HEAD_DIM: tl.constexpr):
    """Addresses of an entry's rotated keys [T, D]; `entry` counts over all batch rows."""
    batch = entry // sizes.entries
    block = ((batch * sizes.kv_heads + kv_head) * sizes.entries + entry % sizes.entries) * PAGE * HEAD_DIM
    return turned + block + tl.arange(0, PAGE)[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]


@triton.jit(do_not_specialize=["sizes"])
def turn_keys(ops, strides, sizes, HEAD_DIM: tl.constexpr):
    """Rotate the keys of every entry once, into `turned`; grid (B * S, Hkv)."""
    HALF: tl.constexpr = HEAD_DIM // 2
    entry, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    page, at, _filled, sound = keys_of(ops, sizes, entry)
    first, second = load_keys(ops, strides, sizes, page, kv_head, at, sound, HALF)
    tl.store(ahead(ops.turned, sizes, kv_head, entry, HEAD_DIM), joined(first, second))


@triton.jit(do_not_specialize=["sizes"])
def turn_rows(ops, rows, row_lse, strides, sizes, HEAD_DIM: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr):
    """Rotate the queries once, into `rows` [B, Hkv, n * G, D], and put their lse beside them; grid (tiles, B * Hkv).

    `row_lse` is in log2 units, and inf where a query sees no key, so that exp2(score - row_lse) is 0 there.
    """
    HALF: tl.constexpr = HEAD_DIM // 2
    pair = tl.program_id(1)
    batch, _kv_head, row, inside, query, head = rows_of(sizes, tl.program_id(0), pair, GROUP, ROWS)
    at = tl.load(ops.query_position + batch * sizes.queries + query, mask=inside, other=-1)
    start = ops.query + batch * strides.query[0] + head[:, None] * strides.query[1]
    known = (at >= 0) & (at < sizes.positions)
    within = (strides.query[2], strides.query[3])
    first, second = load_turned(start, within, query, at, known, (ops.cos, ops.sin), HALF)
    to = pair.to(tl.int64) * sizes.queries * GROUP + row
    place = rows + to[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(place, joined(first, second), mask=inside[:, None])
    state = (batch * sizes.kv_heads * GROUP + head) * sizes.queries + query
    lse = tl.load(ops.lse + state, mask=inside, other=0.0)
    tl.store(row_lse + to, tl.where(lse == float("-inf"), float("inf"), lse * LOG2_E), mask=inside)


@triton.jit
def edges(ops, sizes, batch, earliest, latest):
    """Leading entries that all queries from `earliest` on see whole, and one past the last that `latest` sees.

    The former can be read without masks: they are full, and their page and positions lie inside pools and tables.
    """
    whole = sizes.entries
    end = 0
    row = batch * sizes.entries
    for first in range(0, sizes.entries, SCAN):
        entry = first + tl.arange(0, SCAN)
        exists = entry < sizes.entries
        held = tl.load(ops.tokens + row + entry, mask=exists, other=0)
        start = tl.load(ops.position + row + entry, mask=exists, other=0)
        page = tl.load(ops.page + row + entry, mask=exists, other=0)
        seen = (held > 0) & (start <= latest)
        end = tl.maximum(end, tl.max(tl.where(seen, entry + 1, 0), axis=0))
        last = start + (PAGE - 1)
        inside = (page >= 0) & (page < sizes.pages) & (start >= 0) & (last < sizes.positions)
        full = (held >= PAGE) & (last <= earliest) & inside
        whole = tl.minimum(whole, tl.min(tl.where(full | (entry >= sizes.entries), sizes.entries, entry), axis=0))
    return whole, end
