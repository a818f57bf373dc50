"""Kin: for each bookmark, a few that it resembles, so that a search can go from one to the next.

Of many that are alike, a bookmark keeps one: another is kin only if it resembles the bookmark more than it resembles
any that is kin already. So kin lie on all sides and not in one heap, and what is far in one direction is still reached.

    kin of a bookmark   [ own, chosen when it came | of others that chose it | free ]        2 x most places
                          a full list is chosen anew, down to `most`

Invariants:
    Kin are a function of the bookmarks in order, their vectors, and the candidates given.
    A bookmark is never its own kin.
Must not know: checkpoints, where candidates come from.

Source: the choice of neighbours in hierarchical navigable small worlds (arXiv 1603.09320, algorithm 4).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memsvc.lattice import similarities
from memsvc.shards.base import NOTHING, Int16Array, Int64Array, dot_of, index_of, pack

BoolArray = npt.NDArray[np.bool_]

_CAPACITY_FIRST = 1024
# Kin that a bookmark gets even if all of them are in one heap.
_LEAST = 4


class Kin:
    """Kin of bookmarks that are numbered from 0.

    Args:
        most: Kin that are chosen for one bookmark at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lists = np.zeros((_CAPACITY_FIRST, 2 * most), dtype=np.int32)
        self._counts = np.zeros(_CAPACITY_FIRST, dtype=np.int32)

    @property
    def bookmark_bytes(self) -> int:
        """Bytes kept for one bookmark."""
        return self._lists.strides[0] + self._counts.strides[0]

    def of(self, bookmarks: Int64Array) -> Int64Array:
        """Kin of these bookmarks, one after the other, with repetitions."""
        inside = np.arange(self._lists.shape[1]) < self._counts[bookmarks][:, None]
        kin: Int64Array = self._lists[bookmarks][inside].astype(np.int64)
        return kin

    def table(self, bookmarks: Int64Array) -> tuple[Int64Array, BoolArray]:
        """Kin of each of these bookmarks, [n, 2 * most], and where there is one."""
        inside = np.arange(self._lists.shape[1]) < self._counts[bookmarks][:, None]
        return self._lists[bookmarks].astype(np.int64), inside

    def join(self, rows: Int16Array, first: int, keys: Int64Array) -> None:
        """Choose the kin of the next bookmarks, whose kin they become in turn.

        Args:
            rows: Lattice vectors of all bookmarks, [n, dims].
            first: The first of the next ones.
            keys: For each, hits of earlier bookmarks, those of `first` and on included, best first, [m, c].
        """
        self._make_room(first + len(keys))
        chosen = _spread(rows, keys, self._most)
        place, column = np.nonzero(chosen)
        kin = index_of(keys[place, column])
        self._put(first + np.arange(len(keys)), place, kin)
        self._put_back(rows, kin, first + place)

    def _make_room(self, count: int) -> None:
        while count > len(self._counts):
            self._lists = np.concatenate([self._lists, np.zeros_like(self._lists)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])

    def _put(self, bookmarks: Int64Array, place: Int64Array, kin: Int64Array) -> None:
        """Says whose kin are whose: of `bookmarks[place]`, in order, and of no others."""
        self._lists[bookmarks[place], np.arange(len(place)) - np.searchsorted(place, place)] = kin
        self._counts[bookmarks] = np.bincount(place, minlength=len(bookmarks))

    def _put_back(self, rows: Int16Array, others: Int64Array, bookmarks: Int64Array) -> None:
        """Adds pairs of a bookmark and one that chose it; what gets too full is chosen anew."""
        order = np.lexsort((bookmarks, others))
        others, bookmarks = others[order], bookmarks[order]
        rank = np.arange(len(others)) - np.searchsorted(others, others)
        places = self._counts[others] + rank
        full, first, added = np.unique(others, return_index=True, return_counts=True)
        crowded = self._counts[full] + added > self._lists.shape[1]
        fits = ~np.repeat(crowded, added)
        self._lists[others[fits], places[fits]] = bookmarks[fits]
        self._counts[full[~crowded]] += added[~crowded].astype(np.int32)
        if crowded.any():
            own = zip(full[crowded].tolist(), first[crowded].tolist(), added[crowded].tolist(), strict=True)
            self._choose_anew(rows, full[crowded], [bookmarks[start : start + count] for _, start, count in own])

    def _choose_anew(self, rows: Int16Array, bookmarks: Int64Array, added: Sequence[Int64Array]) -> None:
        """Chooses the kin of these out of those there are and others, of each its own."""
        keys = np.full((len(bookmarks), self._lists.shape[1] + max(len(own) for own in added)), NOTHING)
        for out, bookmark, more in zip(keys, bookmarks.tolist(), added, strict=True):
            kin = np.concatenate([self._lists[bookmark, : self._counts[bookmark]].astype(np.int64), more])
            out[: len(kin)] = pack(similarities(rows[bookmark][None], rows[kin])[0], kin)
        # Of equal ones the newest first.
        keys = np.sort(keys, axis=1)[:, ::-1]
        place, column = np.nonzero(_spread(rows, keys, self._most))
        self._put(bookmarks, place, index_of(keys[place, column]))


def _spread(rows: Int16Array, keys: Int64Array, most: int) -> BoolArray:
    """Which hits, [m, c], resemble none of the chosen before them more than what they are chosen for.

    Args:
        rows: Lattice vectors of all bookmarks, [n, dims].
        keys: Hits of each, best first, NOTHING where there is none.
    """
    free = keys != NOTHING
    between = np.empty((*keys.shape, keys.shape[1]), dtype=np.float32)
    for out, own in zip(between, index_of(keys), strict=True):
        wide = rows[np.maximum(own, 0)].astype(np.float32)
        np.matmul(wide, wide.T, out=out)
    dots, place = dot_of(keys), np.arange(len(keys))
    chosen = np.zeros_like(free)
    for _ in range(most):
        # Where none is free any more, nothing changes.
        at = free.argmax(axis=1)
        chosen[place, at] |= free[place, at]
        free[place, at] = False
        free &= between[place, at] < dots
    return _at_least(chosen, keys != NOTHING)


def _at_least(chosen: BoolArray, there: BoolArray) -> BoolArray:
    """Those chosen, and the first of the others that are there where these are too few."""
    others = there & ~chosen
    wanted = _LEAST - np.count_nonzero(chosen, axis=1)
    enough: BoolArray = chosen | (others & (np.cumsum(others, axis=1) <= wanted[:, None]))
    return enough
