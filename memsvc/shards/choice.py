"""Which finder takes the sealed part of an index, by a session's spec.

Compiled libraries are imported only where a session asks for them: FAISS is an extra of the package, and hnswlib exists
as source alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from memsvc.errors import InvalidRequest
from memsvc.shards.base import Int16Array, Shard
from memsvc.shards.dictionary import TopicalShard
from memsvc.shards.walk import WalkShard
from protos.memsvc.v1 import types_pb2 as wire

# Bookmarks sealed at once, if a kind and its setting say nothing else.
GROUP_ROWS = 256
# Tokens whose bookmarks are sealed together, unless the spec says how many.
_INDEX_EVERY_TOKENS = 4096
# With the finder of the server's choice, bookmarks are all compared until so many can be sealed (see StreamIndex): that
# takes no more time than a search over codes, and is exact.
AUTO_ROWS = 4096
# Bookmarks of a full shard of a kind that neither grows without end nor is saved.
_SHARD_ROWS = 262_144
# Lists take 0.01 to 0.03 ms for each bookmark.
_LIST_GROUP_ROWS = 256
# A graph takes 0.1 to 0.2 ms for each bookmark; its shards grow, so that many bookmarks do not mean many searches.
_GRAPH_GROUP_ROWS, _GRAPH_ROWS, _GRAPH_GROWTH = 128, 65_536, 4
# More bookmarks than there can be.
_UNBOUNDED_ROWS = 1 << 38


@runtime_checkable
class SavableShard(Protocol):
    """A shard that has a file."""

    def save(self, folder: Path) -> Path:
        """Write the shard to its file in `folder`, durably; returns the path."""
        ...


@runtime_checkable
class WorkingShard(Protocol):
    """A shard that has a thread of its own."""

    def settle(self) -> None:
        """Wait until the thread has nothing more to do. Raises StorageFailed."""
        ...


@dataclass(frozen=True)
class SealedKind:
    """How the sealed part of an index is made.

    Args:
        name: As in a session's status.
        noun: What one shard is called there.
        make: Of dimensions, first index, and the folder where it may keep files of its own (None: nowhere).
        load: The saved shard of a folder, first index and rows; None where the kind is not saved when full.
        rows_min: Fewer bookmarks than this are not sealed.
        group_rows: At most so many are sealed at once: what adding them takes is the longest that a search waits.
        first_rows: Bookmarks of the first shard when full; if not said, it grows without end.
        growth: How many times as many each later shard holds.
    """

    name: str
    noun: str
    make: Callable[[int, int, Path | None], Shard]
    load: Callable[[Path, int, Int16Array], Shard | None] | None = None
    rows_min: int = 0
    group_rows: int = GROUP_ROWS
    first_rows: int = _UNBOUNDED_ROWS
    growth: int = 1


def sealed_kind(finder: "wire.FinderKind.ValueType") -> SealedKind | None:
    """The kind of a finder; None for flat, which seals nothing.

    Raises:
        InvalidRequest: The finder is unknown, or this installation lacks it.
    """
    if finder == wire.FINDER_KIND_FLAT:
        return None
    if finder == wire.FINDER_KIND_AUTO:
        return _auto_kind()
    if finder == wire.FINDER_KIND_HNSW:
        return _hnsw_kind()
    if finder == wire.FINDER_KIND_FAISS:
        return _faiss_kind()
    if finder == wire.FINDER_KIND_FAISS_GPU:
        return _faiss_gpu_kind()
    if finder == wire.FINDER_KIND_WALK:
        return SealedKind(
            "walk", "sets of chains", lambda dims, first, _: WalkShard(dims, first), first_rows=_SHARD_ROWS
        )
    if finder == wire.FINDER_KIND_DICTIONARY:
        # One shard that grows: what a search looks at hardly grows with it.
        return SealedKind(
            "dictionary",
            "dictionaries",
            lambda dims, first, _: TopicalShard(dims, first),
            first_rows=_UNBOUNDED_ROWS,
        )
    known = "FLAT, HNSW, FAISS, FAISS_GPU, WALK, DICTIONARY or AUTO"
    raise InvalidRequest(f"expected search.finder {known}, got {finder}")


def group_rows_of(spec: wire.SessionSpec) -> int:
    """Bookmarks sealed together: those of `index_every_tokens` tokens at the coverage that the policy is to hold."""
    tokens = spec.search.index_every_tokens or _INDEX_EVERY_TOKENS
    policy = spec.policy
    coverage = 1 / policy.every_tokens if policy.every_tokens else policy.coverage or 1.0
    return max(1, round(tokens * coverage))


def _hnsw_kind() -> SealedKind:
    try:
        from memsvc.shards.hnsw import LEARN_ROWS, HnswShard
    except ImportError as error:
        raise InvalidRequest("expected hnswlib to be installed for search.finder HNSW, got none") from error
    return SealedKind(
        "hnsw",
        "graphs",
        HnswShard,
        HnswShard.load,
        rows_min=LEARN_ROWS,
        group_rows=_GRAPH_GROUP_ROWS,
        first_rows=_GRAPH_ROWS,
        growth=_GRAPH_GROWTH,
    )


def _faiss_kind() -> SealedKind:
    try:
        from memsvc.shards.faiss import LEARN_ROWS, FaissShard
    except ImportError as error:
        raise InvalidRequest("expected faiss-cpu to be installed for search.finder FAISS, got none") from error
    # One shard that grows: its generations are saved, and it reads them back.
    return SealedKind(
        "faiss",
        "sets of lists",
        FaissShard,
        rows_min=LEARN_ROWS,
        group_rows=_LIST_GROUP_ROWS,
        first_rows=_UNBOUNDED_ROWS,
    )


def _faiss_gpu_kind() -> SealedKind:
    try:
        from memsvc.shards.faiss_gpu import FaissGpuShard, GpuIndexes, IndexOwner
    except ImportError as error:
        raise InvalidRequest("expected a GPU build of faiss for search.finder FAISS_GPU, got none") from error
    owner = IndexOwner(GpuIndexes())
    return SealedKind(
        "faiss_gpu",
        "indexes on the GPU",
        lambda dims, first, _: FaissGpuShard(dims, owner, first),
        group_rows=_LIST_GROUP_ROWS,
        first_rows=_UNBOUNDED_ROWS,
    )


def _auto_kind() -> SealedKind:
    """The fastest kind that is installed; a session that moves to another machine goes on with what is there."""
    try:
        kind = _faiss_kind()
    except InvalidRequest:
        kind = _hnsw_kind()
    return replace(kind, name=f"auto, {kind.name}", rows_min=AUTO_ROWS)
