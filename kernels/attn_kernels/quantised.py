"""Pages in 8 bits: the quantiser and its inverse, in plain torch.

Invariants:
  - a scale maps the largest magnitude it covers to the largest of the dtype, so that nothing saturates;
  - what `dequantise` gives is what every implementation attends to, so quantisation errs once, here.

Error of an element: half a step of its scale in int8 (scale / 2), 2^-4 of itself in float8_e4m3fn (2^-10 scale near 0).
"""

import torch
from torch import Tensor

from attn_kernels.errors import UnsupportedDtype
from attn_kernels.records import Pages, QuantPages

# Largest magnitude of each dtype.
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def quantise(pages: Pages, dtype: torch.dtype) -> QuantPages:
    """Quantise whole pages: keys by channel, values by token.

    Args:
        pages: Finite in every slot, unfilled ones too, for a channel's scale covers all slots of its page.
        dtype: int8 or float8_e4m3fn.

    Raises:
        UnsupportedDtype: Another dtype.
    """
    if dtype not in LARGEST:
        raise UnsupportedDtype(f"dtype: expected one of {', '.join(map(str, LARGEST))}, got {dtype}")
    keys, key_scale = _scaled(pages.keys, 2, dtype)
    values, value_scale = _scaled(pages.values, 3, dtype)
    return QuantPages(keys, values, key_scale, value_scale)


def dequantise(pages: QuantPages) -> Pages:
    """What the quantised pages stand for, in float32."""
    keys = pages.keys.float() * pages.key_scale[:, :, None, :]
    return Pages(keys, pages.values.float() * pages.value_scale[..., None])


def _scaled(pool: Tensor, axis: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Quantised pool and the scales that were shared along `axis`."""
    largest = pool.float().abs().amax(dim=axis, keepdim=True)
    # Where all is 0, any scale will do.
    scale = torch.where(largest == 0, 1.0, largest / LARGEST[dtype])
    # The quotient may come out a rounding above the largest.
    scaled = (pool.float() / scale).clamp(-LARGEST[dtype], LARGEST[dtype])
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype), scale.squeeze(axis)
