"""Bookmarks that are placed together: each finds what it would find by itself."""

import numpy as np
import pytest

from memsvc.dictionary.settings import TopicalSettings
from memsvc.dictionary.together import TOGETHER_MAX, Together
from memsvc.dictionary.topical import TopicalDictionary
from memsvc.lattice import to_lattice
from memsvc.shards.base import NOTHING, dot_of, index_of

DIMS, WIDTH = 72, 24
# A multiple of those placed together, so that all of them stand in segments.
FIRST = 20 * TOGETHER_MAX


def _vectors(count: int) -> np.ndarray:
    """Lattice vectors around topics that return; some are zero and some equal others."""
    generator = np.random.default_rng(5)
    topics = generator.standard_normal((40, DIMS))
    rows = topics[generator.integers(0, 40, count)] + 0.6 * generator.standard_normal((count, DIMS))
    rows[generator.random(count) < 0.03] = topics[0]
    rows[generator.random(count) < 0.01] = 0.0
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


@pytest.fixture(scope="module")
def placed() -> tuple[np.ndarray, TopicalDictionary]:
    """Bookmarks, and a dictionary in which all but the last ones are placed."""
    rows = _vectors(FIRST + TOGETHER_MAX)
    dictionary = TopicalDictionary(DIMS, TopicalSettings(fan=8, kin=8, width=WIDTH))
    dictionary.place(rows[:FIRST])
    assert dictionary.placed == FIRST
    return rows, dictionary


def test_most_of_the_best_earlier_bookmarks_are_found(placed: tuple[np.ndarray, TopicalDictionary]) -> None:
    """Proves that of each one's true best 16 earlier bookmarks 0.95 are found, with exact similarities, best first,
    those that came with it included and no later ones."""
    rows, dictionary = placed
    keys, segments = Together(dictionary.nodes, dictionary.kin).reach(rows, FIRST, WIDTH)
    assert (keys.shape, segments.shape) == ((TOGETHER_MAX, WIDTH), (TOGETHER_MAX,))
    shares = []
    for bookmark, own in enumerate(keys, start=FIRST):
        found, dots = index_of(own), rows[:bookmark].astype(np.int64) @ rows[bookmark].astype(np.int64)
        assert (own != NOTHING).all()
        assert found.max() < bookmark
        assert (np.diff(own) < 0).all()
        np.testing.assert_array_equal(dot_of(own), dots[found])
        best = sorted(range(bookmark), key=lambda at: (dots[at], at))[-16:]
        shares.append(len(set(best) & set(found[:16].tolist())) / 16)
    print(f"seed 5: share of the best 16 {np.mean(shares):.3f}")
    assert np.mean(shares) >= 0.95


@pytest.mark.parametrize("count", [1, 2, 33])
def test_later_ones_change_nothing(placed: tuple[np.ndarray, TopicalDictionary], count: int) -> None:
    """Proves that fewer at once find the same, in the same searcher, which is left as it was."""
    rows, dictionary = placed
    together = Together(dictionary.nodes, dictionary.kin)
    every, segments = together.reach(rows, FIRST, WIDTH)
    some, their_segments = together.reach(rows[: FIRST + count], FIRST, WIDTH)
    np.testing.assert_array_equal(some, every[:count])
    np.testing.assert_array_equal(their_segments, segments[:count])


def test_the_first_ones_find_each_other() -> None:
    """Proves that without anything placed each one finds all before it, and stands in the only segment."""
    rows = _vectors(TOGETHER_MAX)
    dictionary = TopicalDictionary(DIMS, TopicalSettings())
    dictionary.nodes.raise_top()
    keys, segments = Together(dictionary.nodes, dictionary.kin).reach(rows, 0, TOGETHER_MAX)
    assert [sorted(index_of(own[own != NOTHING]).tolist()) for own in keys] == [
        list(range(at)) for at in range(len(keys))
    ]
    assert set(segments.tolist()) == {dictionary.nodes.top}
