# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The kernels: the best score of each group of bookmarks by sketches, and exact scores of chosen groups by rows.

Keys are those of `similarity.keys`. Shapes: R bookmarks of a tile, G of a group, M queries padded to a power of two.
"""

import triton
import triton.language as tl

from attn_kernels.forward.arithmetic import INTERPRETED

NOTHING = tl.constexpr(-(2**63))


@triton.jit
def packed(score, index):
    """Keys of float32 scores and int64 indices."""
    # -0.0 and 0.0 are equal scores: the sum has one of them only.
    bits = (score + 0.0).to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | index


@triton.jit
def columns_of(base, row, column, STRIDE: tl.constexpr, CHUNK: tl.constexpr):
    """CHUNK columns of some rows, [rows, CHUNK]; 0 past the last one. Every row exists."""
    at = base + row.to(tl.int64)[:, None] * STRIDE + column[None, :]
    if STRIDE % CHUNK == 0:
        return tl.load(at)
    return tl.load(at, mask=(column < STRIDE)[None, :], other=0)


@triton.jit
def lower_half(x):
    """16 times the 4-bit code in the lower half of each byte."""
    if INTERPRETED:
        return x << 4
    # Four bytes at once: byte by byte the scan would be bound by this, not by memory.
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t; shl.b32 t, $1, 4; and.b32 $0, t, 0xF0F0F0F0; }",
        "=r,r",
        [x],
        dtype=tl.int8,
        is_pure=True,
        pack=4,
    )


@triton.jit
def upper_half(x):
    """16 times the 4-bit code in the upper half of each byte."""
    if INTERPRETED:
        return x & -16
    return tl.inline_asm_elementwise("and.b32 $0, $1, 0xF0F0F0F0;", "=r,r", [x], dtype=tl.int8, is_pure=True, pack=4)


@triton.jit
def asked_of(query, asked, inside, column, STRIDE: tl.constexpr, WIDTH: tl.constexpr):
    """Columns of the queries' codes, [columns, M]; 0 past the last of either."""
    at = query + asked[None, :] * STRIDE + column[:, None]
    return tl.load(at, mask=inside[None, :] & (column < WIDTH)[:, None], other=0)


@triton.jit
def add_dots(x, q, q_upper, dots, HALVES: tl.constexpr):
    """dots + products of bytes [R, CHUNK] with queries [CHUNK, M], exact in int32."""
    if HALVES == 1:
        return tl.dot(x, q, acc=dots, out_dtype=tl.int32)
    dots = tl.dot(lower_half(x), q, acc=dots, out_dtype=tl.int32)
    return tl.dot(upper_half(x), q_upper, acc=dots, out_dtype=tl.int32)


@triton.jit(do_not_specialize=["queries", "groups"])
def scan_groups(
    sketch,
    scale,
    query,
    ends,
    keys,
    queries,
    groups,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    STAGES: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Key of each group's best score for each query, to `keys` [m, groups]; grid (programs,), any number.

    A sketch has WIDTH bytes: codes of 8 bits, or two of 4 where HALVES is 2. Groups past every query's end are not
    visited: `keys` holds NOTHING there beforehand.
    """
    asked = tl.arange(0, QUERIES)
    inside = asked < queries
    end = tl.load(ends + asked, mask=inside, other=0)  # [M]
    tiles = tl.cdiv(tl.max(end, axis=0), ROWS)
    column = tl.arange(0, CHUNK)
    # The whole of each query where there is one chunk.
    q = asked_of(query, asked, inside, column, HALVES * WIDTH, WIDTH)
    q_upper = q
    if HALVES == 2:
        q_upper = asked_of(query + WIDTH, asked, inside, column, HALVES * WIDTH, WIDTH)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=STAGES):
        row = tile * ROWS + tl.arange(0, ROWS)
        dots = add_dots(columns_of(sketch, row, column, WIDTH, CHUNK), q, q_upper, None, HALVES)
        for start in tl.static_range(CHUNK, WIDTH, CHUNK):
            more = start + column
            part = asked_of(query, asked, inside, more, HALVES * WIDTH, WIDTH)
            part_upper = part
            if HALVES == 2:
                part_upper = asked_of(query + WIDTH, asked, inside, more, HALVES * WIDTH, WIDTH)
            dots = add_dots(columns_of(sketch, row, more, WIDTH, CHUNK), part, part_upper, dots, HALVES)
        score = dots.to(tl.float32) * tl.load(scale + row)[:, None]
        score = tl.where(row[:, None] < end[None, :], score, float("-inf"))
        best = tl.max(tl.reshape(score, [ROWS // GROUP, GROUP, QUERIES]), axis=1)  # [R / G, M]
        group = tile * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
        key = tl.where(best == float("-inf"), NOTHING, packed(best, group.to(tl.int64)[:, None]))
        tl.store(keys + asked.to(tl.int64)[None, :] * groups + group[:, None], key, mask=inside[None, :])


@triton.jit(do_not_specialize=["count"])
def score_groups(
    codes, scale, query, ends, chosen, keys, count, DIMS: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr
):
    """Keys of all bookmarks of each query's chosen groups, to `keys` [m, count, G]; grid (count, m).

    `chosen` [m, count] are keys of groups; of NOTHING come NOTHING.
    """
    asked = tl.program_id(1).to(tl.int64)
    place = asked * count + tl.program_id(0)
    picked = tl.load(chosen + place)
    exists = picked != NOTHING
    row = tl.where(exists, picked & 0xFFFFFFFF, 0) * GROUP + tl.arange(0, GROUP)
    total = tl.zeros([GROUP], tl.float32)
    for start in tl.static_range(0, DIMS, CHUNK):
        column = start + tl.arange(0, CHUNK)
        q = tl.load(query + asked * DIMS + column, mask=column < DIMS, other=0.0)
        total += tl.sum(columns_of(codes, row, column, DIMS, CHUNK).to(tl.float32) * q[None, :], axis=1)
    seen = exists & (row < tl.load(ends + asked))
    key = tl.where(seen, packed(total * tl.load(scale + row), row), NOTHING)
    tl.store(keys + place * GROUP + tl.arange(0, GROUP), key)
