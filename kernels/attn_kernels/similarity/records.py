"""Bookmarks on a device, appended in place up to a capacity, and what a search finds among them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attn_kernels.errors import DeviceMismatch, NotFinite, UnsupportedDtype, UnsupportedShape
from attn_kernels.similarity.sketches import WIDTH_STEP, coded, sketched

# Capacities are rounded up to whole tiles of the scan, so that its loads need no mask.
TILE_ROWS_MAX = 256
# An index is kept in 31 bits.
_CAPACITY_MAX = 2**31 - TILE_ROWS_MAX
_DTYPES = (torch.int8, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class ResidentBookmarks:
    """Bookmarks in the order they came, as their rows and a sketch of each. `allocate` makes one, `append` fills it.

    The tensors are written in place: a record that `append` was given is spent, the one that it returned goes on.

    Args:
        count: Bookmarks held.
        filled: The same for kernels, int32 [1], so that a captured search sees what was appended since.
        codes: Rows in int8, float16 or bfloat16, [capacity, D].
        scale: An element of a row is its code times this, float32 [capacity].
        sketch: What all are searched by: 4 bits of each projected dimension, int8 [capacity, W / 2]; or 8 bits of each
            dimension, int8 [capacity, D], which are the codes themselves where these are int8.
        sketch_scale: As `scale`.
        projection: From a row to what is sketched of it, float32 [D, W], or None.
    """

    count: int
    filled: Tensor
    codes: Tensor
    scale: Tensor
    sketch: Tensor
    sketch_scale: Tensor
    projection: Tensor | None

    @property
    def capacity(self) -> int:
        """Bookmarks that there is room for."""
        return self.codes.shape[0]

    @property
    def dims(self) -> int:
        """Dimensions of a bookmark."""
        return self.codes.shape[1]


@dataclass(frozen=True)
class Nearest:
    """Best bookmarks of each of m queries, best first, ties newer first; fewer than k end in blanks.

    Args:
        index: Their numbers in order of appending, int64 [m, k]; -1 where there is none.
        score: Dot products with the query, float32 [m, k]; minus infinity where there is none.
    """

    index: Tensor
    score: Tensor


def allocate(
    capacity: int,
    dims: int,
    device: torch.device | str,
    dtype: torch.dtype = torch.int8,
    projection: Tensor | None = None,
) -> ResidentBookmarks:
    """Room for bookmarks, none held yet.

    Args:
        capacity: Bookmarks; rounded up to a multiple of 256.
        dims: Dimensions D of a bookmark.
        dtype: Of the rows that hits are scored by: int8, float16 or bfloat16.
        projection: From `learn_projection`, [D, W]: all bookmarks are then searched by W / 2 bytes each.

    Raises:
        UnsupportedShape: Sizes out of range, or a projection of other dimensions.
        UnsupportedDtype: Another dtype.
    """
    if not 1 <= capacity <= _CAPACITY_MAX or dims < 1:
        raise UnsupportedShape(
            f"expected 1 to {_CAPACITY_MAX} bookmarks of 1 dimension or more, got {capacity}, {dims}"
        )
    if dtype not in _DTYPES:
        raise UnsupportedDtype(f"dtype: expected one of {', '.join(map(str, _DTYPES))}, got {dtype}")
    if projection is not None and (projection.ndim != 2 or len(projection) != dims or projection.shape[1] % WIDTH_STEP):
        wanted = f"[{dims}, W], W a multiple of {WIDTH_STEP}"
        raise UnsupportedShape(f"projection: expected {wanted}, got {tuple(projection.shape)}")
    size = -(-capacity // TILE_ROWS_MAX) * TILE_ROWS_MAX
    codes = torch.zeros((size, dims), dtype=dtype, device=device)
    scale = torch.zeros(size, device=device)
    sketch, sketch_scale = codes, scale
    if dtype != torch.int8 or projection is not None:
        width = dims if projection is None else projection.shape[1] // 2
        sketch = torch.zeros((size, width), dtype=torch.int8, device=device)
        sketch_scale = torch.zeros(size, device=device)
    if projection is not None:
        projection = projection.to(device, torch.float32).contiguous()
    filled = torch.zeros(1, dtype=torch.int32, device=device)
    return ResidentBookmarks(0, filled, codes, scale, sketch, sketch_scale, projection)


def append(held: ResidentBookmarks, rows: Tensor) -> ResidentBookmarks:
    """Write bookmarks, [n, D] of any floating dtype, behind those held. Waits for the device once.

    Raises:
        UnsupportedShape: Other dimensions, or more bookmarks than there is room for.
        DeviceMismatch: Rows of another device.
        NotFinite: A row holds an infinity or NaN; nothing was written.
    """
    if rows.ndim != 2 or rows.shape[1] != held.dims:
        raise UnsupportedShape(f"rows: expected [n, {held.dims}], got {tuple(rows.shape)}")
    end = held.count + len(rows)
    if end > held.capacity:
        raise UnsupportedShape(f"rows: expected at most {held.capacity - held.count} more, got {len(rows)}")
    if rows.device != held.codes.device:
        raise DeviceMismatch(f"rows: expected {held.codes.device}, got {rows.device}")
    wide = rows.float()
    if not bool(wide.isfinite().all()):
        raise NotFinite("rows: expected finite elements, got an infinity or NaN")
    own = slice(held.count, end)
    if held.codes.dtype == torch.int8:
        held.codes[own], held.scale[own] = coded(wide)
    else:
        held.codes[own], held.scale[own] = wide.to(held.codes.dtype), 1.0
    if held.projection is not None:
        held.sketch[own], held.sketch_scale[own] = sketched(wide @ held.projection)
    elif held.sketch is not held.codes:
        held.sketch[own], held.sketch_scale[own] = coded(wide)
    held.filled.fill_(end)
    return replace(held, count=end)
