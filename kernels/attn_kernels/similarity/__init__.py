"""The best bookmarks by similarity, of those that lie on the model's own GPU. Knows nothing of blocks or sessions."""

from attn_kernels.similarity.api import nearest
from attn_kernels.similarity.records import Nearest, ResidentBookmarks, allocate, append
from attn_kernels.similarity.sketches import learn_projection

__all__ = ["Nearest", "ResidentBookmarks", "allocate", "append", "learn_projection", "nearest"]
