"""The eager oracle: every bookmark is compared by its row; sketches and projections play no part."""

import torch
from torch import Tensor

from attn_kernels.similarity.keys import NOTHING, packed
from attn_kernels.similarity.records import ResidentBookmarks

# Rows widened at once: 150 MB in float32 at 576 dimensions.
_ROWS = 65536


def best_keys(
    held: ResidentBookmarks, queries: Tensor, k: int, ends: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Keys of the best k bookmarks of each query below its end, int64 [m, k], descending.

    Args:
        ends: First bookmark that each query may not see, int32 [m].
        dtype: What products are summed in; scores are rounded to float32.
    """
    best = torch.full((len(queries), k), NOTHING, device=queries.device)
    for start in range(0, held.count, _ROWS):
        index = torch.arange(start, min(start + _ROWS, held.count), device=queries.device)
        dots = queries.to(dtype) @ held.codes[start : start + len(index)].to(dtype).T
        scores = dots.float() * held.scale[start : start + len(index)]
        keys = torch.where(index < ends[:, None], packed(scores, index), NOTHING)
        best = torch.cat([best, keys], dim=1).topk(k, dim=1).values
    return best
