"""The approximate finder over 8-bit codes: FAISS's inverted lists on the CPU, rescored exactly.

A bookmark is kept twice: as an int16 lattice vector, and as a code of one byte a dimension of its projection (see
`memsvc.shards.projection`) in the list of the centre that it is nearest to. A query reads the codes of the lists whose
centres it is nearest to, and what is best there is compared again by the lattice vectors.

Directions, centres and ranges of codes are learnt from the first rows, and once there are many more rows, again:

    generation    learnt from the first    serves from        lists
    0                 4,096 rows               4,096             64
    1                16,384                   24,576            256
    2                65,536                   98,304          1,024
    3               262,144                  393,216          4,096
    g             4,096 x 4 ** g           1.5 times that     at most 4,096

The next generation is made, and takes in what comes after, on a thread of its own: an add waits for it only if it is
late. While that thread works, searches leave a core to it.

Invariants:
    The same bookmarks in the same order give the same lists, however they were added and whatever the thread was doing:
    which generation serves is a function of the number of bookmarks.
    A bookmark's code and list do not depend on later bookmarks of its generation: a limit hides them without a trace.
    Dot products of what is found are exact; only which bookmarks are found is approximate.
    A saved generation (see `memsvc.shards.files`) answers as the one that was saved.

Concurrency: one lock around every call; FAISS's search is not safe beside an add.
"""

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from memsvc.shards.base import Float32Array, Hits, Int16Array, Int64Array, RowsShard, shifted
from memsvc.shards.files import store, stored
from memsvc.shards.projection import Projection
from memsvc.shards.rows import LatticeRows

# Rows that the first generation is learnt from, and how many times more each later one is.
LEARN_ROWS, _GROWTH = 4096, 4
# Of a generation's learnt rows, how many there must be for it to serve.
_SERVES_AT = 1.5
# A list for each so many of the rows learnt from, at most so many lists, and how well centres are placed.
_ROWS_PER_LIST, _LISTS_MAX, _ITERATIONS = 64, 4096, 5
# Rows that directions, and ranges of codes, are learnt from at most.
_SAMPLE_ROWS = 16_384
# Codes reach further than the rows they were learnt from by this share on either side: later topics do, too.
_RANGE_BEYOND = 0.25
# Rows that the next generation takes in for each one added: it is a third behind when it is learnt.
_CATCH_UP = 4
# Rows projected, and added, at once.
_PIECE_ROWS = 2048
# Codes that a query reads, and lists at least: whatever the number of bookmarks, so that time hardly grows with it.
_CODES_READ, _LISTS_READ_MIN = 10_240, 32
# With few bookmarks, no more than this share of the lists, if that is as many.
_SHARE_READ_MAX = 4
# A quarter of that for hits as few as a bookmark has links.
_FEW, _SHARE_FOR_FEW = 16, 4
# Candidates rescored: so many for each one wanted, and at least so many. Of the true 16 best blocks among 129,000
# bookmarks of SmolLM2, 256 candidates of all codes hold 0.977, and 384 of 10,000 codes 0.981 to 0.985.
_CANDIDATES_PER_HIT, _CANDIDATES_MIN = 3, 32
# From so many visible bookmarks on, time counts more: two thirds of both. Among a million, 0.957 instead of 0.969.
_LARGE_ROWS = 262_144
# Fewer visible bookmarks than this are all compared.
_EXACT_ROWS = 4096
# From so many queries on they share the cores.
_SHARED_QUERIES, _THREADS = 16, 2


@dataclass(frozen=True)
class _Generation:
    """What was learnt at one size, and the codes of the rows so far."""

    number: int
    projection: Projection
    lists: "faiss.IndexIVFScalarQuantizer"

    def catch_up(self, rows: LatticeRows, end: int) -> None:
        """Adds the rows up to `end` that are not there yet."""
        faiss.omp_set_num_threads(1)
        while (start := self.lists.ntotal) < end:
            self.lists.add(self.projection.of(rows.wide(start, min(end, start + _PIECE_ROWS))))


def _of_large(count: int, end: int) -> int:
    """What is looked at of so much among the first `end` bookmarks."""
    return count if end < _LARGE_ROWS else 2 * count // 3


class FaissShard(RowsShard[LatticeRows]):
    """Approximate finder over bookmarks `first` and on.

    Args:
        dims: Dimensions of a vector.
        first: Index of the first bookmark that will be added.
        folder: Where generations from the second on are saved and looked for; nowhere if None.
    """

    def __init__(self, dims: int, first: int = 0, folder: Path | None = None) -> None:
        super().__init__(dims, first, LatticeRows(dims, folder))
        self._folder = folder
        self._lock = threading.Lock()
        self._serving: _Generation | None = None
        self._coming: tuple[int, Future[_Generation]] | None = None
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="faiss-generation")

    @property
    def bytes(self) -> int:
        """Bytes of vectors, codes and their numbers, without what lists reserve."""
        coded = 0 if self._serving is None else self._serving.lists.ntotal * (self._serving.projection.width + 8)
        return self._rows.bytes + coded

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims]; waits for a generation that is due.

        Raises:
            StorageFailed: The generation could not be saved; the bookmarks are added all the same.
        """
        with self._lock:
            self._rows.extend(rows)
            due = _due(len(self))
            try:
                if due is not None and (self._serving is None or self._serving.number < due):
                    self._serving = self._ready(due)
            finally:
                if self._serving is not None:
                    self._serving.catch_up(self._rows, len(self))
            self._bring_up_coming(_CATCH_UP * len(rows))
            following = 0 if due is None else due + 1
            if self._coming is None and len(self) >= _learnt_rows(following):
                self._coming = following, self._maker.submit(self._made, following)

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> Hits:
        """Likely best k bookmarks of each query, [m, dims] to [m, k], among those with an index below `limit`."""
        end = len(self) if limit is None else max(0, min(len(self), limit - self._first))
        with self._lock:
            wide = queries.astype(np.float32)
            if self._serving is None or end < _EXACT_ROWS:
                return Hits(shifted(self._rows.compared(wide, 0, end, k), self._first))
            wanted = _of_large(_CANDIDATES_PER_HIT * k, end)
            places = self._near(self._serving, wide, min(max(wanted, _CANDIDATES_MIN), end), end, k)
            return Hits(shifted(self._rows.rescored(wide, places, k), self._first))

    def _bring_up_coming(self, count: int) -> None:
        """Has the next generation, once it is learnt, take in some of the rows that came since, before it is due."""
        if self._coming is None or self._is_making() or self._coming[1].exception() is not None:
            return
        number, making = self._coming
        made = making.result()
        end = min(len(self), made.lists.ntotal + count)
        self._coming = number, self._maker.submit(self._brought_up, made, end)

    def _brought_up(self, made: _Generation, end: int) -> _Generation:
        made.catch_up(self._rows, end)
        return made

    def _is_making(self) -> bool:
        """Whether the next generation's thread is at work."""
        return self._coming is not None and not self._coming[1].done()

    def settle(self) -> None:
        """Wait until the next generation, if one is being made, is there and saved. Raises StorageFailed."""
        with self._lock:
            coming = self._coming
        if coming is not None:
            coming[1].result()

    def _near(self, own: _Generation, wide: Float32Array, count: int, end: int, k: int) -> Int64Array:
        """The `count` places below `end` whose codes are nearest, [m, count]; -1 where the lists read hold no more."""
        lists, share = own.lists.nlist, _SHARE_FOR_FEW if k <= _FEW else 1
        # As many visible codes as if those past the end did not exist.
        read = max(_LISTS_READ_MIN, _of_large(_CODES_READ, end) * lists // end) // share
        hidden = end < own.lists.ntotal
        chosen = faiss.SearchParametersIVF(
            nprobe=min(read, max(_LISTS_READ_MIN, lists // _SHARE_READ_MAX)),
            sel=faiss.IDSelectorRange(0, end) if hidden else None,
        )
        # Of the calling thread; queries do not depend on each other.
        shared = len(wide) >= _SHARED_QUERIES and not self._is_making()
        faiss.omp_set_num_threads(_THREADS if shared else 1)
        _, places = own.lists.search(own.projection.of(wide), count, params=chosen)
        return np.asarray(places, dtype=np.int64)

    def _ready(self, number: int) -> _Generation:
        """The generation of this number, made meanwhile or, where many rows came at once, now."""
        coming, self._coming = self._coming, None
        made = coming[1].result() if coming is not None else None
        return made if made is not None and made.number == number else self._made(number)

    def _made(self, number: int) -> _Generation:
        """A generation that has caught up with the rows there are, from its file or learnt."""
        digest = self._digest(_learnt_rows(number)) if self._folder is not None and number else ""
        made = self._loaded(number, digest) if digest else None
        if made is None:
            made = _learn(number, self._rows)
            made.catch_up(self._rows, _learnt_rows(number))
            if digest:
                self._save(made, digest)
        made.catch_up(self._rows, len(self._rows))
        return made

    def _digest(self, count: int) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, count, _PIECE_ROWS):
            digest.update(self._rows.wide(start, min(count, start + _PIECE_ROWS)).astype(np.int16).tobytes())
        return digest.hexdigest()

    def _save(self, made: _Generation, digest: str) -> None:
        assert self._folder is not None
        kind = _kind_of(made.number)
        made.projection.save(self._folder, kind, self._first, digest)
        store(self._folder, kind, self._first, digest, lambda path: faiss.write_index(made.lists, path))

    def _loaded(self, number: int, digest: str) -> _Generation | None:
        assert self._folder is not None
        kind = _kind_of(number)
        projection = Projection.load(self._folder, kind, self._first, digest, self._dims)
        path = stored(self._folder, kind, self._first, digest)
        if projection is None or path is None:
            return None
        return _Generation(number, projection, faiss.read_index(str(path)))


def _kind_of(number: int) -> str:
    """A generation's kind of file; an earlier one's stays, for a session that goes back to its tail."""
    return f"faiss{number}"


def _learn(number: int, rows: LatticeRows) -> _Generation:
    """Directions, centres and ranges of codes of a generation; no rows yet."""
    count = _learnt_rows(number)
    # Rows as far apart as they can be, so that all topics so far take part.
    sampled = np.linspace(0, count - 1, min(count, _SAMPLE_ROWS)).astype(np.int64)
    projection = Projection.learnt(rows.at(sampled))
    projected = np.concatenate(
        [projection.of(rows.wide(start, min(count, start + _PIECE_ROWS))) for start in range(0, count, _PIECE_ROWS)]
    )
    faiss.omp_set_num_threads(1)
    lists = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(projection.width),
        projection.width,
        min(count // _ROWS_PER_LIST, _LISTS_MAX),
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
        # Codes of the rows themselves: as good as those of what a centre leaves, and quicker to compare.
        False,
    )
    lists.cp.niter = _ITERATIONS
    lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = 1, _ROWS_PER_LIST // 2
    lists.sq.rangestat_arg = _RANGE_BEYOND
    lists.train(projected)
    return _Generation(number, projection, lists)


def _learnt_rows(number: int) -> int:
    return int(LEARN_ROWS * _GROWTH**number)


def _serves_from(number: int) -> int:
    return int(_SERVES_AT * _learnt_rows(number)) if number else LEARN_ROWS


def _due(count: int) -> int | None:
    """The generation that serves at this number of rows; None if none does."""
    number = 0
    while _serves_from(number) <= count:
        number += 1
    return number - 1 if number else None
