"""The earlier bookmarks that a token is compared with."""

from itertools import pairwise

import numpy as np
import pytest

from memsvc.lattice import SIMILARITY_UNIT
from memsvc.policy import earlier as module
from memsvc.policy.earlier import EARLIER_TOKENS, EarlierBookmarks, piece_bounds
from tests.policy_driver import DIMS, passage

TEXT = passage("topics", 900)


def _slowly(positions: list[int], at: int, count: int) -> float:
    seen = [own for own in positions if own <= at - EARLIER_TOKENS][-count:]
    dots = [int(TEXT.rows[own].astype(int) @ TEXT.rows[at].astype(int)) for own in seen]
    return float(np.float32(max(dots) * SIMILARITY_UNIT)) if dots else 0.0


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_the_best_is_the_largest_of_the_newest_earlier_ones(count: int) -> None:
    """Proves by comparing one by one that near bookmarks and all but the newest `count` others are not looked at."""
    earlier, positions = EarlierBookmarks(DIMS, count), np.flatnonzero(np.random.default_rng(1).random(900) < 0.5)
    for first in range(0, 900, 64):
        tokens = np.arange(first, min(900, first + 64))
        expected = [_slowly(positions[positions < first].tolist(), at, count) for at in tokens]
        assert earlier.best(tokens, TEXT.rows[tokens]).tolist() == expected
        own = positions[(positions >= first) & (positions < first + 64)]
        earlier.add(own, TEXT.rows[own])


@pytest.mark.parametrize("count", [1, 40, 1000])
@pytest.mark.parametrize("room", [1 << 20, 20_000, 0])
def test_announced_tokens_get_the_same_answers(count: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that tokens announced by the step, or as many of them as there is room for, get what they get without."""
    monkeypatch.setattr(module, "_AHEAD_MAX", room)
    told, untold = EarlierBookmarks(DIMS, count), EarlierBookmarks(DIMS, count)
    positions = np.flatnonzero(np.random.default_rng(2).random(900) < 0.7)
    for first in range(0, 900, 200):
        step = np.arange(first, min(900, first + 200))
        told.expect(step, TEXT.rows[step])
        for start, end in pairwise(piece_bounds(first, first + len(step))):
            piece = np.arange(start, end)
            assert told.best(piece, TEXT.rows[piece]).tolist() == untold.best(piece, TEXT.rows[piece]).tolist()
            own = positions[(positions >= start) & (positions < end)]
            for earlier in (told, untold):
                earlier.add(own, TEXT.rows[own])


def test_without_bookmarks_nothing_is_similar() -> None:
    """Proves that the first tokens get 0, and that no tokens get no values."""
    earlier = EarlierBookmarks(DIMS, 10)
    earlier.expect(np.arange(3), TEXT.rows[:3])
    assert earlier.best(np.arange(3), TEXT.rows[:3]).tolist() == [0.0, 0.0, 0.0]
    assert earlier.best(np.arange(0), TEXT.rows[:0]).tolist() == []


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 66), (0, 67), (2, 66), (65, 300), (66, 66), (1, 2), (130, 258)])
def test_pieces_end_two_tokens_past_a_block(first: int, end: int) -> None:
    """Proves that pieces cover the tokens in order, and are cut at 2, 66, 130 and so on, nowhere else."""
    bounds = piece_bounds(first, end)
    assert (bounds[0], bounds[-1]) == (first, end)
    assert bounds[1:-1] == [at for at in range(first + 1, end) if at % 64 == 2]
