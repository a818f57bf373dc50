"""Inputs for kernel tests, from a seed: odd sizes, gaps between entries, NaN wherever nothing may be read."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attn_kernels import PAGE_TOKENS, AttentionState, Impl, Pages, PageTable, Rope, paged_attention
from attn_kernels.records import Request

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Positions from one entry's first token to the next one's: more than a page, so that entries are not adjacent.
ENTRY_STRIDE = 71
# Pages of the pool that no entry names.
SPARE_PAGES = 2


@dataclass(frozen=True)
class Layout:
    """Sizes of a case; `rows` holds, for each row of the batch, the filled tokens of each of its entries."""

    heads: int = 3
    kv_heads: int = 1
    queries: int = 5
    dim: int = 64
    rows: tuple[tuple[int, ...], ...] = ((64, 64, 20),)


def request(layout: Layout, dtype: torch.dtype = torch.float32, seed: int = 0) -> Request:
    """A case whose queries are the last positions of each row; unread slots, pages and entries are poison."""
    rng = torch.Generator().manual_seed(seed)
    batch, entries = len(layout.rows), max(map(len, layout.rows))
    used = sum(map(len, layout.rows))
    shape = (used + SPARE_PAGES, layout.kv_heads, PAGE_TOKENS, layout.dim)
    keys, values = (torch.full(shape, torch.nan) for _ in range(2))
    order = iter(torch.randperm(used + SPARE_PAGES, generator=rng).tolist())
    # Entries that a short row lacks name a page that does not exist.
    page = torch.full((batch, entries), shape[0] + 3, dtype=torch.int32)
    tokens, start = torch.zeros_like(page), torch.zeros_like(page)
    for row, filled in enumerate(layout.rows):
        for entry, count in enumerate(filled):
            at = next(order)
            page[row, entry], tokens[row, entry], start[row, entry] = at, count, entry * ENTRY_STRIDE
            for pool in (keys, values):
                pool[at, :, :count] = torch.randn(layout.kv_heads, count, layout.dim, generator=rng)
    last = (start + tokens).amax(dim=1, keepdim=True) if entries else torch.ones(batch, 1, dtype=torch.int32)
    position = (last - layout.queries + torch.arange(layout.queries)).clamp(min=0).to(torch.int32)
    query = torch.randn(batch, layout.heads, layout.queries, layout.dim, generator=rng)
    made = Request(
        query=query.to(dtype),
        position=position,
        pages=Pages(keys.to(dtype), values.to(dtype)),
        table=PageTable(page, tokens, start, torch.randn(batch, entries, generator=rng)),
        rope=rope(ENTRY_STRIDE * (entries + 1) + layout.queries, layout.dim),
        alpha=torch.rand(layout.heads, generator=rng),
        scale=layout.dim**-0.5,
    )
    return mapped(made, lambda tensor: tensor.to(DEVICE))


def rope(positions: int, dim: int) -> Rope:
    """Tables as transformers makes them for Llama."""
    frequency = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.outer(torch.arange(positions, dtype=torch.float64), frequency).repeat(1, 2)
    return Rope(angle.cos().float(), angle.sin().float())


def mapped(made: Request, change: Callable[[Tensor], Tensor]) -> Request:
    """The same request with every tensor changed."""
    pages, table, tables = made.pages, made.table, made.rope
    return replace(
        made,
        query=change(made.query),
        position=change(made.position),
        pages=Pages(change(pages.keys), change(pages.values)),
        table=PageTable(change(table.page), change(table.tokens), change(table.position), change(table.bias)),
        rope=Rope(change(tables.cos), change(tables.sin)),
        alpha=change(made.alpha),
    )


def run(made: Request, impl: Impl = Impl.FUSED) -> AttentionState:
    """Attend through the public function."""
    return paged_attention(made.query, made.position, made.pages, made.table, made.rope, made.alpha, made.scale, impl)


def entries(made: Request, chosen: slice) -> Request:
    """The same queries over some of the entries."""
    table = made.table
    part = PageTable(*(column[:, chosen] for column in (table.page, table.tokens, table.position, table.bias)))
    return replace(made, table=part)


def row(made: Request, index: int) -> Request:
    """One row of the batch alone, without the entries that it lacks."""
    table, one = made.table, slice(index, index + 1)
    held = int((table.tokens[index] > 0).sum())
    part = PageTable(*(column[one, :held] for column in (table.page, table.tokens, table.position, table.bias)))
    return replace(made, query=made.query[one], position=made.position[one], table=part)
