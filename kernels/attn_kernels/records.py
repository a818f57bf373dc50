"""The records that attention over pages takes and gives. Data only: `attn_kernels.api` checks how they fit together."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from attn_kernels.errors import UnsupportedDtype, UnsupportedShape

# Keys of one page, and tokens of one block of the memory.
PAGE_TOKENS = 64


class Impl(Enum):
    """Which implementation runs. Neither ever stands in for the other."""

    REFERENCE = "reference"
    FUSED = "fused"


@dataclass(frozen=True)
class Pages:
    """Pools of keys (before rotation) and values, each [P, Hkv, 64, D]; any strides, shared by all rows of a batch."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class QuantPages:
    """Pools of 8-bit keys (before rotation) and values, each [P, Hkv, 64, D] in int8 or float8_e4m3fn; any strides.

    An element stands for itself times its scale. `quantised.quantise` makes them.

    Args:
        keys: Quantised keys.
        values: Quantised values, in the keys' dtype.
        key_scale: Of each channel of a page and head, for some channels of keys are large in all tokens; float32
            [P, Hkv, D].
        value_scale: Of each token of a page and head, float32 [P, Hkv, 64].
    """

    keys: Tensor
    values: Tensor
    key_scale: Tensor
    value_scale: Tensor


@dataclass(frozen=True)
class PageTable:
    """What each row of a batch attends to: S entries, each one page.

    Entries may stand in any order; in ascending position, those past the causal edge of a tile of queries are skipped.

    Args:
        page: Which page of the pools, int32 [B, S].
        tokens: How many of its keys are filled, from the first, int32 [B, S]; 0 in the entries a short row lacks.
        position: Packed position of its first key, int32 [B, S]; the others follow it one by one.
        bias: Finite, float32 [B, S]; `alpha[head] * bias` is added to the scores of its keys.
    """

    page: Tensor
    tokens: Tensor
    position: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Rope:
    """Rotary tables, float32 [L, D], of the packed positions 0 .. L - 1, as transformers makes them.

    Both halves of a row are equal there, and the kernel reads the first. Making the record compares them, which on a
    GPU waits for it once.

    Raises:
        UnsupportedShape: Sizes differ, or the halves do.
        UnsupportedDtype: Not float32.
    """

    cos: Tensor
    sin: Tensor

    def __post_init__(self) -> None:
        """Check what the kernels rely on."""
        if self.cos.ndim != 2 or self.cos.shape != self.sin.shape or self.cos.shape[1] % 2:
            got = f"cos {tuple(self.cos.shape)}, sin {tuple(self.sin.shape)}"
            raise UnsupportedShape(f"rope: expected cos and sin of one shape [L, D], D even, got {got}")
        for name, table in (("cos", self.cos), ("sin", self.sin)):
            if table.dtype != torch.float32:
                raise UnsupportedDtype(f"rope.{name}: expected torch.float32, got {table.dtype}")
            first, second = table.chunk(2, dim=1)
            if not torch.equal(first, second):
                raise UnsupportedShape(f"rope.{name}: expected two equal halves, got interleaved or partial rotation")


@dataclass(frozen=True)
class AttentionState:
    """Attention over some keys, mergeable with attention over others.

    Args:
        out: [B, H, n, D] in the query's dtype; 0 where a query sees no key.
        lse: Natural log of the sum of exp(score), float32 [B, H, n]; -inf where a query sees no key.
    """

    out: Tensor
    lse: Tensor


@dataclass(frozen=True)
class Request:
    """One call of `paged_attention`, checked; see there for the shapes."""

    query: Tensor
    position: Tensor
    pages: Pages | QuantPages
    table: PageTable
    rope: Rope
    alpha: Tensor
    scale: float
