"""The dictionary and its two searches as a state machine, against lists and a plain comparison with everything."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memsvc.dictionary.bounds import BoundKind, make_bounds
from memsvc.dictionary.descent import descend
from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.find import find_relevant_bookmark
from memsvc.dictionary.settings import DictionarySettings, FindSettings
from memsvc.lattice import SIMILARITY_UNIT, to_lattice
from memsvc.shards.base import NOTHING, dot_of, index_of
from memsvc.shards.sketch import Sketch

DIMS = 70
TOPICS = 4
SKETCH_SEED = 9
KINDS: tuple[BoundKind, ...] = ("box", "projected", "ball", "centroid")


def _vectors(count: int, seed: int) -> np.ndarray:
    """Lattice vectors around few topics; some are zero and some equal others, so that ties occur."""
    topics = np.random.default_rng(0).standard_normal((TOPICS, DIMS))
    generator = np.random.default_rng(seed)
    rows = topics[generator.integers(0, TOPICS, count)] + 0.4 * generator.standard_normal((count, DIMS))
    rows[generator.random(count) < 0.1] = topics[0]
    rows[generator.random(count) < 0.05] = 0.0
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


def _dictionary(kind: BoundKind, chosen: DictionarySettings) -> Dictionary:
    return Dictionary(DIMS, chosen, make_bounds(kind, DIMS, Sketch(_vectors(80, SKETCH_SEED).astype(np.float32))))


class DictionaryMachine(RuleBasedStateMachine):
    """One dictionary fed in batches and a twin fed one by one, against a dict of lists."""

    @initialize(
        kind=st.sampled_from(KINDS),
        every=st.integers(1, 5),
        boundary=st.sampled_from([None, -0.5, 0.3, 0.9]),
        skip=st.integers(2, 4),
    )
    def begin(self, kind: BoundKind, every: int, boundary: float | None, skip: int) -> None:
        """Makes both, empty."""
        self.chosen = DictionarySettings(every=every, boundary=boundary, skip=skip)
        self.dictionary, self.twin = _dictionary(kind, self.chosen), _dictionary(kind, self.chosen)
        self.rows = np.empty((0, DIMS), dtype=np.int16)
        # Bookmarks of each list, and those of each of its segments.
        self.lists: dict[int, list[int]] = {}
        self.segments: dict[int, list[list[int]]] = {}

    @rule(count=st.integers(1, 12), seed=st.integers(0, 1000), data=st.data())
    def extend(self, count: int, seed: int, data: st.DataObject) -> None:
        """Adds bookmarks to lists there are, or to the next new one."""
        rows = _vectors(count, seed)
        numbers: list[int] = []
        for row in rows:
            known = len(self.lists)
            numbers.append(data.draw(st.integers(0, min(known, 5)), label="list"))
            self._model_add(numbers[-1], row)
        self.dictionary.extend(rows, np.array(numbers))
        for row, number in zip(rows, numbers, strict=True):
            self.twin.extend(row[None], np.array([number]))

    @precondition(lambda self: len(self.rows))
    @rule(k=st.integers(1, 20), seed=st.integers(0, 1000), data=st.data())
    def descend_exactly(self, k: int, seed: int, data: st.DataObject) -> None:
        """A descent without a budget finds what a comparison with everything finds, ties included."""
        query = _vectors(1, seed)[0]
        limit = data.draw(st.integers(0, len(self.rows)), label="limit")
        descent = descend(self.dictionary, query, k, limit)
        expected = self._all_keys(query, limit)[:k]
        assert descent.keys.tolist() == expected + [NOTHING] * (k - len(expected))
        assert descent.proven
        assert descent.compared <= len(self.rows)
        assert descent.nodes <= self.dictionary.levels.nodes

    @precondition(lambda self: len(self.rows))
    @rule(budget=st.integers(0, 40), seed=st.integers(0, 1000))
    def descend_within(self, budget: int, seed: int) -> None:
        """A descent within a budget finds true similarities, best first, and proves only what is exact."""
        query = _vectors(1, seed)[0]
        descent = descend(self.dictionary, query, 5, budget=budget)
        every = self._all_keys(query, len(self.rows))
        found = [key for key in descent.keys.tolist() if key != NOTHING]
        assert set(found) <= set(every)
        assert found == sorted(found, reverse=True)
        if descent.proven:
            assert found == every[:5]

    @precondition(lambda self: len(self.rows))
    @rule(
        seed=st.integers(0, 1000),
        sure=st.sampled_from([0.5, 0.8, 1.1]),
        refine=st.integers(0, 4),
        walk=st.integers(0, 3),
        data=st.data(),
    )
    def find(self, seed: int, sure: float, refine: int, walk: int, data: st.DataObject) -> None:
        """A find compares each bookmark once, returns the best of those, and says where it stopped being unsure."""
        query = _vectors(1, seed)[0]
        limit = data.draw(st.integers(1, len(self.rows)), label="limit")
        chosen = FindSettings(relevant=0.5, sure=sure, walk_links=walk, refine=refine, parents=3)
        found = find_relevant_bookmark(self.dictionary, query, chosen, limit=limit)
        trace = found.trace
        other = find_relevant_bookmark(self.twin, query, chosen, limit=limit)
        assert (other.trace, other.parents, other.keys.tolist()) == (trace, found.parents, found.keys.tolist())
        compared = [*trace.walked, *trace.refined, *trace.contents]
        assert sorted(compared) == sorted(index_of(found.keys).tolist())
        assert len(set(compared)) == len(compared)
        assert max(compared) < limit
        every = {int(index): key for key in self._all_keys(query, limit) for index in [index_of(np.array(key))]}
        assert found.keys.tolist() == sorted((every[bookmark] for bookmark in compared), reverse=True)
        relevant = [key for key in found.keys.tolist() if float(dot_of(np.array(key))) * SIMILARITY_UNIT >= 0.5]
        assert [link.parent for link in found.parents] == index_of(np.array(relevant[:3], dtype=np.int64)).tolist()
        chain = self.dictionary.levels.list_of(trace.walked[0])
        assert set(trace.walked) <= set(self.lists[chain])
        assert len(trace.walked) <= walk + 1

    @precondition(lambda self: len(self.rows))
    @rule(seed=st.integers(0, 1000))
    def find_with_every_stage_open(self, seed: int) -> None:
        """A find that is never sure and opens every segment of every chain compares with everything."""
        query = _vectors(1, seed)[0]
        chosen = FindSettings(relevant=-1.0, sure=2.0, checkpoints=1024, contents_chains=1024, parents=7)
        found = find_relevant_bookmark(self.dictionary, query, chosen)
        assert found.keys.tolist() == self._all_keys(query, len(self.rows))
        assert [link.parent for link in found.parents] == index_of(found.keys[:7]).tolist()

    @invariant()
    def each_bookmark_is_in_exactly_one_segment(self) -> None:
        """Lists and segments are those of the model."""
        levels = self.dictionary.levels
        assert levels.bookmarks == len(self.rows)
        assert levels.lists == len(self.lists)
        for number, segments in self.segments.items():
            nodes = levels.level_nodes(number, 0)
            assert [levels.members(number, *levels.span(node)).tolist() for node in nodes] == segments

    @invariant()
    def levels_are_monotone(self) -> None:
        """Each level keeps every skip-th checkpoint of the one below; its nodes touch; one node is on top."""
        levels = self.dictionary.levels
        for number, members in self.lists.items():
            for level in range(levels.height(number)):
                spans = [levels.span(node) for node in levels.level_nodes(number, level)]
                assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
                assert spans[-1][1] == len(members)
                if level:
                    below = [levels.span(node)[0] for node in levels.level_nodes(number, level - 1)]
                    assert [start for start, _ in spans] == below[:: self.chosen.skip]
            assert len(levels.level_nodes(number, levels.height(number) - 1)) == 1

    @invariant()
    def bounds_hold_and_do_not_depend_on_batches(self) -> None:
        """No bookmark below a node exceeds its bound, and the twin's summaries are the same bit for bit."""
        levels, query = self.dictionary.levels, _vectors(1, 5)[0]
        assert levels.nodes == self.twin.levels.nodes
        if not levels.nodes:
            return
        nodes = np.arange(levels.nodes)
        own, other = (one.bounds.reach(one.bounds.prepare(query), nodes) for one in (self.dictionary, self.twin))
        assert np.array_equal(own.most, other.most)
        assert np.array_equal(own.likely, other.likely)
        dots = self.rows.astype(np.int64) @ query.astype(np.int64)
        for node, most in enumerate(own.most.tolist()):
            number, _, _ = levels.place(node)
            assert most >= dots[levels.members(number, *levels.span(node))].max()

    def _model_add(self, number: int, row: np.ndarray) -> None:
        own = self.segments.setdefault(number, [])
        self.lists.setdefault(number, [])
        if not own or len(own[-1]) == self.chosen.every or self._is_boundary(own[-1], row):
            own.append([])
        own[-1].append(len(self.rows))
        self.lists[number].append(len(self.rows))
        self.rows = np.concatenate([self.rows, row[None]])

    def _is_boundary(self, segment: list[int], row: np.ndarray) -> bool:
        if self.chosen.boundary is None:
            return False
        total, exact = self.rows[segment].astype(np.int64).sum(axis=0), row.astype(np.int64)
        lengths = int(total @ total) * int(exact @ exact)
        return (int(total @ exact) / lengths**0.5 if lengths else 0.0) < self.chosen.boundary

    def _all_keys(self, query: np.ndarray, limit: int) -> list[int]:
        dots = self.rows[:limit].astype(np.int64) @ query.astype(np.int64)
        return sorted(((dot << 38) + at for at, dot in enumerate(dots.tolist())), reverse=True)


TestDictionaryMachine = DictionaryMachine.TestCase
TestDictionaryMachine.settings = settings(max_examples=120, stateful_step_count=15, deadline=None)
