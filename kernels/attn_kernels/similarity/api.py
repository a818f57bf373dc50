"""The search itself: checks, then one implementation; FUSED never falls back to REFERENCE."""

import torch
from torch import Tensor

from attn_kernels.errors import DeviceMismatch, FusedUnavailable, UnsupportedDtype, UnsupportedShape
from attn_kernels.records import Impl
from attn_kernels.similarity import reference
from attn_kernels.similarity.keys import index_of, score_of
from attn_kernels.similarity.records import Nearest, ResidentBookmarks
from attn_kernels.similarity.tilings import GROUP_ROWS

QUERIES_MAX, K_MAX = 128, 256
# Groups that are scored exactly: of the 16 best of 10,000,000 copies of real bookmarks, searched by 256 of 576
# dimensions and scored in float16, 256 groups hold 0.94; 512 hold 0.97 and take a twentieth longer.
GROUPS_DEFAULT = 512


def nearest(
    held: ResidentBookmarks,
    queries: Tensor,
    k: int,
    limit: int | Tensor | None = None,
    groups: int = GROUPS_DEFAULT,
    impl: Impl = Impl.FUSED,
) -> Nearest:
    """The best k bookmarks of each query by dot product.

    FUSED compares all by their sketches, keeps the `groups` best groups of 64 neighbours, and scores every bookmark in
    these by its row. It may miss what sketches rank too low, and nothing else: scores are those of rows. REFERENCE
    scores all by their rows. Queries are not checked for infinities and NaN, whose scores are NaN.

    Args:
        queries: Centred as the bookmarks are, any floating dtype, [m, D], m from 1 to 128.
        k: From 1 to 256.
        limit: First bookmark that queries may not see, or one for each query, int32 [m]; all are seen if None.
        groups: At least k of them are taken.

    Raises:
        UnsupportedShape: Sizes out of range or that do not fit.
        UnsupportedDtype: Queries that are no floats, limits that are not int32.
        DeviceMismatch: Tensors of another device.
        FusedUnavailable: FUSED without Triton, or on a CPU outside Triton's interpreter.
    """
    _check(held, queries, k, groups)
    ends = held.filled.expand(len(queries))
    if limit is not None:
        ends = ends.clamp(max=_checked_limit(limit, queries))
    wide, ends = queries.float().contiguous(), ends.contiguous()
    if impl is Impl.REFERENCE:
        keys = reference.best_keys(held, wide, k, ends)
    else:
        try:
            from attn_kernels.similarity import launch
        except ImportError as error:
            raise FusedUnavailable("impl: expected triton to be installed for FUSED, got none") from error
        keys = launch.best_keys(held, wide, k, ends, min(max(groups, k), held.capacity // GROUP_ROWS))
    return Nearest(index_of(keys), score_of(keys))


def _check(held: ResidentBookmarks, queries: Tensor, k: int, groups: int) -> None:
    if queries.ndim != 2 or not 1 <= len(queries) <= QUERIES_MAX or queries.shape[1] != held.dims:
        raise UnsupportedShape(f"queries: expected [1 to {QUERIES_MAX}, {held.dims}], got {tuple(queries.shape)}")
    if not queries.is_floating_point():
        raise UnsupportedDtype(f"queries: expected a floating dtype, got {queries.dtype}")
    if queries.device != held.codes.device:
        raise DeviceMismatch(f"queries: expected {held.codes.device}, got {queries.device}")
    if not 1 <= k <= K_MAX:
        raise UnsupportedShape(f"k: expected 1 to {K_MAX}, got {k}")
    if groups < 1:
        raise UnsupportedShape(f"groups: expected at least 1, got {groups}")


def _checked_limit(limit: int | Tensor, queries: Tensor) -> Tensor:
    if isinstance(limit, int):
        if limit < 0:
            raise UnsupportedShape(f"limit: expected at least 0, got {limit}")
        # Larger than any index is as good as all.
        return torch.full((len(queries),), min(limit, 2**31 - 1), dtype=torch.int32, device=queries.device)
    if limit.shape != (len(queries),):
        raise UnsupportedShape(f"limit: expected [{len(queries)}], got {tuple(limit.shape)}")
    if limit.dtype != torch.int32:
        raise UnsupportedDtype(f"limit: expected torch.int32, got {limit.dtype}")
    if limit.device != queries.device:
        raise DeviceMismatch(f"limit: expected {queries.device}, got {limit.device}")
    return limit
