"""Attention over pages of keys and values under one softmax: the one function, and the checks in front of it.

Owns validation and the choice of implementation. Invariant: what is asked for runs, or a typed error says why not.
Must not know: triton (`attn_kernels.forward` is imported when FUSED is first asked for), or where pages come from.
"""

from types import ModuleType

import torch
from torch import Tensor

from attn_kernels import reference
from attn_kernels.errors import (
    DeviceMismatch,
    FusedUnavailable,
    UnsupportedDtype,
    UnsupportedGradient,
    UnsupportedShape,
)
from attn_kernels.quantised import LARGEST
from attn_kernels.records import PAGE_TOKENS, AttentionState, Impl, Pages, PageTable, QuantPages, Request, Rope

HEAD_DIMS = (64, 128, 256)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def paged_attention(
    query: Tensor,
    position: Tensor,
    pages: Pages | QuantPages,
    table: PageTable,
    rope: Rope,
    alpha: Tensor,
    scale: float,
    impl: Impl,
) -> AttentionState:
    """Attend each query to the filled keys of its row's pages at or before its own packed position.

    The score of the key at packed position k for the query at q >= k is
    `scale * rope(query, q) . rope(key, k) + alpha[head] * bias[page]`; one softmax runs over all of them.

    Args:
        query: Before rotation, [B, H, n, D]; H is a multiple of Hkv, D is 64, 128 or 256. Any strides.
        position: Packed position of each query, int32 [B, n].
        pages: Pools in the query's dtype, float16, bfloat16 or float32; or in 8 bits, dequantised on the way.
        table: Each row's entries. S may be 0.
        rope: Tables that cover every position. FUSED gives NaN where one is not covered, or a page is outside the
            pools; REFERENCE raises IndexError.
        alpha: Weight of the bias in each head, float32 [H].
        scale: Of the dot products, usually D ** -0.5.
        impl: REFERENCE or FUSED. Never falls back.

    Raises:
        UnsupportedShape, UnsupportedDtype, DeviceMismatch: An argument does not fit.
        UnsupportedGradient: FUSED with rotary tables or quantised pages that require a gradient.
        FusedUnavailable: FUSED without triton, on a CPU outside Triton's interpreter, or over float8_e4m3fn on a GPU
            before compute capability 8.9.

    Numerics: products, softmax and sums in float32; rotated queries and keys, and the weights, are rounded to the
        query's dtype before they are multiplied, in both implementations; so are dequantised values.
    Gradients: of query, keys, values, alpha and table.bias in both, through out and lse; FUSED gives the same bits for
        the same inputs.
    Cost: FUSED reads each filled page once per KV head and tile of queries, and nothing in it waits for the device.
    Source: online softmax (arXiv 1805.02867); split keys (flash decoding); sinks (arXiv 2309.17453); gradients
        (arXiv 2307.08691).
    """
    request = Request(query, position, pages, table, rope, alpha, scale)
    _check(request)
    if impl is Impl.REFERENCE:
        return reference.attend(request, rounding=query.dtype)
    _check_gradients(request)
    state: AttentionState = _fused().attend(request)
    return state


def received_mass(request: Request, lse: Tensor, impl: Impl) -> Tensor:
    """Attention that each key of the table gets, summed over queries and heads: float32 [B, S, 64], 0 if not filled.

    A row's sum is its number of heads times that of its queries that see a key. No gradients.

    Args:
        request: As it was attended to.
        lse: What attending gave; REFERENCE computes it again.
        impl: REFERENCE or FUSED. Never falls back.

    Raises:
        UnsupportedShape, UnsupportedDtype, DeviceMismatch, FusedUnavailable: As `paged_attention`.

    Numerics: as `paged_attention`; sums in float32.
    Cost: FUSED reads keys once more and no values.
    """
    _check(request)
    _check_tensor("lse", lse, tuple(request.query.shape[:3]), torch.float32, request)
    with torch.no_grad():
        if impl is Impl.REFERENCE:
            return reference.received(request, rounding=request.query.dtype)
        mass: Tensor = _fused().received(request, lse)
        return mass


def _fused() -> ModuleType:
    """The package of fused kernels, whose operator `backward` makes differentiable."""
    try:
        from attn_kernels import backward, forward
    except ModuleNotFoundError as missing:
        if missing.name != "triton":
            raise
        raise FusedUnavailable("impl: expected triton to be installed for FUSED, got none") from missing
    assert backward.paged_backward is not None
    return forward


def _check(request: Request) -> None:
    _check_query(request)
    _check_operands(request)
    if isinstance(request.pages, QuantPages):
        _check_scales(request, request.pages)


def _check_query(request: Request) -> None:
    query, keys = request.query, request.pages.keys
    if query.ndim != 4 or 0 in query.shape or query.shape[-1] not in HEAD_DIMS:
        sizes = ", ".join(map(str, HEAD_DIMS))
        raise UnsupportedShape(f"query: expected [B, H, n, D] with D of {sizes}, got {tuple(query.shape)}")
    if query.dtype not in DTYPES:
        raise UnsupportedDtype(f"query: expected one of {', '.join(map(str, DTYPES))}, got {query.dtype}")
    if keys.ndim != 4 or keys.shape[1] == 0 or query.shape[1] % keys.shape[1]:
        got = f"{query.shape[1]} heads over pages.keys {tuple(keys.shape)}"
        raise UnsupportedShape(f"query: expected heads in a multiple of Hkv of [P, Hkv, {PAGE_TOKENS}, D], got {got}")


def _check_operands(request: Request) -> None:
    """Sizes, dtypes and devices of everything but the query, from the query's."""
    batch, heads, count, dim = request.query.shape
    pools, entries = request.pages.keys.shape[:2], request.table.page.shape[-1:]
    keys = request.pages.keys
    dtype = request.query.dtype
    if isinstance(request.pages, QuantPages):
        if keys.dtype not in LARGEST:
            raise UnsupportedDtype(f"pages.keys: expected one of {', '.join(map(str, LARGEST))}, got {keys.dtype}")
        dtype = keys.dtype
    expected: tuple[tuple[str, Tensor, tuple[int, ...], torch.dtype], ...] = (
        ("position", request.position, (batch, count), torch.int32),
        ("pages.keys", keys, (*pools, PAGE_TOKENS, dim), dtype),
        ("pages.values", request.pages.values, (*pools, PAGE_TOKENS, dim), dtype),
        ("table.page", request.table.page, (batch, *entries), torch.int32),
        ("table.tokens", request.table.tokens, (batch, *entries), torch.int32),
        ("table.position", request.table.position, (batch, *entries), torch.int32),
        ("table.bias", request.table.bias, (batch, *entries), torch.float32),
        ("rope.cos", request.rope.cos, (request.rope.cos.shape[0], dim), torch.float32),
        ("rope.sin", request.rope.sin, (request.rope.cos.shape[0], dim), torch.float32),
        ("alpha", request.alpha, (heads,), torch.float32),
    )
    for name, tensor, shape, kind in expected:
        _check_tensor(name, tensor, shape, kind, request)


def _check_scales(request: Request, pages: QuantPages) -> None:
    count, heads, tokens, dim = pages.keys.shape
    _check_tensor("pages.key_scale", pages.key_scale, (count, heads, dim), torch.float32, request)
    _check_tensor("pages.value_scale", pages.value_scale, (count, heads, tokens), torch.float32, request)


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, request: Request) -> None:
    if tuple(tensor.shape) != shape:
        raise UnsupportedShape(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
    if tensor.dtype != dtype:
        raise UnsupportedDtype(f"{name}: expected {dtype}, got {tensor.dtype}")
    if tensor.device != request.query.device:
        raise DeviceMismatch(f"{name}: expected the query's device {request.query.device}, got {tensor.device}")


def _check_gradients(request: Request) -> None:
    """What the fused backward pass leaves out must not be asked for."""
    rope, pages = request.rope, request.pages
    fixed = [("rope.cos", rope.cos), ("rope.sin", rope.sin)]
    if isinstance(pages, QuantPages):
        fixed += [(f"pages.{name}", getattr(pages, name)) for name in ("keys", "values", "key_scale", "value_scale")]
    for name, tensor in fixed:
        if tensor.requires_grad and torch.is_grad_enabled():
            raise UnsupportedGradient(f"{name}: expected a tensor without gradient for FUSED, got one that requires it")
