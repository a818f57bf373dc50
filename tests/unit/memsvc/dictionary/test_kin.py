"""Kin: on all sides, either way, never more than there is room for."""

import numpy as np
import pytest

from memsvc.dictionary.kin import Kin
from memsvc.lattice import similarities, to_lattice
from memsvc.shards.base import NOTHING, pack

DIMS = 24


def _join(kin: Kin, rows: np.ndarray, first: int, end: int) -> None:
    keys = pack(similarities(rows[first:end], rows[:end]), np.arange(end))
    keys[np.arange(end) >= np.arange(first, end)[:, None]] = NOTHING
    kin.join(rows, first, np.sort(keys, axis=1)[:, ::-1])


def _made(rows: np.ndarray, most: int, together: int = 1) -> Kin:
    kin = Kin(most)
    for first in range(0, len(rows), together):
        _join(kin, rows, first, min(first + together, len(rows)))
    return kin


def test_kin_lie_on_all_sides() -> None:
    """Proves that of a heap of equals one is chosen before those of other sides, and more only to have four."""
    # Bookmark 8 lies between the axes 0, 1 and 2; six bookmarks are on axis 0.
    axes = np.eye(DIMS)[[0, 0, 0, 0, 0, 0, 1, 2]]
    axes[:6] += 0.01 * np.random.default_rng(0).standard_normal((6, DIMS))
    rows = to_lattice(np.vstack([axes, np.eye(DIMS)[0] * 1.1 + np.eye(DIMS)[1] + np.eye(DIMS)[2]]), np.zeros(DIMS))
    kin = Kin(8)
    _join(kin, rows, 8, 9)
    chosen = kin.of(np.array([8])).tolist()
    assert {6, 7} <= set(chosen)
    assert len(chosen) == 4


@pytest.mark.parametrize("together", [1, 7, 40])
def test_kin_go_either_way(together: int) -> None:
    """Proves that who is chosen gets whoever chose it, and that no bookmark is its own kin, whoever comes along."""
    rows = to_lattice(np.random.default_rng(1).standard_normal((40, DIMS)).astype(np.float32), np.zeros(DIMS))
    kin = _made(rows, 64, together)
    for bookmark in range(1, 40):
        own = kin.of(np.array([bookmark])).tolist()
        assert bookmark not in own
        assert len(set(own)) == len(own)
        for other in (one for one in own if one < bookmark):
            assert bookmark in kin.of(np.array([other])).tolist()


@pytest.mark.parametrize("together", [1, 64])
def test_a_full_list_is_chosen_anew(together: int) -> None:
    """Proves that one that all others choose keeps at most twice the most, and that equal bookmarks do no harm."""
    middle = np.eye(DIMS)[:1]
    around = middle + 0.5 * np.random.default_rng(2).standard_normal((200, DIMS))
    equal = np.repeat(middle, 60, axis=0)
    rows = to_lattice(np.vstack([middle, around, equal]).astype(np.float32), np.zeros(DIMS))
    kin = _made(rows, 4, together)
    counts = [len(kin.of(np.array([bookmark]))) for bookmark in range(len(rows))]
    assert max(counts) <= 8
    assert min(counts[1:]) >= 1
