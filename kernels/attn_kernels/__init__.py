"""Attention of queries over pages of keys and values, under one softmax: eager reference and fused Triton kernels.

Knows torch and triton only; nothing of sessions, models or the memory server.
"""

from attn_kernels.api import paged_attention, received_mass
from attn_kernels.errors import (
    AttentionKernelError,
    DeviceMismatch,
    FusedUnavailable,
    UnsupportedDtype,
    UnsupportedGradient,
    UnsupportedShape,
)
from attn_kernels.records import PAGE_TOKENS, AttentionState, Impl, Pages, PageTable, QuantPages, Request, Rope
from attn_kernels.states import merge

__all__ = [
    "PAGE_TOKENS",
    "AttentionKernelError",
    "AttentionState",
    "DeviceMismatch",
    "FusedUnavailable",
    "Impl",
    "PageTable",
    "Pages",
    "QuantPages",
    "Request",
    "Rope",
    "UnsupportedDtype",
    "UnsupportedGradient",
    "UnsupportedShape",
    "merge",
    "paged_attention",
    "received_mass",
]
