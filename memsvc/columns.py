"""Append-only arrays that grow: what graph, chains, dictionaries, tokens and tables of blocks are made of.

Invariants:
    A row never changes once appended, so a view taken earlier stays valid and constant while the column grows.
    Capacity at least doubles: appending n rows one by one copies O(n) rows in all.
"""

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

_CAPACITY_FIRST = 1024

Scalar = TypeVar("Scalar", bound=np.generic)


class Column(Generic[Scalar]):
    """Rows of one type: scalars, or vectors of `width`."""

    def __init__(self, dtype: type[Scalar], width: int | None = None) -> None:
        self._shape = () if width is None else (width,)
        self._rows: npt.NDArray[Scalar] = np.empty((_CAPACITY_FIRST, *self._shape), dtype=dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, rows: npt.NDArray[Scalar]) -> None:
        """Appends [n] or [n, width] rows."""
        end = self._count + len(rows)
        if end > len(self._rows):
            grown = np.empty((max(end, 2 * len(self._rows)), *self._shape), dtype=self._rows.dtype)
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._rows[self._count : end] = rows
        self._count = end

    def view(self, total: int | None = None) -> npt.NDArray[Scalar]:
        """Read-only first `total` rows, or all; no copy. `total` is at most the length."""
        end = self._count if total is None else total
        assert end <= self._count, f"expected at most {self._count} rows, got {end}"
        view = self._rows[:end]
        view.flags.writeable = False
        return view
