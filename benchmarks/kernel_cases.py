"""Inputs for kernel benchmarks and what else computes them: FlexAttention and SDPA, at their best.

Owns how a rival is given its inputs. A rival that starts from pages gathers and rotates keys itself; one that is
measured "alone" is given them gathered, rotated and contiguous. Every layer has pools of its own, as in a model, so
that nothing is measured out of a cache that a model would not have filled.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from attn_kernels import PAGE_TOKENS, Impl, Pages, PageTable, Request, flex, paged_attention
from attn_kernels.quantised import quantise
from attn_kernels.reference import Gathered, gathered
from attn_kernels.ropes import Rotary, plain

SEED = 5
BASE = 10000.0
Attend = Callable[[Request], Tensor]


@dataclass(frozen=True)
class Sizes:
    """Heads, KV heads and head size of a model; rows of a batch, queries and resident tokens of each."""

    heads: int
    kv_heads: int
    dim: int
    queries: int
    resident: int
    batch: int = 1

    def __str__(self) -> str:
        """As the tables print it."""
        many = f"{self.batch} x " if self.batch > 1 else ""
        return f"{self.heads}/{self.kv_heads} x {self.dim}, {many}{self.queries} of {self.resident}"

    @property
    def pages(self) -> int:
        """Entries of a row."""
        return self.resident // PAGE_TOKENS


def layers(sizes: Sizes, count: int) -> list[Request]:
    """Requests of one table, the queries last, in random pages; a third of the entries is favoured by a bias."""
    torch.manual_seed(SEED)
    batch, entries = sizes.batch, sizes.pages
    page = torch.randperm(batch * entries, device="cuda").to(torch.int32).reshape(batch, entries)
    start = (torch.arange(entries, device="cuda") * PAGE_TOKENS).to(torch.int32).expand(batch, -1).contiguous()
    bias = torch.randn(batch, entries, device="cuda") * (torch.rand(batch, entries, device="cuda") < 1 / 3)
    table = PageTable(page, torch.full_like(page, PAGE_TOKENS), start, bias)
    position = torch.arange(sizes.resident - sizes.queries, sizes.resident, device="cuda", dtype=torch.int32)
    rope = plain(Rotary(sizes.resident, sizes.dim, BASE))
    rope = replace(rope, cos=rope.cos.cuda(), sin=rope.sin.cuda())
    alpha = torch.ones(sizes.heads, device="cuda")
    made = []
    for _ in range(count):
        # As the client holds them: heads first.
        shape = (2, sizes.kv_heads, batch * entries, PAGE_TOKENS, sizes.dim)
        pools = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
        asked = (batch, sizes.heads, sizes.queries, sizes.dim)
        query = torch.randn(asked, device="cuda", dtype=torch.bfloat16)
        pages = Pages(pools[0].transpose(0, 1), pools[1].transpose(0, 1))
        at = position.expand(batch, -1).contiguous()
        made.append(Request(query, at, pages, table, rope, alpha, sizes.dim**-0.5))
    return made


def fused(request: Request) -> Tensor:
    """The kernel, from pages."""
    r = request
    return paged_attention(r.query, r.position, r.pages, r.table, r.rope, r.alpha, r.scale, Impl.FUSED).out


def fused_with_table(request: Request) -> Tensor:
    """The kernel, from pages, its table made anew out of one [B, S, 4] tensor, as a runner swaps it in."""
    table = request.table
    columns = torch.stack((table.page, table.tokens, table.position, table.bias.view(torch.int32)))
    made = PageTable(columns[0], columns[1], columns[2], columns[3].view(torch.float32))
    return fused(replace(request, table=made))


def eight_bits(request: Request, dtype: torch.dtype) -> Request:
    """The same over pages in 8 bits, heads first as well."""
    held = quantise(request.pages, dtype) if isinstance(request.pages, Pages) else request.pages
    return replace(request, pages=held)


def flex_end_to_end() -> Attend:
    """FlexAttention from pages: gathering, rotation, mask and attention compiled as one, in fixed sizes."""

    def attend(request: Request) -> Tensor:
        return flex.attend(request, torch.bfloat16).out

    return _compiled(attend)


def flex_in_parts() -> Attend:
    """The same with each part compiled alone."""
    prepare = _compiled(gathered)
    build = _compiled(create_block_mask)
    attention = _compiled(flex_attention)

    def attend(request: Request) -> Tensor:
        held = prepare(request, torch.float32, torch.bfloat16)
        mask = flex.block_mask(request, build)
        return _flexed(request, held, attention, mask)

    return attend


def flex_alone(request: Request) -> Attend:
    """FlexAttention over what `alone` made of a request, with its mask built once."""
    attention = _compiled(flex_attention)
    mask = flex.block_mask(request)

    def attend(made: Request) -> Tensor:
        held = Gathered(made.query, made.pages.keys, made.pages.values, made.query)
        return _flexed(made, held, attention, mask)

    return attend


def alone(request: Request) -> Request:
    """A request whose query is rotated and whose pools are gathered and rotated keys, [B, Hkv, K, D], and values."""
    held = gathered(request, torch.float32)
    query, keys, values = (x.to(torch.bfloat16).contiguous() for x in (held.query, held.keys, held.values))
    return replace(request, query=query, pages=Pages(keys, values))


def gather_and_sdpa(request: Request) -> Tensor:
    """SDPA from pages: gathering, rotation, a mask of biases, attention."""
    r = request
    slots = torch.arange(PAGE_TOKENS, device="cuda")
    at = (r.table.position[..., None] + slots).flatten(1)
    pages = r.table.page.long()
    keys, values = (pool[pages].transpose(1, 2).flatten(2, 3) for pool in (r.pages.keys, r.pages.values))
    query, keys = _rotated(r.query, r.rope.cos, r.rope.sin, r.position), _rotated(keys, r.rope.cos, r.rope.sin, at)
    bias = (r.alpha[:, None] * r.table.bias[:, None]).to(query.dtype).repeat_interleave(PAGE_TOKENS, dim=2)
    mask = bias[:, :, None].masked_fill(at[:, None, None] > r.position[:, None, :, None], -torch.inf)
    return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=r.scale, enable_gqa=True)


def sdpa_alone(request: Request) -> Tensor:
    """SDPA over what `alone` made, without a bias."""
    queries, keys = request.query.shape[2], request.pages.keys.shape[2]
    mask = causal_lower_right(queries, keys) if queries > 1 else None
    return scaled_dot_product_attention(
        request.query, request.pages.keys, request.pages.values, attn_mask=mask, scale=request.scale, enable_gqa=True
    )


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """In fixed sizes, whole or not at all: nothing falls back to eager, not even after many sizes."""
    return torch.compile(function, dynamic=False, fullgraph=True)


def _flexed(request: Request, held: Gathered, attention: Callable[..., Any], mask: object) -> Tensor:
    out: Tensor = attention(
        held.query,
        held.keys,
        held.values,
        score_mod=flex.score_mod(request.table, request.alpha),
        block_mask=mask,
        scale=request.scale,
        enable_gqa=True,
        return_aux=AuxRequest(lse=True),
    )[0]
    return out


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, at: Tensor) -> Tensor:
    cos, sin = (table[at][:, None].to(x.dtype) for table in (cos, sin))
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
