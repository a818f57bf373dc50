"""Lists, segments and levels by hand."""

import numpy as np

from memsvc.dictionary.levels import Levels


def _one_list(count: int, every: int, skip: int) -> Levels:
    levels = Levels(skip)
    for at in range(count):
        levels.extend(np.zeros(1, dtype=np.int64), [at % every == 0])
    return levels


def _spans(levels: Levels, level: int) -> list[tuple[int, int]]:
    return [levels.span(node) for node in levels.level_nodes(0, level)]


def test_levels_keep_every_skip_th_checkpoint() -> None:
    """Proves by hand: 11 bookmarks, a checkpoint every 2, every third kept above: three levels, one node on top."""
    levels = _one_list(11, every=2, skip=3)
    assert _spans(levels, 0) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 11)]
    assert _spans(levels, 1) == [(0, 6), (6, 11)]
    assert _spans(levels, 2) == [(0, 11)]
    assert levels.height(0) == 3
    assert [levels.checkpoint(node) for node in levels.level_nodes(0, 1)] == [0, 6]
    assert levels.below(levels.level_nodes(0, 1)[1]).tolist() == levels.level_nodes(0, 0)[3:]
    assert levels.root(0) == levels.level_nodes(0, 2)[0]


def test_a_short_list_has_one_node() -> None:
    """Proves that a list within its first segment has one level, whose node is the top."""
    levels = _one_list(2, every=4, skip=2)
    assert (levels.height(0), levels.nodes, levels.span(levels.root(0))) == (1, 1, (0, 2))


def test_lists_grow_side_by_side() -> None:
    """Proves by hand: interleaved lists keep their own places, heads and segments, and heads are known at a cut."""
    levels = Levels(2)
    changed = levels.extend(np.array([0, 1, 0, 1, 0]), [False, False, False, True, True])
    assert [levels.members(number, 0, 9).tolist() for number in (0, 1)] == [[0, 2, 4], [1, 3]]
    assert levels.members(0, -3, 2).tolist() == [0, 2]
    assert [(levels.list_of(at), levels.place_of(at)) for at in range(5)] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert levels.heads().tolist() == [4, 3]
    assert [levels.heads(end).tolist() for end in (1, 3, 4)] == [[0], [2, 1], [2, 3]]
    assert [levels.segment_length(number) for number in (0, 1, 2)] == [1, 1, 0]
    assert changed == set(range(levels.nodes))
