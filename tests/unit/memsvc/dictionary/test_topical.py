"""The dictionary by topic: where bookmarks stand, and what a search finds and looks at."""

from itertools import pairwise

import numpy as np
import pytest

from memsvc.dictionary.settings import TopicalSettings
from memsvc.dictionary.topical import PLACED_ROWS, TopicalDictionary
from memsvc.errors import InvalidRequest
from memsvc.lattice import to_lattice
from memsvc.shards.base import NOTHING, index_of

DIMS = 72
SETTINGS = TopicalSettings(fan=8, kin=8, width=32)


def _vectors(count: int, seed: int = 3) -> np.ndarray:
    """Lattice vectors around topics that return; some are zero and some equal others."""
    topics = np.random.default_rng(1).standard_normal((40, DIMS))
    generator = np.random.default_rng(seed)
    rows = topics[generator.integers(0, 40, count)] + 0.6 * generator.standard_normal((count, DIMS))
    rows[generator.random(count) < 0.03] = topics[0]
    rows[generator.random(count) < 0.01] = 0.0
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


def _placed(rows: np.ndarray, pieces: int = 1) -> TopicalDictionary:
    dictionary = TopicalDictionary(rows.shape[1], SETTINGS)
    for end in np.linspace(0, len(rows), pieces + 1).astype(int)[1:]:
        dictionary.place(rows[:end])
    return dictionary


def _levels(dictionary: TopicalDictionary) -> list[np.ndarray]:
    """Nodes of each level, the top first."""
    levels = [np.array([dictionary.nodes.top])]
    for _ in range(dictionary.nodes.height - 1):
        levels.append(dictionary.nodes.below(levels[-1]))
    return levels


def _exact(rows: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    dots = rows.astype(np.int64) @ query.astype(np.int64)
    return sorted(((int(dot) << 38) + at for at, dot in enumerate(dots)), reverse=True)[:k]


def test_each_bookmark_stands_in_exactly_one_segment() -> None:
    """Proves that all segments lie at one depth and hold every placed bookmark once, and that no node is empty,
    overfull or out of reach."""
    rows = _vectors(2000)
    dictionary = _placed(rows)
    nodes, levels = dictionary.nodes, _levels(dictionary)
    assert dictionary.placed == 2000 // PLACED_ROWS * PLACED_ROWS
    assert sorted(nodes.below(levels[-1]).tolist()) == list(range(dictionary.placed))
    assert sum(len(level) for level in levels) == len(nodes)
    for level in levels:
        assert all(1 <= len(nodes.below(level[at : at + 1])) <= SETTINGS.fan for at in range(len(level)))
    for above, below in pairwise(levels):
        assert all(nodes.parent(int(node)) in above for node in below)
    assert nodes.parent(nodes.top) == -1


def test_nodes_and_kin_do_not_depend_on_batches() -> None:
    """Proves that bookmarks handed over at once or in 37 parts lead to the same nodes, and to the same finds."""
    rows = _vectors(1500)
    once, often = _placed(rows), _placed(rows, pieces=37)
    assert [level.tolist() for level in _levels(once)] == [level.tolist() for level in _levels(often)]
    every = np.concatenate(_levels(once))
    np.testing.assert_array_equal(once.nodes.points(every), often.nodes.points(every))
    for query in _vectors(20, seed=4):
        own, other = (one.search(rows, query, 16) for one in (once, often))
        assert (own.keys.tolist(), own.visited) == (other.keys.tolist(), other.visited)


def test_a_search_finds_what_a_comparison_with_all_finds() -> None:
    """Proves that 0.95 of the true 16 best are found, with exact similarities, best first, for a fraction of the dot
    products."""
    rows, queries = _vectors(3000), _vectors(50, seed=4)
    dictionary = _placed(rows)
    shares, visited = [], []
    for query in queries:
        reached = dictionary.search(rows, query, 16)
        exact = _exact(rows, query, len(rows))
        assert set(reached.keys.tolist()) <= set(exact)
        assert reached.keys.tolist() == sorted(reached.keys.tolist(), reverse=True)
        shares.append(len(set(reached.keys.tolist()) & set(exact[:16])) / 16)
        visited.append(reached.visited)
    print(f"seeds 1, 3 and 4: agreement {np.mean(shares):.3f}, visited {np.mean(visited):.0f} of 3000")
    assert np.mean(shares) >= 0.95
    assert np.mean(visited) < 3000 / 5


def test_few_bookmarks_are_all_compared() -> None:
    """Proves that a search is exact among few, ties included, and ends in blanks where there are fewer than asked."""
    rows = _vectors(1000)
    dictionary = _placed(rows)
    for query in _vectors(5, seed=4):
        assert dictionary.search(rows, query, 16).keys.tolist() == _exact(rows, query, 16)
    assert dictionary.search(rows[:3], rows[0], 5).keys.tolist()[3:] == [NOTHING, NOTHING]
    assert dictionary.search(rows[:0], rows[0], 5).keys.tolist() == [NOTHING] * 5


@pytest.mark.parametrize("limit", [0, 1, 900, 1100, 1999])
def test_nothing_from_the_limit_on_is_found(limit: int) -> None:
    """Proves that hits lie below the limit, that there are as many as can be, and that they are good."""
    rows, queries = _vectors(2000), _vectors(20, seed=4)
    dictionary = _placed(rows)
    shares = []
    for query in queries:
        keys = dictionary.search(rows, query, 16, limit).keys
        found = index_of(keys[keys != NOTHING])
        assert len(found) == min(16, limit)
        assert (found < limit).all()
        exact = _exact(rows[:limit], query, 16)
        shares.append(len(set(keys.tolist()) & set(exact)) / max(1, len(exact)))
    assert limit == 0 or np.mean(shares) >= 0.9


def test_a_search_for_all_finds_all() -> None:
    """Proves that however many are asked for, all are found, those included that no kin lead to."""
    rows = np.concatenate([_vectors(1200), np.repeat(_vectors(1), 900, axis=0), _vectors(100, seed=5)])
    dictionary = _placed(rows)
    for query in (rows[0], rows[1500], np.zeros(DIMS, dtype=np.int16)):
        assert dictionary.search(rows, query, len(rows)).keys.tolist() == _exact(rows, query, len(rows))


def test_what_a_search_looks_at_hardly_grows() -> None:
    """Proves that with 6 times the bookmarks a search of one width looks at less than twice as much."""
    rows, queries = _vectors(6 * 1100), _vectors(20, seed=4)
    dictionary = TopicalDictionary(DIMS, SETTINGS)
    visited = []
    for count in (1100, len(rows)):
        dictionary.place(rows[:count])
        visited.append(np.mean([dictionary.search(rows[:count], query, 16).visited for query in queries]))
    print(f"seeds 1, 3 and 4: visited {visited[0]:.0f} of 1100, {visited[1]:.0f} of {len(rows)}")
    assert visited[1] < 2 * visited[0]


@pytest.mark.parametrize(("name", "value"), [("fan", 7), ("kin", 3), ("width", 0)])
def test_settings_out_of_range_are_refused_by_name(name: str, value: int) -> None:
    """Proves that each setting is checked where it is made."""
    with pytest.raises(InvalidRequest, match=f"dictionary.{name}"):
        TopicalSettings(**{name: value})
