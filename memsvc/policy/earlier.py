"""What a token is compared with to see whether it continues something: the newest earlier bookmarks, all of them.

    bookmarks   ... [n - count, n)          n: those at least EARLIER_TOKENS before the token
                compared, exactly           nearer ones are not looked at: neighbours resemble each other anyhow, and
                                            some of them may not be settled yet

Why not the session's finders: they may be approximate, and what they find then depends on what is sealed by now. This
is exact, so decisions are the same however tokens were cut into steps, and it costs the same at any length of session.

Tokens of a step are looked at in pieces, but compared together with the bookmarks there are when it begins, if they are
announced (`expect`): one large product takes a third less time than several small ones.

Invariant: the answer for a token depends on the bookmarks up to EARLIER_TOKENS before it alone, provided that they are
all added by then. Tokens come in pieces that end where `piece_bounds` says: then they are.
"""

import numpy as np
import numpy.typing as npt

from memsvc.geometry import BLOCK_TOKENS
from memsvc.lattice import SIMILARITY_UNIT, similarities
from memsvc.policy.base import LOOKBACK_TOKENS, SMOOTHING_DELAY_TOKENS
from memsvc.policy.offer import Float32Array, Int16Array

Int64Array = npt.NDArray[np.int64]

# A bookmark is settled when a token at most LOOKBACK_TOKENS after it is fed: from here on all are.
EARLIER_TOKENS = LOOKBACK_TOKENS + 1
# Bookmarks that a token is compared with, unless the spec says otherwise: at 576 dimensions 9 us a token on one core of
# the 50 that 20,000 tokens a second leave; 4,096 take 37.
COMPARED_BOOKMARKS = 1024
COMPARED_BOOKMARKS_MAX = 1 << 16
# Bookmarks of a piece and of EARLIER_TOKENS before it at most: held beside those compared.
_UNSETTLED = 256
# Products of announced tokens that are held at most, 4 MiB: of the others each piece is compared by itself.
_AHEAD_MAX = 1 << 20


class EarlierBookmarks:
    """The newest bookmarks of one stream.

    Args:
        dims: Of a vector.
        count: How many a token is compared with.
    """

    def __init__(self, dims: int, count: int) -> None:
        self._count = count
        self._positions = np.empty(0, dtype=np.int64)
        self._rows = np.empty((0, dims), dtype=np.float32)
        # Rows in use; the rest of both arrays is room to grow.
        self._held = 0
        # Products of announced tokens' vectors, from `_ahead_first` on, with the rows from `_ahead_row` on.
        self._ahead = np.empty((0, 0), dtype=np.float32)
        self._ahead_first = self._ahead_row = 0

    def add(self, positions: Int64Array, rows: Int16Array) -> None:
        """Appends bookmarks, ascending, [n] and [n, dims]."""
        if self._held + len(rows) > len(self._rows):
            kept = min(self._held, self._count + _UNSETTLED)
            self._make_room(kept, kept + len(rows))
        own = slice(self._held, self._held + len(rows))
        self._positions[own], self._rows[own] = positions, rows
        self._held += len(rows)

    def expect(self, positions: Int64Array, vectors: Int16Array) -> None:
        """Announces consecutive tokens that `best` will be asked about, [m] and [m, dims], before more are added."""
        row = max(0, self._held - self._count - EARLIER_TOKENS)
        compared = vectors[: _AHEAD_MAX // max(1, self._held - row)]
        self._ahead = similarities(self._rows[row : self._held], compared)
        self._ahead_first, self._ahead_row = int(positions[0]) if len(positions) else 0, row

    def best(self, positions: Int64Array, vectors: Int16Array) -> Float32Array:
        """Similarity of each token, [m] and [m, dims], to the compared bookmark that it resembles most; 0 if none."""
        ends = np.searchsorted(self._positions[: self._held], positions - EARLIER_TOKENS, side="right")
        starts = np.maximum(0, ends - self._count)
        first, last = int(starts.min(initial=self._held)), int(ends.max(initial=0))
        if first >= last:
            return np.zeros(len(positions), dtype=np.float32)
        dots = self._products(int(positions[0]), vectors, first, last)
        place = np.arange(first, last)[:, None]
        # Bookmarks at either end are not compared with all of these tokens.
        low = int(starts.max()) - first
        high = max(low, int(ends.min()) - first)
        for edge in (slice(0, low), slice(high, None)):
            dots[edge][(place[edge] < starts) | (place[edge] >= ends)] = -np.inf
        best = dots.max(axis=0).astype(np.float64) * SIMILARITY_UNIT
        return np.where(ends > starts, best, 0.0).astype(np.float32)

    def _products(self, position: int, vectors: Int16Array, first: int, last: int) -> Float32Array:
        """Of rows `first` to `last` with the vectors of tokens from `position` on, [last - first, m]."""
        # Bookmarks first: many of them against a few tokens take a quarter less time than the other way round.
        column, row = position - self._ahead_first, first - self._ahead_row
        if not (0 <= column <= self._ahead.shape[1] - len(vectors) and 0 <= row < len(self._ahead)):
            return similarities(self._rows[first:last], vectors)
        known = self._ahead[row : last - self._ahead_row, column : column + len(vectors)]
        return np.concatenate([known, similarities(self._rows[first + len(known) : last], vectors)])

    def _make_room(self, kept: int, needed: int) -> None:
        size = max(256, 2 * needed)
        positions, rows = np.empty(size, dtype=np.int64), np.empty((size, self._rows.shape[1]), dtype=np.float32)
        newest = slice(self._held - kept, self._held)
        positions[:kept], rows[:kept] = self._positions[newest], self._rows[newest]
        self._ahead_row -= newest.start
        self._positions, self._rows, self._held = positions, rows, kept


def piece_bounds(first: int, end: int) -> list[int]:
    """Where tokens `first` to `end` are cut: within a piece nobody needs a bookmark that the piece itself settles.

    The last token of block b is settled SMOOTHING_DELAY_TOKENS later, and with it the block's forced bookmark. A piece
    begins right after that, and its tokens look at block b and earlier ones only.
    """
    phase = SMOOTHING_DELAY_TOKENS % BLOCK_TOKENS
    cut = first + 1 + (phase - first - 1) % BLOCK_TOKENS
    return [first, *range(cut, end, BLOCK_TOKENS), end]
