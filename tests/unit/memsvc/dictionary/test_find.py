"""The source's search: its worked example, and each stage by hand."""

import numpy as np
import pytest

from benchmarks.worked_example import NAMES, PICTURE, SETTINGS, draw, work
from memsvc.dictionary.bounds import make_bounds
from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.find import Stage, find_relevant_bookmark
from memsvc.dictionary.settings import DictionarySettings, FindSettings, TopicalSettings
from memsvc.dictionary.topical import TopicalDictionary
from memsvc.lattice import SIMILARITY_UNIT, to_lattice

DIMS = 12
DIMS_WIDE = 100
FIND = FindSettings(relevant=0.6, sure=0.6, walk_links=2, refine=1, checkpoints=1, contents_chains=1, parents=3)


def _along(axes: list[int]) -> np.ndarray:
    """One vector along each axis, a little off it."""
    generator = np.random.default_rng(4)
    rows = np.eye(DIMS)[axes] + 0.02 * generator.standard_normal((len(axes), DIMS))
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


def _dictionary(axes: list[int], chains: list[int]) -> Dictionary:
    dictionary = Dictionary(DIMS, DictionarySettings(every=2, skip=2), make_bounds("ball", DIMS))
    dictionary.extend(_along(axes), np.array(chains))
    return dictionary


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1 across the first axis."""
    rows[:, 0] = 0.0
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _query(axis: int) -> np.ndarray:
    return np.eye(DIMS)[axis].astype(np.int16) * 4095


def test_the_worked_example_lands_on_species_and_gets_both_parents() -> None:
    """Proves the source's example: cat, species and tom form a chain, "Egyptian cat" scores 0.9, 0.95 and 0.3, walks
    from tom to species, lands there, and is linked to species and cat."""
    example = work()
    assert example.graph.chains.of_bookmarks().tolist() == [0, 0, 0]
    found = example.found
    scores = example.dictionary.dots(example.query, np.arange(3)) * SIMILARITY_UNIT
    # Rounding to the lattice moves a similarity by less than 2 * sqrt(4) / 2 / 4095.
    assert scores.tolist() == pytest.approx([0.9, 0.95, 0.3], abs=5e-4)
    assert found.landed is not None
    assert NAMES[found.landed.parent] == "species"
    assert [NAMES[link.parent] for link in found.parents] == ["species", "cat"]
    assert [link.weight for link in found.parents] == pytest.approx([0.95, 0.9], abs=5e-4)
    assert [NAMES[at] for at in found.trace.walked] == ["tom", "species"]
    assert (found.trace.last, found.trace.contents_reads) == (Stage.WALK, 0)


@pytest.mark.parametrize("sure", [0.95, 1.1])
def test_the_worked_example_ends_alike_whatever_it_takes_to_be_sure(sure: float) -> None:
    """Proves that with the dictionary and the table of contents opened as well, landing and parents are the same."""
    settings = FindSettings(relevant=SETTINGS.relevant, sure=sure, parents=SETTINGS.parents)
    assert work(settings).found.parents == work().found.parents


def test_the_picture_of_the_example_is_drawn_from_it() -> None:
    """Proves that the committed picture is what the trace gives; `python -m benchmarks.worked_example` draws it."""
    assert PICTURE.read_text() == draw(work().found)


def test_a_walk_goes_back_only_while_not_relevant() -> None:
    """Proves by hand: a relevant newest bookmark ends the walk at once; its surroundings are compared, nothing else."""
    found = find_relevant_bookmark(_dictionary([0, 1, 2, 3, 4], [0] * 5), _query(4), FIND)
    assert (found.trace.walked, found.trace.refined, found.trace.visits) == ((4,), (3,), ())
    assert (found.trace.last, found.trace.visited) == (Stage.WALK, 2)
    walked = find_relevant_bookmark(_dictionary([0, 1, 2, 3, 4], [0] * 5), _query(3), FIND)
    assert (walked.trace.walked, walked.trace.refined) == ((4, 3), (2,))


def test_the_dictionary_is_opened_when_the_walk_finds_nothing() -> None:
    """Proves by hand: after the newest and two links back, the checkpoint that promises most, and what lies around."""
    found = find_relevant_bookmark(_dictionary([0, 1, 2, 3, 4, 5, 6, 7], [0] * 8), _query(1), FIND)
    trace = found.trace
    assert trace.walked == (7, 6, 5)
    assert [(visit.level, visit.checkpoint) for visit in trace.visits] == [
        (2, 0),
        (1, 0),
        (1, 4),
        (0, 0),
        (0, 2),
    ]
    assert trace.refined == (0, 1, 2)
    assert (trace.last, trace.contents_reads) == (Stage.DICTIONARY, 0)
    assert [link.parent for link in found.parents] == [1]


def test_the_table_of_contents_is_read_last_and_once() -> None:
    """Proves by hand: what lies in another chain is found there, by one read of one head a chain."""
    dictionary = _dictionary([0, 0, 5, 5, 9, 9], [0, 0, 1, 1, 2, 2])
    found = find_relevant_bookmark(dictionary, _query(5), FIND)
    assert (found.trace.contents, found.trace.contents_reads, found.trace.last) == ((1, 3), 1, Stage.CONTENTS)
    assert sorted(link.parent for link in found.parents) == [2, 3]
    nothing = find_relevant_bookmark(dictionary, _query(11), FIND)
    assert (nothing.parents, nothing.trace.contents_reads) == ((), 1)
    assert nothing.landed is not None


def test_a_find_sees_nothing_past_its_limit() -> None:
    """Proves that at a cut the walk begins at its newest bookmark, and that nothing newer is compared at any stage."""
    dictionary = _dictionary([0, 5, 1, 5, 2, 5], [0, 1, 0, 1, 0, 1])
    settings = FindSettings(relevant=0.6, sure=1.1, refine=4)
    for limit in range(1, 7):
        found = find_relevant_bookmark(dictionary, _query(5), settings, limit=limit)
        assert found.trace.walked[0] == limit - 1
        assert set((found.keys & (2**38 - 1)).tolist()) == set(range(limit))
    assert find_relevant_bookmark(dictionary, _query(5), settings, limit=0).landed is None


def test_a_walk_may_begin_elsewhere() -> None:
    """Proves that the start is where the walk begins, in the chain of that bookmark."""
    found = find_relevant_bookmark(_dictionary([0, 5, 1, 5], [0, 1, 0, 1]), _query(1), FIND, start=2)
    assert found.trace.walked == (2,)
    assert [link.parent for link in found.parents] == [2]


def _with_topics(axes: list[int], chains: list[int]) -> tuple[Dictionary, TopicalDictionary]:
    dictionary = _dictionary(axes, chains)
    topics = TopicalDictionary(DIMS, TopicalSettings())
    topics.place(dictionary.vectors)
    return dictionary, topics


def test_other_chains_are_reached_by_topic_and_not_by_the_contents() -> None:
    """Proves that what lies in another chain is found across chains, with the table of contents closed."""
    dictionary, topics = _with_topics([0, 0, 5, 5, 9, 9], [0, 0, 1, 1, 2, 2])
    found = find_relevant_bookmark(dictionary, _query(5), FIND, topics=topics)
    assert (found.trace.last, found.trace.contents_reads) == (Stage.ACROSS, 0)
    assert sorted(link.parent for link in found.parents) == [2, 3]
    assert found.trace.compared_across == 6


def test_a_new_topic_is_known_to_be_new_without_the_contents() -> None:
    """Proves that a find is sure that nothing is relevant once no checkpoint across chains promises as much."""
    dictionary, topics = _with_topics([0, 0, 5, 5, 9, 9], [0, 0, 1, 1, 2, 2])
    found = find_relevant_bookmark(dictionary, _query(11), FIND, topics=topics)
    assert (found.trace.last, found.parents, found.trace.contents) == (Stage.ACROSS, (), ())


def test_the_contents_are_read_while_a_closed_checkpoint_promises_more() -> None:
    """Proves the last resort: with more segments that point near the query than are opened, and nothing relevant in
    those, the table of contents is read."""
    generator = np.random.default_rng(0)
    # Each vector is 0.45 similar to the query, and 0.2 to each other, so that a segment's mean is nearer than any.
    rows = to_lattice(
        0.45 * np.eye(DIMS_WIDE)[0] + np.sqrt(1 - 0.45**2) * _unit(generator.standard_normal((2000, DIMS_WIDE))),
        np.zeros(DIMS_WIDE),
    )
    dictionary = Dictionary(DIMS_WIDE, DictionarySettings(), make_bounds("ball", DIMS_WIDE))
    dictionary.extend(rows, np.zeros(2000, dtype=np.int64))
    topics = TopicalDictionary(DIMS_WIDE, TopicalSettings(fan=8))
    topics.place(dictionary.vectors)
    query = np.eye(DIMS_WIDE)[0].astype(np.int16) * 4095
    found = find_relevant_bookmark(dictionary, query, FIND, topics=topics)
    assert (found.trace.last, found.parents) == (Stage.CONTENTS, ())
