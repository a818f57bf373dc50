"""The approximate finder: hnswlib's graph over projections (see `memsvc.shards.projection`), rescored exactly.

A bookmark is kept twice: as an int16 lattice vector, and as the float32 projection that the graph links. What the graph
finds is compared again by the lattice vectors. Until the directions are learnt from the first 1,024 bookmarks, all are
compared.

Invariants:
    The same bookmarks in the same order give the same graph: one thread, a fixed seed, no deletes.
    Dot products of what is found are exact; only which bookmarks are found is approximate.
    A saved shard (see `memsvc.shards.files`) answers as the one that was saved.

Concurrency: one lock around adds and searches; hnswlib's search is not safe beside an add. `save` takes none: searches
may overlap it, and adds may not.
"""

import hashlib
import os
import shutil
import threading
from pathlib import Path

import hnswlib
import numpy as np

from memsvc.errors import StorageFailed
from memsvc.shards.base import Float32Array, Hits, Int16Array, Int64Array, RowsShard, shifted
from memsvc.shards.files import store, stored
from memsvc.shards.projection import Projection
from memsvc.shards.rows import LatticeRows

# Links a node; width of the candidate list while inserting.
_LINKS, _WIDTH_INSERT = 16, 60
# The same while searching, at least: also the candidates that are rescored. So many for each hit wanted.
_WIDTH_SEARCH, _CANDIDATES_PER_HIT = 64, 2
_SEED = 1
# Rows that the directions are learnt from.
LEARN_ROWS = 1024
# Bookmarks that a graph has room for from the start, 41 MiB of addresses: memory that is touched only as they come;
# growing would copy what is there.
_ROOM_ROWS = 65_536
# Candidates of one query at most: past that, a graph is no longer a shortcut.
_CANDIDATES_MAX = 4096
# Fewer visible bookmarks than this are all compared.
_EXACT_ROWS = 2048


class HnswShard(RowsShard[LatticeRows]):
    """Approximate finder over bookmarks `first` and on.

    Args:
        dims: Dimensions of a vector.
        first: Index of the first bookmark that will be added.
        folder: Where vectors are mapped from; they are in memory if None.
    """

    def __init__(self, dims: int, first: int = 0, folder: Path | None = None) -> None:
        super().__init__(dims, first, LatticeRows(dims, folder))
        self._lock = threading.Lock()
        self._digest = hashlib.blake2b(digest_size=16)
        self._projection: Projection | None = None
        self._graph: hnswlib.Index | None = None

    @property
    def bytes(self) -> int:
        """Bytes of vectors, projections and links, without what the graph reserves."""
        width = 0 if self._projection is None else self._projection.width
        # A label, the lowest level's links and their number, and a fifteenth more of the levels above.
        return self._rows.bytes + len(self) * (4 * width + 8 + 4 * (2 * _LINKS + 1) + 8)

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims]; 0.05 to 0.2 ms each."""
        with self._lock:
            self._rows.extend(rows)
            self._digest.update(rows.tobytes())
            if self._projection is None and len(self) >= LEARN_ROWS:
                self._projection = Projection.learnt(self._rows.wide(0, LEARN_ROWS))
                self._graph = hnswlib.Index(space="ip", dim=self._projection.width)
                room = max(_ROOM_ROWS, len(self))
                self._graph.init_index(room, M=_LINKS, ef_construction=_WIDTH_INSERT, random_seed=_SEED)
            if self._graph is not None and self._projection is not None:
                self._link(self._graph, self._projection)

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Likely best k bookmarks of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        with self._lock:
            end = len(self) if limit is None else max(0, min(len(self), limit - self._first))
            wide = queries.astype(np.float32)
            if self._graph is None or self._projection is None or end < _EXACT_ROWS:
                return Hits(shifted(self._rows.compared(wide, 0, end, k), self._first))
            places = self._visible(self._graph, self._projection.of(wide), k, end)
            return Hits(shifted(self._rows.rescored(wide, places, k), self._first))

    def save(self, folder: Path) -> Path:
        """Write the shard to its file in `folder`, durably, in place of any other that begins at the same bookmark.

        At least LEARN_ROWS bookmarks were added. Raises StorageFailed.
        """
        assert self._projection is not None
        digest = self._digest.hexdigest()
        self._projection.save(folder, "hnsw", self._first, digest)
        return store(folder, "hnsw", self._first, digest, self._write)

    @classmethod
    def load(cls, folder: Path, first: int, rows: Int16Array) -> "HnswShard | None":
        """The saved shard of exactly these bookmarks, [n, dims]; None if there is none or its bytes are damaged."""
        shard = cls(rows.shape[1], first)
        shard._digest.update(rows.tobytes())
        digest = shard._digest.hexdigest()
        projection = Projection.load(folder, "hnsw", first, digest, shard._dims)
        path = stored(folder, "hnsw", first, digest)
        if path is None or projection is None:
            return None
        shard._rows.extend(rows)
        shard._projection = projection
        shard._graph = hnswlib.Index(space="ip", dim=projection.width)
        shard._graph.load_index(str(path))
        return shard

    def _write(self, path: str) -> None:
        assert self._graph is not None
        # hnswlib keeps the interpreter's lock while it writes: into memory, so that nobody waits for the disk with it.
        with open(os.memfd_create("shard"), "rb") as memory:
            own = f"/proc/self/fd/{memory.fileno()}"
            self._graph.save_index(own)
            # hnswlib does not say when a write came short, and reading such a file ends the process.
            expected, written = self._graph.index_file_size(), os.path.getsize(own)
            if written != expected:
                raise StorageFailed(f"expected {expected} bytes of a shard written, got {written}, at {path}")
            shutil.copyfile(own, path)

    def _link(self, graph: "hnswlib.Index", projection: Projection) -> None:
        """Enters the rows that the graph does not hold yet."""
        start, end = int(graph.get_current_count()), len(self)
        if end > graph.get_max_elements():
            graph.resize_index(2 * end)
        graph.add_items(projection.of(self._rows.wide(start, end)), np.arange(start, end), num_threads=1)

    def _visible(self, graph: "hnswlib.Index", projected: Float32Array, k: int, end: int) -> Int64Array:
        """Candidates below `end` for k hits, places [m, c]; -1 in place of those past it."""
        candidates, most = max(_CANDIDATES_PER_HIT * k, _WIDTH_SEARCH), min(len(self), _CANDIDATES_MAX)
        # Of a graph that shows half of itself, twice as many are looked at.
        wanted = min(candidates, end)
        while True:
            places = _nearest(graph, projected, min(candidates, most))
            places = np.where(places < end, places, -1)
            if end == len(self) or candidates >= most or ((places >= 0).sum(axis=1) >= wanted).all():
                return places
            candidates *= 2


def _nearest(graph: "hnswlib.Index", projected: Float32Array, count: int) -> Int64Array:
    """The likely best `count` places, [m, count], or fewer where the graph does not reach so many."""
    graph.set_ef(count)
    while True:
        try:
            labels, _ = graph.knn_query(projected, count, num_threads=1)
            return np.asarray(labels, dtype=np.int64)
        except RuntimeError:
            # Equal vectors link among themselves only and can cut others off; one bookmark is always reached.
            if count == 1:
                raise
            count //= 2
