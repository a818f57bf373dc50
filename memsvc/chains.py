"""Chains: which bookmarks belong to one topic.

A bookmark joins the chain of its strongest parent, or starts a chain when it has no parent.

Invariants:
    Chain ids count up from 0 in the order of the chains' first bookmarks.
    A bookmark's chain never changes, so a cut at the first `total` bookmarks is a consistent snapshot.
"""

import numpy as np
import numpy.typing as npt

from memsvc.columns import Column

Int64Array = npt.NDArray[np.int64]


class Chains:
    """The chain of each bookmark, by bookmark index. Reads take a cut: the first `total` bookmarks, or all."""

    def __init__(self) -> None:
        self._chain_of = Column(np.int64)
        self._count = 0

    def join(self, strongest: Int64Array) -> Int64Array:
        """Adds the next n bookmarks; returns their chains, [n].

        Args:
            strongest: [n], index of each one's strongest parent, which may be an earlier one of these; -1 for none.
        """
        first = len(self._chain_of)
        known = self._chain_of.view()
        joined: list[int] = []
        for parent in strongest.tolist():
            if parent < 0:
                joined.append(self._count)
                self._count += 1
            else:
                joined.append(int(known[parent]) if parent < first else joined[parent - first])
        chains = np.array(joined, dtype=np.int64)
        self._chain_of.extend(chains)
        return chains

    def of_bookmarks(self, total: int | None = None) -> Int64Array:
        """Chain of each bookmark, [total]; read-only."""
        return self._chain_of.view(total)

    def count(self, total: int | None = None) -> int:
        """Chains there are."""
        return self._count if total is None else int(self._chain_of.view(total).max(initial=-1)) + 1

    def heads(self, total: int | None = None) -> Int64Array:
        """Newest bookmark of each chain, [chains], by chain id."""
        chain_of = self._chain_of.view(total)
        heads = np.empty(self.count(total), dtype=np.int64)
        # Of several values for one index numpy keeps the last.
        heads[chain_of] = np.arange(len(chain_of))
        return heads

    def members(self, chain: int, total: int | None = None) -> Int64Array:
        """Bookmarks of a chain, newest first; none if there is no such chain. Cost: one scan over the bookmarks."""
        return np.flatnonzero(self._chain_of.view(total) == chain)[::-1]
