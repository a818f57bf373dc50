"""The exact finder: every bookmark is compared, or proven unable to win.

Invariants:
    Results are exact and depend on neither the batch split of adds nor that of queries.
    Bookmarks keep their index when older ones are dropped.

Once there are many rows, each keeps a sketch beside it that bounds its similarity to anything from above, and only rows
whose bound reaches what is already found are compared.

Rows wait as they came until a search wants them: those that a replay adds and then drops, being sealed, cost nothing.

Concurrency: none of its own; the caller keeps adds and searches, which take in what waits, apart.
"""

from bisect import bisect_right
from itertools import accumulate

import numpy as np

from memsvc.shards.base import DOT_MAX, NOTHING, Float32Array, Hits, Int16Array, Int64Array, best, dot_of, pack, shifted
from memsvc.shards.scan import compare_all, compare_likely
from memsvc.shards.sketch import Sketch

# Rows from which on a sketch pays: below, 256 queries of 576 dimensions cost the same either way.
SKETCH_ROWS = 8192
# Fewer dimensions gain nothing from a sketch of 64.
_SKETCH_DIMS_MIN = 256
# Queries by rows compared at once: 32 MiB of float32.
_QUERIES, _PIECE_ROWS = 256, 32768
# Blocks, each of up to 64 bookmarks, whose int64 keys are held at once.
_KEY_BLOCKS = 64


class GrowingRows:
    """A float32 matrix that grows at its end and can forget its beginning.

    Args:
        width: Columns.
    """

    def __init__(self, width: int) -> None:
        self._buffer = np.empty((256, width), dtype=np.float32)
        self._start = 0
        self._stop = 0

    @property
    def view(self) -> Float32Array:
        """The rows held, [n, width]; valid until the next append."""
        return self._buffer[self._start : self._stop]

    def reserve(self, count: int) -> None:
        """Make room for so many rows."""
        held = self._stop - self._start
        if self._stop + count > len(self._buffer):
            buffer = np.empty((max(2 * (held + count), 256), self._buffer.shape[1]), dtype=np.float32)
            buffer[:held] = self.view
            self._buffer, self._start, self._stop = buffer, 0, held

    def append(self, rows: Float32Array | Int16Array) -> None:
        """Add rows, [n, width], converted to float32."""
        self.reserve(len(rows))
        self._buffer[self._stop : self._stop + len(rows)] = rows
        self._stop += len(rows)

    def drop(self, count: int) -> None:
        """Forget the first `count` rows."""
        self._start += count


class WaitingRows:
    """Rows in the pieces that they came in.

    Args:
        dims: Dimensions of a vector.
    """

    def __init__(self, dims: int) -> None:
        self._dims = dims
        self._pieces: list[Int16Array] = []
        # Rows up to the end of each piece.
        self._ends: list[int] = []

    @property
    def pieces(self) -> tuple[Int16Array, ...]:
        """All, in order, [n, dims] each."""
        return tuple(self._pieces)

    def __len__(self) -> int:
        """Rows there are."""
        return self._ends[-1] if self._ends else 0

    def append(self, rows: Int16Array) -> None:
        """Add rows, [n, dims], which nobody changes afterwards."""
        self._ends.append(len(self) + len(rows))
        self._pieces.append(rows)

    def rows(self, first: int, last: int) -> Int16Array:
        """Rows `first` to `last`, exclusive, in one piece."""
        found = [np.empty((0, self._dims), dtype=np.int16)]
        at = bisect_right(self._ends, first)
        while first < last:
            begin = self._ends[at] - len(self._pieces[at])
            found.append(self._pieces[at][first - begin : last - begin])
            first = self._ends[at]
            at += 1
        return np.concatenate(found)

    def drop(self, count: int) -> None:
        """Forget the first `count` rows."""
        whole = bisect_right(self._ends, count)
        begun = count - (self._ends[whole - 1] if whole else 0)
        del self._pieces[:whole]
        if begun:
            self._pieces[0] = self._pieces[0][begun:].copy()
        self._ends = list(accumulate(len(piece) for piece in self._pieces))


class FlatShard:
    """Exact finder over bookmarks `first` and on.

    Args:
        dims: Dimensions of a vector.
        sketch_rows: Rows from which on sketches are kept.
    """

    def __init__(self, dims: int, sketch_rows: int = SKETCH_ROWS) -> None:
        self._rows = GrowingRows(dims)
        # Rows that came after those.
        self._waiting = WaitingRows(dims)
        self._dims = dims
        self._first = 0
        self._sketch: Sketch | None = None
        self._sketch_rows = sketch_rows
        self._sketches = GrowingRows(Sketch.dims)

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
        return len(self._rows.view) + len(self._waiting)

    def add(self, rows: Int16Array) -> None:
        """Append bookmarks, [n, dims], which nobody changes afterwards."""
        self._waiting.append(rows)

    def rows(self, first: int, last: int) -> Int16Array:
        """Bookmarks `first` to `last`, exclusive, as they were added."""
        held, first, last = self._rows.view, first - self._first, last - self._first
        waiting = self._waiting.rows(max(0, first - len(held)), max(0, last - len(held)))
        return np.concatenate([held[first:last].astype(np.int16), waiting])

    def drop_before(self, index: int) -> None:
        """Forget the bookmarks below `index`."""
        taken_in = min(index - self._first, len(self._rows.view))
        self._rows.drop(taken_in)
        if self._sketch is not None:
            self._sketches.drop(taken_in)
        self._waiting.drop(index - self._first - taken_in)
        self._first = index

    def search(self, queries: Int16Array, k: int, limit: int | None = None, dot_min: int = -DOT_MAX) -> Hits:
        """Best k bookmarks of each query, [m, dims] to [m, k], exactly.

        Args:
            limit: Only bookmarks below this index; all if None.
            dot_min: Only hits with at least this dot product.
        """
        self._take_in()
        end = len(self) if limit is None else min(len(self), max(0, limit - self._first))
        keys = np.full((len(queries), k), NOTHING)
        for start in range(0, len(queries), _QUERIES):
            tile = slice(start, start + _QUERIES)
            wide = queries[tile].astype(np.float32)
            floor = np.full(len(wide), dot_min, dtype=np.float32)
            for first in range(0, end, _PIECE_ROWS):
                found = self._search_piece(wide, k, slice(first, min(end, first + _PIECE_ROWS)), floor)
                keys[tile] = best(np.concatenate([keys[tile], found], axis=1), k)
                floor = np.maximum(floor, dot_of(keys[tile, -1]))
        return Hits(keys)

    def block_best(self, queries: Int16Array, starts: Int64Array, end: int) -> Int64Array:
        """Best key of each block for each query, [m, dims] to int64 [m, blocks].

        Args:
            starts: First bookmark of each block, ascending; a block ends where the next one starts, the last at `end`.
        """
        self._take_in()
        wide = queries.astype(np.float32)
        keys = np.empty((len(queries), len(starts)), dtype=np.int64)
        bounds = np.append(starts, end)
        for first in range(0, len(starts), _KEY_BLOCKS):
            own = starts[first : first + _KEY_BLOCKS]
            index = np.arange(own[0], bounds[first + len(own)])
            dots = wide @ self._rows.view[index[0] - self._first : index[-1] + 1 - self._first].T
            np.maximum.reduceat(pack(dots, index), own - own[0], axis=1, out=keys[:, first : first + _KEY_BLOCKS])
        return keys

    def _take_in(self) -> None:
        """Makes rows that wait ready to be compared."""
        waiting, self._waiting = self._waiting, WaitingRows(self._dims)
        if len(waiting) == 0:
            return
        self._rows.reserve(len(waiting))
        for piece in waiting.pieces:
            self._rows.append(piece)
        rows = self._rows.view
        if self._sketch is None and len(rows) >= self._sketch_rows and self._dims >= _SKETCH_DIMS_MIN:
            self._sketch = Sketch(rows)
        if self._sketch is not None:
            for first in range(len(self._sketches.view), len(rows), _QUERIES):
                self._sketches.append(self._sketch.of(rows[first : first + _QUERIES]))

    def _search_piece(self, wide: Float32Array, k: int, piece: slice, floor: Float32Array) -> Int64Array:
        rows = self._rows.view[piece]
        if self._sketch is None or len(rows) < self._sketch_rows:
            keys = compare_all(wide, rows, k, floor)
        else:
            bounds = self._sketch.of(wide) @ self._sketches.view[piece].T
            keys = compare_likely(wide, rows, bounds, k, floor)
        return shifted(keys, self._first + piece.start)
