"""How bookmarks that are placed together find what they resemble: as one search would, but each stage for all at once.

    1. from the top down, the two nodes of each level that each of them resembles most
    2. the bookmarks of the two segments, and those that come with it and before it
    3. the kin of its best bookmarks so far, until those of its best `width` are all compared

A call of numpy costs as much as many comparisons do, so 64 at once take less than half the time of one after the other.
All of them see nodes and kin as they were before the first.

    pair    a bookmark that is placed, by its place among them, and one that it is compared with

Invariants:
    What is found for one owes nothing to those after it. All comparisons are of exact integers.
Must not know: what is made of what is found.

Concurrency: none of its own; one caller at a time.
"""

import numpy as np
import numpy.typing as npt

from memsvc.dictionary.kin import Kin
from memsvc.dictionary.topical_nodes import TopicalNodes
from memsvc.lattice import similarities
from memsvc.shards.base import NOTHING, Float32Array, Int16Array, Int64Array, best, index_of, pack

# Bookmarks that may be placed together: a bit of a mask for each.
TOGETHER_MAX = 64
# Nodes of a level that a search opens unless told otherwise.
FRONT = 2
# Bookmarks whose kin are looked at together.
AT_ONCE = 16
_CAPACITY_FIRST = 1024
# Pairs as one integer: the place of the one that is placed, then the bookmark.
_BOOKMARK_BITS = 38
_BOOKMARK = (1 << _BOOKMARK_BITS) - 1


class Together:
    """Searches on behalf of the next bookmarks, many at once.

    Args:
        nodes, kin: What is searched; they may have changed from one call to the next.
    """

    def __init__(self, nodes: TopicalNodes, kin: Kin) -> None:
        self._nodes, self._kin = nodes, kin
        # Which of those that are placed were compared with a bookmark; all zero between two calls.
        self._compared_with = np.zeros(_CAPACITY_FIRST, dtype=np.uint64)

    @property
    def bookmark_bytes(self) -> int:
        """Bytes kept for one bookmark."""
        return self._compared_with.strides[0]

    def reach(self, rows: Int16Array, first: int, width: int) -> tuple[Int64Array, Int64Array]:
        """The likely best `width` bookmarks of each from `first` on among those before it, and its best segment.

        Args:
            rows: Lattice vectors of all bookmarks, [n, dims]; those before `first` stand in segments.

        Returns:
            Keys, best first, filled up with NOTHING, [n - first, width], and nodes, [n - first].
        """
        if first > len(self._compared_with):
            more = max(first, 2 * len(self._compared_with)) - len(self._compared_with)
            self._compared_with = np.concatenate([self._compared_with, np.zeros(more, dtype=np.uint64)])
        queries = rows[first:].astype(np.float32)
        segments = self._descend(queries)
        keys = best(_keys_among(queries, first), width)
        fresh = self._in_segments(segments)
        waiting = fresh[:0]
        waiting_keys = np.empty(0, dtype=np.int64)
        compared = []
        while len(fresh):
            compared.append(fresh & _BOOKMARK)
            self._mark(fresh)
            own = _compared(rows, queries, fresh)
            # What is no better than the worst kept is neither a hit nor leads on.
            fresh, own = _good(fresh, own, keys)
            keys = best(np.concatenate([keys, _by_query(fresh, own, len(keys))], axis=1), width)
            waiting, waiting_keys = np.concatenate([waiting, fresh]), np.concatenate([waiting_keys, own])
            waiting, waiting_keys = _good(waiting, waiting_keys, keys)
            fresh = fresh[:0]
            while len(waiting) and not len(fresh):
                now, waiting, waiting_keys = _next(waiting, waiting_keys)
                fresh = self._unseen(now)
        for bookmarks in compared:
            self._compared_with[bookmarks] = 0
        return keys, segments[:, 0]

    def _descend(self, queries: Float32Array) -> Int64Array:
        """The two segments that each query resembles most, best first, [m, dims] to [m, 2]; the same one twice if
        there is no other."""
        front = np.full((len(queries), 1), self._nodes.top)
        for _ in range(self._nodes.height - 1):
            below, inside = self._nodes.table(front)
            query, place = np.nonzero(inside)
            nodes = below[query, place]
            # Many of them come to the same nodes.
            unique, of_unique = np.unique(nodes, return_inverse=True)
            dots = similarities(self._nodes.points(unique), queries)[of_unique, query]
            keys = np.full(below.shape, NOTHING)
            keys[query, place] = pack(dots, nodes)
            keys = best(keys, FRONT)
            front = index_of(np.where(keys == NOTHING, keys[:, :1], keys))
        return np.broadcast_to(front, (len(queries), FRONT))

    def _in_segments(self, segments: Int64Array) -> Int64Array:
        """Pairs of each query and the bookmarks of its segments, [m, 2], ascending."""
        below, inside = self._nodes.table(segments)
        return np.unique(_pairs(np.nonzero(inside)[0], below[inside]))

    def _unseen(self, expanded: Int64Array) -> Int64Array:
        """Pairs of queries and the kin of bookmarks that they are compared with, not compared yet, ascending."""
        kin, inside = self._kin.table(expanded & _BOOKMARK)
        pairs = _pairs(np.repeat(expanded >> _BOOKMARK_BITS, np.count_nonzero(inside, axis=1)), kin[inside])
        bit = (pairs >> _BOOKMARK_BITS).astype(np.uint64)
        fresh = np.sort(pairs[(self._compared_with[pairs & _BOOKMARK] >> bit) & np.uint64(1) == 0])
        unique: Int64Array = fresh[np.diff(fresh, prepend=-1) > 0]
        return unique

    def _mark(self, pairs: Int64Array) -> None:
        bits = np.left_shift(np.uint64(1), (pairs >> _BOOKMARK_BITS).astype(np.uint64))
        np.bitwise_or.at(self._compared_with, pairs & _BOOKMARK, bits)


def _pairs(queries: Int64Array, bookmarks: npt.NDArray[np.integer]) -> Int64Array:
    return (queries << _BOOKMARK_BITS) + bookmarks


def _keys_among(queries: Float32Array, first: int) -> Int64Array:
    """Keys of those before each of these bookmarks among them, [m, dims] to [m, m]."""
    keys = pack(similarities(queries, queries), first + np.arange(len(queries)))
    keys[np.triu_indices(len(queries))] = NOTHING
    return keys


def _compared(rows: Int16Array, queries: Float32Array, pairs: Int64Array) -> Int64Array:
    """Keys of pairs that are in order, [n]."""
    bookmarks, dots = pairs & _BOOKMARK, np.empty(len(pairs), dtype=np.float32)
    bounds = np.searchsorted(pairs, np.arange(len(queries) + 1) << _BOOKMARK_BITS).tolist()
    for query, start, end in zip(queries, bounds, bounds[1:], strict=False):
        if start < end:
            dots[start:end] = rows[bookmarks[start:end]].astype(np.float32) @ query
    return pack(dots, bookmarks)


def _good(pairs: Int64Array, own: Int64Array, keys: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Pairs, and their keys, that are among their query's best, or would be."""
    good = own >= keys[pairs >> _BOOKMARK_BITS, -1]
    return pairs[good], own[good]


def _by_query(pairs: Int64Array, own: Int64Array, queries: int) -> Int64Array:
    """Keys of pairs that are in order, a row a query, filled up with NOTHING."""
    query = pairs >> _BOOKMARK_BITS
    counts = np.bincount(query, minlength=queries)
    keys = np.full((queries, counts.max(initial=0)), NOTHING)
    keys[query, np.arange(len(query)) - np.searchsorted(query, query)] = own
    return keys


def _next(pairs: Int64Array, keys: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
    """The best few pairs of each query, and the others with their keys."""
    query = pairs >> _BOOKMARK_BITS
    # ~key descends as key ascends.
    order = np.lexsort((~keys, query))
    query, pairs, keys = query[order], pairs[order], keys[order]
    now = np.arange(len(query)) - np.searchsorted(query, query) < AT_ONCE
    return pairs[now], pairs[~now], keys[~now]
