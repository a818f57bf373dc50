"""Columns: rows are appended, kept, and never moved under a view."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.columns import Column


@pytest.mark.parametrize("width", [None, 3])
@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), max_size=6))
def test_rows_stand_as_they_were_appended(width: int | None, sizes: list[int]) -> None:
    """Proves that any split into appends, across growth, gives the rows in order, for scalars and for vectors."""
    shape = (sum(sizes),) if width is None else (sum(sizes), width)
    rows = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    column = Column(np.int64, width)
    for part in np.split(rows, np.cumsum(sizes)):
        column.extend(part)
    assert len(column) == len(rows)
    assert column.view().shape == shape
    assert np.array_equal(column.view(), rows)


def test_views_taken_earlier_stay_as_they_were() -> None:
    """Proves that a view keeps its rows and its length while the column grows, in place and into new memory."""
    column = Column(np.float32)
    views = []
    for at in range(5000):
        column.extend(np.array([at], dtype=np.float32))
        views.append(column.view())
    assert [len(view) for view in views] == list(range(1, 5001))
    assert all(view[-1] == at and view[0] == 0 for at, view in enumerate(views))


def test_a_view_copies_nothing_and_cannot_be_written() -> None:
    """Proves that views share the column's memory and protect it, and that appending still works beside them."""
    column = Column(np.int64)
    column.extend(np.arange(10))
    view = column.view()
    assert np.shares_memory(view, column.view())
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    column.extend(np.arange(10, 20))
    assert column.view().tolist() == list(range(20))


def test_a_cut_shows_the_first_rows() -> None:
    """Proves that a view of `total` rows is the first ones, none to all, and that more is our own mistake."""
    column = Column(np.int64, 2)
    column.extend(np.arange(6).reshape(3, 2))
    assert [column.view(total).tolist() for total in (0, 1, 3)] == [[], [[0, 1]], [[0, 1], [2, 3], [4, 5]]]
    with pytest.raises(AssertionError, match="at most 3 rows, got 4"):
        column.view(4)
    column.extend(np.array([[7, 8]]))
    assert column.view(3).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_rows_are_copied_in() -> None:
    """Proves that changing an array after it was appended changes nothing kept."""
    column = Column(np.int64)
    rows = np.arange(3)
    column.extend(rows)
    rows[:] = 9
    assert column.view().tolist() == [0, 1, 2]


def test_growing_moves_each_row_a_bounded_number_of_times() -> None:
    """Proves that appending one by one changes memory only a logarithmic number of times."""
    column = Column(np.int64)
    count, moves, address = 20_000, 0, 0
    for at in range(count):
        column.extend(np.array([at]))
        if (now := column.view().ctypes.data) != address:
            moves, address = moves + 1, now
    # The first memory, then one move for each doubling.
    assert moves <= 1 + np.ceil(np.log2(count / 1024)) + 1
