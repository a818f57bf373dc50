"""The one copy of a shard's lattice vectors, which what is found is compared by exactly.

Rows stand in segments, each as large as all before it, so that growing copies nothing and never stalls. With a folder,
a segment is a mapped file without a name there: the kernel may write its pages out where memory is short, and what a
machine has to hold are codes and links. Such a file vanishes with the process; the log is the truth.

Invariants:
    A row never changes once appended.
    A segment's place on the disk is reserved when it is made: a full disk is noticed then, not by a signal later. The
    segment is then ordinary memory, which a line of the process's log says.

Concurrency: rows that were appended may be read while others are.
"""

import logging
import mmap
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np

from memsvc.shards.base import NOTHING, Float32Array, Int16Array, Int64Array, best, pack

# Rows of the first segment: the others are this times a power of two.
_SEGMENT_ROWS = 16_384
# Queries times rows that are gathered as float32 at once: 2.3 MiB of 576 dimensions, which stay in the cache. Memory
# for more of them would be taken from the system, page by page, and given back each time.
_GATHERED_ROWS = 1024


class LatticeRows:
    """Lattice vectors of a shard, by place from 0.

    Args:
        dims: Dimensions of a vector.
        folder: Where segments are mapped from; they are ordinary memory if None.
    """

    def __init__(self, dims: int, folder: Path | None = None) -> None:
        self._segments: list[Int16Array] = []
        self._dims = dims
        self._folder = folder
        self._count = 0

    def __len__(self) -> int:
        """Rows held."""
        return self._count

    @property
    def bytes(self) -> int:
        """Bytes that the rows take; a segment's unused end takes none."""
        return 2 * self._dims * self._count

    def extend(self, rows: Int16Array) -> None:
        """Append rows, [n, dims]."""
        done = 0
        while done < len(rows):
            segment, place = _segment_of(self._count)
            if segment == len(self._segments):
                self._segments.append(_segment(_SEGMENT_ROWS << max(0, segment - 1), self._dims, self._folder))
            own = self._segments[segment]
            taken = min(len(rows) - done, len(own) - place)
            own[place : place + taken] = rows[done : done + taken]
            done += taken
            self._count += taken

    def wide(self, start: int, end: int) -> Float32Array:
        """Rows `start` to `end`, exclusive, as float32."""
        wide = np.empty((end - start, self._dims), dtype=np.float32)
        done = 0
        while done < len(wide):
            segment, place = _segment_of(start + done)
            part = self._segments[segment][place : place + len(wide) - done]
            wide[done : done + len(part)] = part
            done += len(part)
        return wide

    def at(self, places: Int64Array) -> Float32Array:
        """Rows of these places, [n], as float32 [n, dims]."""
        # In order of place, so that memory is read forwards.
        order = np.argsort(places, kind="stable")
        places = places[order]
        wide = np.empty((len(places), self._dims), dtype=np.float32)
        firsts = [_first_of(segment) for segment in range(len(self._segments))]
        bounds = [*np.searchsorted(places, firsts).tolist(), len(places)]
        for segment, (start, end) in enumerate(pairwise(bounds)):
            if start < end:
                wide[order[start:end]] = self._segments[segment][places[start:end] - firsts[segment]]
        return wide

    def compared(self, queries: Float32Array, start: int, end: int, k: int) -> Int64Array:
        """Keys of the best k of places `start` to `end` for each query, [m, dims] to [m, k]."""
        return best(pack(queries @ self.wide(start, end).T, np.arange(start, end)), k)

    def rescored(self, queries: Float32Array, places: Int64Array, k: int) -> Int64Array:
        """Keys of the best k of each query's own places, [m, c] to [m, k], by exact comparison.

        Args:
            places: Rows to compare with, each once a query; negative where there is none.
        """
        keys = np.full(places.shape, NOTHING)
        step = max(1, _GATHERED_ROWS // max(1, places.shape[1]))
        for first in range(0, len(queries), step):
            own = places[first : first + step]
            rows = self.at(np.maximum(own, 0).ravel()).reshape(*own.shape, self._dims)
            dots = np.matmul(rows, queries[first : first + step, :, None])[:, :, 0]
            keys[first : first + step] = np.where(own < 0, NOTHING, pack(dots, own))
        return best(keys, k)


def _segment(count: int, dims: int, folder: Path | None) -> Int16Array:
    """Room for rows, [count, dims]."""
    if folder is None:
        return np.empty((count, dims), dtype=np.int16)
    size = 2 * count * dims
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        line = "expected room for %d bytes of vectors, got %s, at %s: they are held in memory"
        logging.getLogger(__name__).warning(line, size, error.strerror, folder)
        return np.empty((count, dims), dtype=np.int16)
    return np.frombuffer(mapped, dtype=np.int16).reshape(count, dims)


def _segment_of(place: int) -> tuple[int, int]:
    """Segment of a row, and its place there."""
    segment = (place // _SEGMENT_ROWS).bit_length()
    return segment, place - _first_of(segment)


def _first_of(segment: int) -> int:
    return _SEGMENT_ROWS << (segment - 1) if segment else 0
