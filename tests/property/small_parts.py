"""Finders whose sizes are so small that short sessions have sealed, full and saved parts, graphs and lists."""

import pytest

from memsvc.session import links
from memsvc.shards import choice, faiss, hnsw, index

# Newest bookmarks that are compared exactly, whatever the finder.
EXACT_ROWS = 64


def make_parts_small(patch: pytest.MonkeyPatch) -> None:
    """The newest 64 bookmarks are compared exactly, graphs and lists begin at 128, and shards are full at 256."""
    for module in (index, links):
        patch.setattr(module, "TAIL_ROWS", EXACT_ROWS)
    # Else short sessions would have nothing sealed.
    patch.setattr(index, "_HEAD_START_ROWS", EXACT_ROWS)
    for module in (hnsw, faiss):
        patch.setattr(module, "LEARN_ROWS", 128)
        patch.setattr(module, "_EXACT_ROWS", 128)
    patch.setattr(choice, "_GRAPH_ROWS", 256)
    patch.setattr(choice, "_SHARD_ROWS", 256)
    patch.setattr(choice, "AUTO_ROWS", 192)
