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

import numpy as np

from memsvc.lattice import similarities
from memsvc.shards.base import Float32Array, Int16Array, Int64Array

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

    def join(self, rows: Int16Array, bookmark: int, candidates: Int64Array, dots: Float32Array) -> None:
        """Choose the kin of the next bookmark, whose kin it becomes in turn.

        Args:
            rows: Lattice vectors of all bookmarks, [n, dims].
            candidates: Earlier bookmarks, the most similar first, [m].
            dots: Their lattice dot products with it, [m].
        """
        if bookmark >= len(self._counts):
            self._lists = np.concatenate([self._lists, np.zeros_like(self._lists)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        chosen = candidates[_spread(rows[candidates], dots, self._most)]
        self._put(bookmark, chosen)
        for other in chosen.tolist():
            count = self._counts[other]
            if count == self._lists.shape[1]:
                self._choose_anew(rows, other)
                count = self._counts[other]
            self._lists[other, count] = bookmark
            self._counts[other] = count + 1

    def _choose_anew(self, rows: Int16Array, bookmark: int) -> None:
        kin = self._lists[bookmark].astype(np.int64)
        dots = similarities(rows[bookmark][None], rows[kin])[0]
        # Of equal ones the newest first.
        order = np.lexsort((-kin, -dots))
        self._put(bookmark, kin[order][_spread(rows[kin[order]], dots[order], self._most)])

    def _put(self, bookmark: int, kin: Int64Array) -> None:
        self._lists[bookmark, : len(kin)] = kin
        self._counts[bookmark] = len(kin)


def _spread(vectors: Int16Array, dots: Float32Array, most: int) -> Int64Array:
    """Places of those that resemble none of the chosen more than what they are chosen for, most similar first.

    Args:
        vectors: Lattice vectors of candidates, most similar first, [n, dims].
        dots: Their lattice dot products with what they are chosen for, [n].
    """
    between = similarities(vectors, vectors)
    free = np.ones(len(dots), dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < most and free.any():
        at = int(free.argmax())
        chosen.append(at)
        free[at] = False
        free &= between[at] < dots
    if len(chosen) < _LEAST:
        chosen += [at for at in range(len(dots)) if at not in chosen][: _LEAST - len(chosen)]
    return np.array(chosen, dtype=np.int64)
