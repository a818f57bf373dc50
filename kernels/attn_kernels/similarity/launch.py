"""Launching the search: queries to sketches, the scan, the choice of groups, exact scores, the choice of bookmarks.

Invariant: nothing here waits for the device, so that a search can be captured in a CUDA graph.
"""

import torch
import triton
from torch import Tensor

from attn_kernels.errors import FusedUnavailable
from attn_kernels.forward.launch import multiprocessors, on_device_of
from attn_kernels.similarity.kernel import scan_groups, score_groups
from attn_kernels.similarity.keys import NOTHING
from attn_kernels.similarity.records import ResidentBookmarks
from attn_kernels.similarity.sketches import coded
from attn_kernels.similarity.tilings import GROUP_ROWS, QUERIES_MIN, tiling_for

# Keys that are folded into their largest before some are chosen: torch.topk takes 20 us for 2,400 keys on an H100, five
# times as long for 16,384. Many are folded hard first, what is left less so.
_FOLD_MANY, _FOLD_FEW = 64, 8
_MANY_KEYS, _FEW_KEYS = 2**16, 2**12
# Columns multiplied at once.
_CHUNK_MAX, _CHUNK_MIN = 128, 32


def best_keys(held: ResidentBookmarks, queries: Tensor, k: int, ends: Tensor, groups: int) -> Tensor:
    """Keys of the best k bookmarks in each query's best `groups` groups, int64 [m, k], descending.

    Args:
        queries: float32 [m, D], contiguous.
        ends: First bookmark that each query may not see, int32 [m].
        groups: At least k and at most all.

    Raises:
        FusedUnavailable: CPU tensors outside Triton's interpreter.
    """
    if not queries.is_cuda and isinstance(scan_groups, triton.JITFunction):
        raise FusedUnavailable(f"impl: expected CUDA tensors, or TRITON_INTERPRET=1, for FUSED, got {queries.device}")
    with on_device_of(queries):
        chosen = largest(_scanned(held, queries, ends), groups).contiguous()
        keys = torch.empty((len(queries), groups, GROUP_ROWS), dtype=torch.int64, device=queries.device)
        score_groups[(groups, len(queries))](
            held.codes,
            held.scale,
            queries,
            ends,
            chosen,
            keys,
            groups,
            DIMS=held.dims,
            CHUNK=chunk_of(held.dims),
            GROUP=GROUP_ROWS,
        )
    return largest(keys.flatten(1), k)


def largest(keys: Tensor, count: int) -> Tensor:
    """The `count` largest of each row, [m, n] to [m, count], descending.

    The `count` largest lie in the `count` runs with the largest maxima: others hold none, for keys differ.
    """
    total = keys.shape[1]
    fold = _FOLD_MANY if total > _MANY_KEYS else _FOLD_FEW
    runs = total // fold
    if total <= _FEW_KEYS or runs <= 2 * count:
        return keys.topk(count, dim=1).values
    folded = keys[:, : runs * fold].reshape(len(keys), runs, fold)
    best = folded.amax(dim=2).topk(count, dim=1, sorted=False).indices
    kept = folded.gather(1, best[:, :, None].expand(-1, -1, fold)).flatten(1)
    # What is left over belongs to no run.
    return largest(torch.cat([kept, keys[:, runs * fold :]], dim=1), count)


def chunk_of(width: int) -> int:
    """Columns that are multiplied at once: a power of two, a divisor of the width if there is one."""
    fits = (chunk for chunk in (_CHUNK_MAX, _CHUNK_MAX // 2, _CHUNK_MIN) if width % chunk == 0)
    return next(fits, _CHUNK_MIN)


def _scanned(held: ResidentBookmarks, queries: Tensor, ends: Tensor) -> Tensor:
    """Key of each group's best score by sketches, int64 [m, capacity / GROUP_ROWS]."""
    count = len(queries)
    # A query's scale changes none of its comparisons.
    halves = 1 if held.projection is None else 2
    asked, _ = coded(queries if held.projection is None else queries @ held.projection)
    padded = max(QUERIES_MIN, triton.next_power_of_2(count))
    tiling = tiling_for(padded, held.sketch.shape[1])
    keys = torch.full((count, held.capacity // GROUP_ROWS), NOTHING, device=queries.device)
    programs = min(held.capacity // tiling.rows, tiling.programs * multiprocessors(queries.device))
    scan_groups[(programs,)](
        held.sketch,
        held.sketch_scale,
        asked,
        ends,
        keys,
        count,
        keys.shape[1],
        WIDTH=held.sketch.shape[1],
        CHUNK=chunk_of(held.sketch.shape[1]),
        QUERIES=padded,
        ROWS=tiling.rows,
        GROUP=GROUP_ROWS,
        STAGES=tiling.stages,
        HALVES=halves,
        num_warps=tiling.warps,
    )
    return keys
