"""The finder on a GPU: FAISS's flat search over half-precision codes, rescored exactly.

A bookmark is kept twice: as an int16 lattice vector in RAM, and as a code of two bytes a dimension on the GPU. What the
GPU finds is compared again by the lattice vectors. Codes are lattice vectors over 4096, so that float16 holds them to
2^-11 of an element.

Invariants:
    Dot products of what is found are exact; codes confuse only bookmarks that are nearly as similar.
    One thread, the owner's, makes, fills, searches and frees all indexes of one owner: FAISS's GPU indexes are not safe
    to share between threads, not even for reading.

Concurrency: one lock around every call of a shard; shards of one owner take turns on its thread.
"""

import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import faiss
import numpy as np

from memsvc.columns import Column
from memsvc.errors import InvalidRequest
from memsvc.lattice import similarities
from memsvc.shards.base import NOTHING, Float32Array, Hits, Int16Array, Int64Array, RowsShard, best, pack, shifted

# Lattice vectors are at most this long.
_CODE_UNIT = 4096.0
# Candidates rescored for each one wanted: as in `memsvc.shards.faiss`.
_CANDIDATES_PER_HIT = 2
# Fewer visible bookmarks than this are all compared here.
_EXACT_ROWS = 2048
# Most hits of one search on a GPU.
_GPU_HITS_MAX = 2048
# GPU memory that one owner's searches share, kept for as long as it lives.
_SCRATCH_BYTES = 256 << 20


class FlatIndex(Protocol):
    """What is used of a FAISS index."""

    def add(self, rows: Float32Array) -> None:
        """Append rows, [n, dims]."""
        ...

    def search(self, queries: Float32Array, k: int) -> tuple[Float32Array, Int64Array]:
        """Similarities and places of the best k rows, each [m, k]; places are -1 where there is none."""
        ...


class GpuIndexes:
    """Makes FAISS's indexes on the first GPU. For one thread only.

    Raises:
        InvalidRequest: FAISS was built without GPUs, or sees none.
    """

    def __init__(self) -> None:
        if not hasattr(faiss, "StandardGpuResources"):
            raise InvalidRequest("expected a GPU build of faiss for search.finder FAISS_GPU, got one for CPUs")
        if faiss.get_num_gpus() < 1:
            raise InvalidRequest("expected a GPU for search.finder FAISS_GPU, got none")
        self._resources: object | None = None

    def __call__(self, dims: int) -> FlatIndex:
        """A flat index of inner products over float16."""
        if self._resources is None:
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(_SCRATCH_BYTES)
            self._resources = resources
        settings = faiss.GpuIndexFlatConfig()
        settings.useFloat16 = True
        # FAISS's own search, which every GPU build has, also where another library could stand in for it.
        settings.use_cuvs = False
        index: FlatIndex = faiss.GpuIndexFlatIP(self._resources, dims, settings)
        return index


class IndexOwner:
    """The one thread that touches the indexes, by handle. It ends when nothing refers to the owner.

    Args:
        make: A new index of so many dimensions; called on the thread.
    """

    def __init__(self, make: Callable[[int], FlatIndex]) -> None:
        self._make = make
        self._indexes: dict[int, FlatIndex] = {}
        self._handles = itertools.count()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="faiss-gpu")

    def create(self, dims: int) -> int:
        """Handle of a new, empty index."""
        handle = next(self._handles)
        self._thread.submit(lambda: self._indexes.update({handle: self._make(dims)})).result()
        return handle

    def add(self, handle: int, rows: Float32Array) -> None:
        """Append rows, [n, dims]; what FAISS raises is raised here."""
        self._thread.submit(lambda: self._indexes[handle].add(rows)).result()

    def search(self, handle: int, queries: Float32Array, k: int) -> Int64Array:
        """Places of the best k rows of each query, [m, k]; -1 where there is none."""
        return self._thread.submit(lambda: self._indexes[handle].search(queries, k)[1]).result()

    def release(self, handle: int) -> "Future[None]":
        """Free an index when its turn comes; waits for nothing."""
        return self._thread.submit(self._drop, handle)

    def _drop(self, handle: int) -> None:
        del self._indexes[handle]


class FaissGpuShard(RowsShard[Column[np.int16]]):
    """Finder over bookmarks `first` and on.

    Args:
        dims: Dimensions of a vector.
        owner: Of the index; shards of one stream share it.
        first: Index of the first bookmark that will be added.
    """

    def __init__(self, dims: int, owner: IndexOwner, first: int = 0) -> None:
        super().__init__(dims, first, Column(np.int16, dims))
        self._owner = owner
        self._lock = threading.Lock()
        self._handle = owner.create(dims)
        # At exit the process frees the GPU, and the thread takes no work any more.
        weakref.finalize(self, owner.release, self._handle).atexit = False

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims]; none is if the GPU has no room."""
        with self._lock:
            self._owner.add(self._handle, _codes(rows))
            self._rows.extend(rows)

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Likely best k bookmarks of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        with self._lock:
            count = len(self)
            end = count if limit is None else max(0, min(count, limit - self._first))
            # The GPU ranks hidden bookmarks with the others: as many more are asked for.
            asked = min(_CANDIDATES_PER_HIT * k + count - end, count)
            if end < _EXACT_ROWS or asked > _GPU_HITS_MAX:
                keys = best(pack(similarities(queries, self._rows.view(end)), np.arange(end)), k)
            else:
                places = self._owner.search(self._handle, _codes(queries), asked)
                keys = best(_rescored(queries, np.where(places < end, places, -1), self._rows.view()), k)
        return Hits(shifted(keys, self._first))


def _codes(rows: Int16Array) -> Float32Array:
    return np.ascontiguousarray(rows.astype(np.float32) / np.float32(_CODE_UNIT))


def _rescored(queries: Int16Array, places: Int64Array, rows: Int16Array) -> Int64Array:
    """Keys by lattice vectors of each query's places, [m, n] to [m, n]; NOTHING for -1."""
    keys = np.full(places.shape, NOTHING)
    for out, query, own in zip(keys, queries, places, strict=True):
        found = own[own >= 0]
        out[: len(found)] = pack(similarities(query[None], rows[found])[0], found)
    return keys
