"""Heights, parts and choices of a timeline, against what plain loops say."""

import numpy as np
import pytest

from memsvc.dictionary.levels import Levels
from memsvc.dictionary.settings import DictionarySettings
from memsvc.inspector import timeline


def _chains(count: int, seed: int) -> np.ndarray:
    """Chains of random bookmarks, numbered as they begin."""
    drawn = np.random.default_rng(seed).integers(0, 5, count)
    first = {chain: at for at, chain in enumerate(dict.fromkeys(drawn.tolist()))}
    return np.array([first[chain] for chain in drawn.tolist()], dtype=np.int64)


@pytest.mark.parametrize("seed", range(5))
def test_heights_are_those_of_the_dictionary(seed: int) -> None:
    """Proves that a bookmark stands as high as the highest node that begins at it, wherever a level has several."""
    chains = _chains(3000, seed)
    settings = DictionarySettings()
    levels = Levels(settings.skip)
    places = timeline.places_in_chains(chains)
    levels.extend(chains, [place % settings.every == 0 for place in places.tolist()])
    expected = np.zeros(len(chains), dtype=np.int64)
    for number in range(levels.lists):
        for level in range(levels.height(number)):
            nodes = levels.level_nodes(number, level)
            if len(nodes) > 1:
                for node in nodes:
                    expected[levels.checkpoint(node)] = level + 1
    assert timeline.heights(chains).tolist() == expected.tolist()


def test_heights_of_no_bookmark_are_none() -> None:
    """Proves that an empty session has a timeline too."""
    empty = np.empty(0, dtype=np.int64)
    assert timeline.heights(empty).tolist() == []
    assert timeline.shown(empty, empty, 0, 10, 5)[0].tolist() == []
    assert timeline.binned(empty, 0, 10, 5, []).bookmarks == [0] * 5


@pytest.mark.parametrize("most", [1, 7, 100, 5000])
def test_no_more_bookmarks_are_shown_than_asked_for(most: int) -> None:
    """Proves the limit at every size of it, and that the least height is the lowest at which they fit."""
    chains = _chains(4000, 3)
    positions = 3 * np.arange(4000)
    height = timeline.heights(chains)
    chosen, least = timeline.shown(positions, height, 0, 12_000, most)
    assert 0 < len(chosen) <= most
    if most >= len(positions):
        assert (least, len(chosen)) == (0, 4000)
    elif least > 0 and np.count_nonzero(height >= least) <= most:
        assert np.count_nonzero(height >= least - 1) > most


def test_parts_count_each_bookmark_and_recalled_block_once() -> None:
    """Proves that parts add up, that a recalled block heats all parts it touches, and those alone."""
    positions = np.array([0, 5, 64, 127, 128, 499])
    bins = timeline.binned(positions, 0, 500, 50, [(1, 7), (1,), (99,)])
    assert (sum(bins.bookmarks), bins.tokens, len(bins.bookmarks)) == (6, 10, 50)
    heat = [sum(64 * b < 10 * at + 10 and 64 * b + 64 > 10 * at for b in (1, 7, 1)) for at in range(50)]
    assert bins.heat == heat


def test_children_are_counted_over_all_links() -> None:
    """Proves that links of any rank count, and that a missing one is nobody's."""
    parents = np.array([[-1, -1], [0, -1], [0, 1], [1, 0]])
    assert timeline.children_counts(parents).tolist() == [3, 2, 0, 0]
