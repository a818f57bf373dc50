"""Attention over pages of keys and values under one softmax: the one function, and the checks in front of it.

Owns validation and the choice of implementation. Invariant: what is asked for runs, or a typed error says why not.
Must not know: triton (`attn_kernels.forward` is imported when FUSED is first asked for), or where pages come from.
"""

import torch
from torch import Tensor

from attn_kernels import reference
from attn_kernels.errors import DeviceMismatch, FusedUnavailable, UnsupportedDtype, UnsupportedShape
from attn_kernels.records import PAGE_TOKENS, AttentionState, Impl, Pages, PageTable, Request, Rope

HEAD_DIMS = (64, 128, 256)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def paged_attention(
    query: Tensor,
    position: Tensor,
    pages: Pages,
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
        pages: Pools in the query's dtype: float16, bfloat16 or float32.
        table: Each row's entries. S may be 0.
        rope: Tables that cover every position. FUSED gives NaN where one is not covered, or a page is outside the
            pools; REFERENCE raises IndexError.
        alpha: Weight of the bias in each head, float32 [H].
        scale: Of the dot products, usually D ** -0.5.
        impl: REFERENCE or FUSED. Never falls back.

    Raises:
        UnsupportedShape, UnsupportedDtype, DeviceMismatch: An argument does not fit.
        FusedUnavailable: FUSED without triton, or on a CPU outside Triton's interpreter.

    Numerics: products, softmax and sums in float32; rotated queries and keys, and the weights, are rounded to the
        query's dtype before they are multiplied, in both implementations.
    Cost: FUSED reads each filled page once per KV head and tile of queries, and nothing in it waits for the device.
        It is forward only; REFERENCE can be differentiated.
    Source: online softmax (arXiv 1805.02867); split keys (flash decoding); sinks (arXiv 2309.17453).
    """
    request = Request(query, position, pages, table, rope, alpha, scale)
    _check_query(request)
    _check_operands(request)
    if impl is Impl.REFERENCE:
        return reference.attend(request, rounding=query.dtype)
    try:
        from attn_kernels import forward
    except ModuleNotFoundError as missing:
        if missing.name != "triton":
            raise
        raise FusedUnavailable("impl: expected triton to be installed for FUSED, got none") from missing
    return forward.attend(request)


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
    dtype = request.query.dtype
    expected: tuple[tuple[str, Tensor, tuple[int, ...], torch.dtype], ...] = (
        ("position", request.position, (batch, count), torch.int32),
        ("pages.keys", request.pages.keys, (*pools, PAGE_TOKENS, dim), dtype),
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
        if tuple(tensor.shape) != shape:
            raise UnsupportedShape(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
        if tensor.dtype != kind:
            raise UnsupportedDtype(f"{name}: expected {kind}, got {tensor.dtype}")
        if tensor.device != request.query.device:
            raise DeviceMismatch(f"{name}: expected the query's device {request.query.device}, got {tensor.device}")
