"""The approximate finder over 8-bit codes: FAISS's HNSW graph on the CPU, rescored exactly.

A bookmark is kept twice: as an int16 lattice vector, and as a code of one byte a dimension that the graph is searched
over. What the graph finds is compared again by the lattice vectors.

    bookmarks   [first, indexed)               [indexed, first + len)
    searched    over codes, then rescored      compared exactly: at most 1,024 at first, then at most 255

Invariants:
    The same bookmarks in the same order give the same graph, however they were added: the range of codes is learnt from
    the first 1,024, and the graph takes bookmarks 256 at a time, on one thread, with a fixed seed.
    Dot products of what is found are exact; only which bookmarks are found is approximate.
    A saved shard (see `memsvc.shards.files`) answers as the one that was saved.

Concurrency: one lock around every call; FAISS's search is not safe beside an add.
"""

import hashlib
import threading
from pathlib import Path

import faiss
import numpy as np

from memsvc.columns import Column
from memsvc.lattice import similarities
from memsvc.shards.base import NOTHING, Float32Array, Hits, Int16Array, Int64Array, best, pack, shifted
from memsvc.shards.files import store, stored

# As those of `memsvc.shards.hnsw`.
_LINKS, _WIDTH_INSERT, _WIDTH_SEARCH = 16, 80, 128
# Bookmarks that the range of codes is learnt from, and that enter the graph at once.
_LEARN_ROWS, _GROUP_ROWS = 1024, 256
# The range of codes is that of those bookmarks, widened about the centre by this: later topics reach further. Of the
# true 16 best among 10,000 clustered vectors, whose topics change, 0.94 are found with 1 and 0.999 with 2.
_RANGE = 2.0
# Candidates rescored for each one wanted: codes confuse only those that are nearly as similar.
_CANDIDATES_PER_HIT = 2
# Fewer visible bookmarks than this are all compared.
_EXACT_ROWS = 2048


class FaissShard:
    """Approximate finder over bookmarks `first` and on.

    Args:
        dims: Dimensions of a vector.
        first: Index of the first bookmark that will be added.
    """

    def __init__(self, dims: int, first: int = 0) -> None:
        self._dims = dims
        self._first = first
        self._lock = threading.Lock()
        self._digest = hashlib.blake2b(digest_size=16)
        self._rows = Column(np.int16, dims)
        self._graph = faiss.IndexHNSWSQ(dims, faiss.ScalarQuantizer.QT_8bit, _LINKS, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = _WIDTH_INSERT

    @property
    def dims(self) -> int:
        """Dimensions of a vector."""
        return self._dims

    @property
    def first(self) -> int:
        """Index of the oldest bookmark held."""
        return self._first

    def __len__(self) -> int:
        """Bookmarks held."""
        return len(self._rows)

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims]."""
        with self._lock:
            self._digest.update(np.ascontiguousarray(rows).tobytes())
            self._rows.extend(rows)
            # Of the calling thread.
            faiss.omp_set_num_threads(1)
            if not self._graph.is_trained and len(self) >= _LEARN_ROWS:
                self._graph.train(_RANGE * self._wide(0, _LEARN_ROWS))
            while self._graph.is_trained and len(self) - self._graph.ntotal >= _GROUP_ROWS:
                start = self._graph.ntotal
                self._graph.add(self._wide(start, start + _GROUP_ROWS))

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Likely best k bookmarks of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        end = len(self) if limit is None else max(0, min(len(self), limit - self._first))
        with self._lock:
            indexed = min(end, self._graph.ntotal) if end >= _EXACT_ROWS else 0
            keys = self._exact(queries, indexed, end, k)
            if indexed:
                near = self._near(queries, min(_CANDIDATES_PER_HIT * k, indexed), indexed)
                keys = best(np.concatenate([keys, near], axis=1), k)
        return Hits(shifted(keys, self._first))

    def save(self, folder: Path) -> Path:
        """Write the shard to its file in `folder`, durably, in place of any other that begins at the same bookmark."""
        with self._lock:
            return store(
                folder,
                "faiss",
                self._first,
                self._digest.hexdigest(),
                lambda path: faiss.write_index(self._graph, path),
            )

    @classmethod
    def load(cls, folder: Path, first: int, rows: Int16Array) -> "FaissShard | None":
        """The saved shard of exactly these bookmarks, [n, dims]; None if there is none or its bytes are damaged."""
        shard = cls(rows.shape[1], first)
        shard._digest.update(np.ascontiguousarray(rows).tobytes())
        path = stored(folder, "faiss", first, shard._digest.hexdigest())
        if path is None:
            return None
        shard._graph = faiss.read_index(str(path))
        shard._rows.extend(rows)
        return shard

    def _wide(self, start: int, end: int) -> Float32Array:
        return self._rows.view()[start:end].astype(np.float32)

    def _exact(self, queries: Int16Array, start: int, end: int, k: int) -> Int64Array:
        """Keys of the best k of places `start` to `end`, [m, k]."""
        dots = similarities(queries, self._rows.view()[start:end])
        return best(pack(dots, np.arange(start, end)), k)

    def _near(self, queries: Int16Array, count: int, end: int) -> Int64Array:
        """Keys of the `count` places below `end` whose codes are nearest, by lattice vectors, [m, count]."""
        chosen = faiss.SearchParametersHNSW(
            efSearch=max(_WIDTH_SEARCH, count), sel=None if end == self._graph.ntotal else faiss.IDSelectorRange(0, end)
        )
        faiss.omp_set_num_threads(1)
        _, places = self._graph.search(queries.astype(np.float32), count, params=chosen)
        keys = np.full(places.shape, NOTHING)
        for out, query, own in zip(keys, queries, places, strict=True):
            found = own[own >= 0]
            out[: len(found)] = pack(similarities(query[None], self._rows.view()[found])[0], found)
        return keys
