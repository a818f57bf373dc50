"""Bookmarks that find their own chain: the same however they come, and counted."""

import numpy as np

from memsvc.dictionary.find import Found, Stage
from memsvc.dictionary.settings import FindSettings
from memsvc.dictionary.walker import FindCounts, Walker
from memsvc.lattice import to_lattice

DIMS = 48
FIND = FindSettings(relevant=0.5, sure=0.5, walk_links=2, refine=2, parents=3)


def _vectors(count: int, seed: int = 3, topics: int = 9) -> np.ndarray:
    """Lattice vectors around topics that return, one after the other at random."""
    centres = np.random.default_rng(1).standard_normal((topics, DIMS))
    generator = np.random.default_rng(seed)
    rows = centres[generator.integers(0, topics, count)] + 0.4 * generator.standard_normal((count, DIMS))
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


def _chains(walker: Walker) -> list[int]:
    return [walker.dictionary.levels.list_of(bookmark) for bookmark in range(len(walker))]


def _strongest(found: list[Found]) -> np.ndarray:
    return np.array([one.parents[0].parent if one.parents else -1 for one in found])


def test_links_do_not_depend_on_batches() -> None:
    """Proves that bookmarks handed over at once or in pieces get the same parents, by the same way, and chains."""
    rows = _vectors(400)
    once, often = Walker(DIMS, FIND), Walker(DIMS, FIND)
    found = once.link(rows)
    pieces = [one for start in range(0, 400, 7) for one in often.link(rows[start : start + 7])]
    assert [(one.parents, one.trace) for one in pieces] == [(one.parents, one.trace) for one in found]
    assert _chains(once) == _chains(often)
    assert (once.counts, len(once)) == (often.counts, 400)


def test_entering_with_known_parents_leads_to_the_same_walker() -> None:
    """Proves what a replay rests on: given the parents, nothing is searched, and what comes next is found alike."""
    rows, later = _vectors(300), _vectors(100, seed=5)
    searched, entered = Walker(DIMS, FIND), Walker(DIMS, FIND)
    strongest = _strongest(searched.link(rows))
    for start in range(0, 300, 110):
        entered.enter(rows[start : start + 110], strongest[start : start + 110])
    assert entered.counts == FindCounts()
    assert _chains(entered) == _chains(searched)
    assert [one.parents for one in entered.link(later)] == [one.parents for one in searched.link(later)]


def test_parents_are_relevant_and_earlier() -> None:
    """Proves that links point back, strongest first, and reach the threshold; and that of the bookmarks with a relevant
    one before them, 0.99 get a parent without the table of contents."""
    rows = _vectors(1500, topics=60)
    walker = Walker(DIMS, FIND)
    dots = rows.astype(np.int64) @ rows.astype(np.int64).T / 4095**2
    linkable = linked = 0
    for at, one in enumerate(walker.link(rows)):
        weights = [link.weight for link in one.parents]
        assert weights == sorted(weights, reverse=True)
        assert all(link.parent < at and link.weight >= 0.5 for link in one.parents)
        relevant = bool(at) and dots[at, :at].max() >= 0.5
        linkable += relevant
        linked += relevant and bool(one.parents)
    print(f"seeds 1 and 3: {walker.counts}; linked {linked} of {linkable}")
    assert linked >= 0.99 * linkable
    assert walker.counts.contents_reads <= 1


def test_counts_add_up() -> None:
    """Proves that each find counts with the stage that it ended with, and that the counts are told in words."""
    walker = Walker(DIMS, FIND)
    assert str(walker.counts) == "no finds yet"
    found = walker.link(_vectors(200))
    counts = walker.counts
    stages = [one.trace.last for one in found]
    assert (counts.finds, counts.by_walk, counts.across) == (200, stages.count(Stage.WALK), stages.count(Stage.ACROSS))
    assert counts.by_walk + counts.by_dictionary + counts.across + stages.count(Stage.CONTENTS) == 200
    assert counts.walked == sum(len(one.trace.walked) for one in found)
    assert f"200 finds, {counts.by_walk} by the walk alone" in str(counts)
