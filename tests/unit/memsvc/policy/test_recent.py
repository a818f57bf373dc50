"""Sums over the newest vectors of a run."""

import numpy as np
import pytest

from memsvc.policy.recent import RecentWindows, Windows, cosines, windows_of
from tests.policy_driver import passage

ROWS = passage("topics", 300).rows


@pytest.mark.parametrize("tokens", [1, 2, 16, 64])
@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [40, 41, 250]])
def test_a_window_is_the_exact_sum_of_the_vectors_that_end_with_its_token(tokens: int, cuts: list[int]) -> None:
    """Proves by adding one by one, for any split, that the first windows are sums of what there is."""
    recent, found = RecentWindows(tokens, held=5), []
    for part in np.split(ROWS, cuts):
        windows = recent.push(part)
        assert len(windows.sums) == len(windows.lengths) == 5 + len(part)
        found.append(windows[5:])
    wide = ROWS.astype(np.int64)
    expected = [wide[max(0, end - tokens) : end].sum(axis=0) for end in range(1, 301)]
    assert np.array_equal(np.concatenate([own.sums for own in found]), expected)
    assert recent.count == 300


def test_the_windows_before_are_given_along() -> None:
    """Proves that what is held are the last windows of the pushes before, zeros where there were none."""
    recent = RecentWindows(4, held=3)
    first = recent.push(ROWS[:2])
    assert not first.sums[:3].any()
    second = recent.push(ROWS[2:10])
    assert np.array_equal(second.sums[:3], first.sums[2:])
    recent.clear()
    assert recent.count == 0
    assert not recent.push(ROWS[:1]).sums[:3].any()


def test_nothing_resembles_a_zero_sum() -> None:
    """Proves that cosines are those of the sums, and 0 beside a zero."""
    ones = windows_of(np.array([[3, 4], [0, 0]], dtype=np.int16))
    others = Windows(np.array([[4.0, 3.0], [1.0, 0.0]]), np.array([5.0, 1.0]))
    assert cosines(ones, others).tolist() == [24 / 25, 0.0]
