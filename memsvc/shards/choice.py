"""Which finder takes the sealed part of an index, by a session's spec.

Compiled libraries are imported only where a session asks for them: FAISS is an extra of the package, and hnswlib exists
as source alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from memsvc.errors import InvalidRequest
from memsvc.shards.base import Int16Array, Shard
from memsvc.shards.dictionary import DictionaryShard
from memsvc.shards.walk import WalkShard
from protos.memsvc.v1 import types_pb2 as wire


@runtime_checkable
class SavableShard(Protocol):
    """A shard that has a file."""

    def save(self, folder: Path) -> Path:
        """Write the shard to its file in `folder`, durably; returns the path."""
        ...


@dataclass(frozen=True)
class SealedKind:
    """How sealed shards of one kind are made.

    Args:
        name: As in a session's status.
        noun: What one shard is called there.
        make: Of dimensions and first index.
        load: The saved shard of a folder, first index and rows; None where a kind is never saved.
    """

    name: str
    noun: str
    make: Callable[[int, int], Shard]
    load: Callable[[Path, int, Int16Array], Shard | None] | None


def sealed_kind(finder: "wire.FinderKind.ValueType") -> SealedKind | None:
    """The kind of a finder; None for flat, which seals nothing.

    Raises:
        InvalidRequest: The finder is unknown, or this installation lacks it.
    """
    if finder == wire.FINDER_KIND_FLAT:
        return None
    if finder == wire.FINDER_KIND_HNSW:
        return _hnsw_kind()
    if finder == wire.FINDER_KIND_FAISS:
        return _faiss_kind()
    if finder == wire.FINDER_KIND_WALK:
        return SealedKind("walk", "sets of chains", WalkShard, None)
    if finder == wire.FINDER_KIND_DICTIONARY:
        return SealedKind("dictionary", "dictionaries", DictionaryShard, None)
    raise InvalidRequest(f"expected search.finder FLAT, HNSW, FAISS, WALK or DICTIONARY, got {finder}")


def _hnsw_kind() -> SealedKind:
    try:
        from memsvc.shards.hnsw import HnswShard
    except ImportError as error:
        raise InvalidRequest("expected hnswlib to be installed for search.finder HNSW, got none") from error
    return SealedKind("hnsw", "graphs", HnswShard, HnswShard.load)


def _faiss_kind() -> SealedKind:
    try:
        from memsvc.shards.faiss import FaissShard
    except ImportError as error:
        raise InvalidRequest("expected faiss-cpu to be installed for search.finder FAISS, got none") from error
    return SealedKind("faiss", "graphs of 8-bit codes", FaissShard, FaissShard.load)
