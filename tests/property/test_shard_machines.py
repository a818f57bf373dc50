"""Finders, and the index that composes them, as state machines against a comparison with everything.

Sizes are made small (see `small_parts`), so that few bookmarks already fill, seal and save.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memsvc.lattice import SCALE, to_lattice
from memsvc.shards.base import NOTHING, Shard, dot_of, index_of
from memsvc.shards.dictionary import DictionaryShard, TopicalShard
from memsvc.shards.faiss import FaissShard
from memsvc.shards.flat import FlatShard
from memsvc.shards.hnsw import HnswShard
from memsvc.shards.index import StreamIndex
from memsvc.shards.walk import WalkShard
from protos.memsvc.v1 import types_pb2 as wire
from tests.property.depth import machine_settings
from tests.property.small_parts import EXACT_ROWS, make_parts_small

# More than the finders project to.
DIMS = 140
KINDS = {
    "flat": lambda first: FlatShard(DIMS),
    "hnsw": lambda first: HnswShard(DIMS, first),
    "faiss": lambda first: FaissShard(DIMS, first),
    "walk": lambda first: WalkShard(DIMS, first),
    "dictionary": lambda first: DictionaryShard(DIMS, first),
    "topical": lambda first: TopicalShard(DIMS, first),
}
EXACT = ("flat", "dictionary")
EXACT_FINDERS = ("FLAT",)
FINDERS = ("FLAT", "HNSW", "FAISS", "WALK", "DICTIONARY", "AUTO")
SEEDS = st.integers(0, 1000)
COUNTS = st.one_of(st.integers(1, 5), st.integers(1, 160))


def vectors(count: int, seed: int) -> np.ndarray:
    """Lattice vectors around few topics; some are equal to others or zero, so that ties occur."""
    topics = np.random.default_rng(0).standard_normal((12, DIMS))
    generator = np.random.default_rng(seed)
    rows = topics[generator.integers(0, 12, count)] + 0.7 * generator.standard_normal((count, DIMS))
    rows[generator.random(count) < 0.05] = topics[0]
    rows[generator.random(count) < 0.02] = 0.0
    return to_lattice(rows.astype(np.float32), np.zeros(DIMS))


def keys_of(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Key of each row for a query, worked out with Python's own integers, int64 [n]."""
    dots = rows.astype(np.int64) @ query.astype(np.int64)
    return np.array([(dot << 38) + at for at, dot in enumerate(dots.tolist())], dtype=np.int64)


class ShardMachine(RuleBasedStateMachine):
    """A shard fed in batches and a twin fed in other ones."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        make_parts_small(self.patch)

    @initialize(kind=st.sampled_from([*KINDS]), first=st.sampled_from([0, 1000]))
    def begin(self, kind: str, first: int) -> None:
        """Makes both, empty."""
        self.kind, self.first = kind, 0 if kind == "flat" else first
        self.shard, self.twin = (KINDS[kind](self.first) for _ in range(2))
        self.rows = np.empty((0, DIMS), dtype=np.int16)
        self.dropped = 0

    @rule(count=COUNTS, seed=SEEDS, data=st.data())
    def add(self, count: int, seed: int, data: st.DataObject) -> None:
        """Adds bookmarks; to the twin in two parts."""
        rows = vectors(count, seed)
        cut = data.draw(st.integers(0, count), label="cut")
        self.shard.add(rows)
        for part in (rows[:cut], rows[cut:]):
            if len(part):
                self.twin.add(part)
        self.rows = np.concatenate([self.rows, rows])

    @precondition(lambda self: self.kind == "flat" and len(self.rows) > self.dropped)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """The oldest bookmarks go; the others keep their numbers."""
        self.dropped = data.draw(st.integers(self.dropped, len(self.rows)), label="dropped")
        for shard in (self.shard, self.twin):
            assert isinstance(shard, FlatShard)
            shard.drop_before(self.dropped)

    @rule(count=st.integers(1, 40), k=st.integers(1, 20), seed=SEEDS, data=st.data())
    def search(self, count: int, k: int, seed: int, data: st.DataObject) -> None:
        """Finds real bookmarks below the limit with exact dot products, in the order of hits, however queries come."""
        queries = vectors(count, seed)
        limit = data.draw(st.one_of(st.none(), st.integers(0, len(self.rows) + 2)), label="limit")
        end = len(self.rows) if limit is None else min(limit, len(self.rows))
        absolute = None if limit is None else limit + self.first
        found = self.shard.search(queries, k, absolute).keys
        assert np.array_equal(self.twin.search(queries, k, absolute).keys, found)
        one_by_one = [self.shard.search(query[None], k, absolute).keys for query in queries]
        assert np.array_equal(np.concatenate(one_by_one), found)
        for own, query in zip(found, queries, strict=True):
            keys = keys_of(self.rows, query)
            hits = own[own != NOTHING]
            assert (own[len(hits) :] == NOTHING).all()
            places = index_of(hits) - self.first
            assert ((places >= self.dropped) & (places < end)).all()
            assert np.array_equal(dot_of(hits), dot_of(keys[places]))
            assert (np.diff(hits) < 0).all()
            if self.kind in EXACT:
                best = np.sort(keys[self.dropped : end])[::-1][:k] + self.first
                assert np.array_equal(hits, best)
            elif self.kind != "walk":
                assert len(hits) >= min(1, end)

    @invariant()
    def sizes_are_known(self) -> None:
        """Both hold what was added and not dropped."""
        if hasattr(self, "shard"):
            for shard in (self.shard, self.twin):
                own: Shard = shard
                assert (len(own), own.first, own.dims) == (
                    len(self.rows) - self.dropped,
                    self.first + self.dropped,
                    DIMS,
                )

    def teardown(self) -> None:
        """Sizes are as they were."""
        self.patch.undo()


class IndexMachine(RuleBasedStateMachine):
    """The index of a stream as a session uses it, and one that is replayed in other splits over the same folder."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        make_parts_small(self.patch)
        self.folder = Path(tempfile.mkdtemp())

    @initialize(
        finder=st.sampled_from(FINDERS),
        least=st.sampled_from([-1.0, 0.3, 0.7]),
        group=st.sampled_from([1, 30, 256]),
        rows=st.sampled_from([0, 140, 180, 330]),
    )
    def begin(self, finder: str, least: float, group: int, rows: int) -> None:
        """Makes it, with nothing or about as much as finders begin at."""
        self.finder, self.group = finder, group
        self.spec = wire.SearchSpec(finder=wire.FinderKind.Value(f"FINDER_KIND_{finder}"), link_similarity_min=least)
        self.index = self._new()
        self.rows, self.links = np.empty((0, DIMS), dtype=np.int16), np.empty((0, 3), dtype=np.int64)
        self.blocks = np.empty(0, dtype=np.int64)
        for count in (min(EXACT_ROWS, rows - first) for first in range(0, rows, EXACT_ROWS)):
            self.add(count, seed=rows, spread=7)

    @rule(count=COUNTS, seed=SEEDS, spread=st.integers(1, 20))
    def add(self, count: int, seed: int, spread: int) -> None:
        """New bookmarks find their links among earlier ones, and enter."""
        count, first = min(count, EXACT_ROWS), len(self.rows)
        rows = vectors(count, seed)
        found = self.index.best_earlier(rows, first, 3).keys
        self.index.add(rows)
        self.rows, self.links = np.concatenate([self.rows, rows]), np.concatenate([self.links, found])
        start = self.blocks[-1] if len(self.blocks) else 0
        self.blocks = np.concatenate([self.blocks, start + np.arange(count) // spread])
        for at, own in enumerate(found, first):
            keys = keys_of(self.rows[:at], self.rows[at])
            keys = keys[dot_of(keys) >= self.spec.link_similarity_min * SCALE**2]
            sure = self.finder in EXACT_FINDERS
            self._check(own, keys, keys if sure else keys[index_of(keys) >= at - EXACT_ROWS])

    @rule(count=st.integers(1, 30), k=st.integers(1, 8), seed=SEEDS, data=st.data())
    def search(self, count: int, k: int, seed: int, data: st.DataObject) -> None:
        """Finds distinct blocks past the sinks, before each query's window and below the cut."""
        queries = vectors(count, seed)
        total = data.draw(st.integers(0, len(self.rows)), label="total")
        first, last = data.draw(st.integers(0, 3), label="sinks"), int(self.blocks[-1]) + 2 if len(self.blocks) else 2
        ends = np.array(data.draw(st.lists(st.integers(0, last), min_size=count, max_size=count), label="ends"))
        hits = self.index.best_blocks(queries, ends, self.blocks, total, k, first)
        for at, query in enumerate(queries):
            found = int(hits.found[at])
            bookmarks, blocks = hits.bookmark[at, :found], hits.block[at, :found]
            assert (hits.block[at, found:] == -1).all()
            assert len(set(blocks.tolist())) == found
            assert ((blocks >= first) & (blocks < ends[at])).all()
            assert (bookmarks < total).all()
            assert np.array_equal(self.blocks[bookmarks], blocks)
            own = np.full(k, NOTHING)
            own[:found] = keys_of(self.rows[:total], query)[bookmarks]
            assert np.array_equal(hits.dot[at, :found], dot_of(own[:found]))
            self._check(own, *self._blocks_seen(query, range(first, int(ends[at])), total))
        alone = [self.index.best_blocks(queries[[at]], ends[[at]], self.blocks, total, k, first) for at in range(count)]
        assert np.array_equal(np.concatenate([own.bookmark for own in alone]), hits.bookmark)

    @precondition(lambda self: len(self.rows))
    @rule(data=st.data(), seed=SEEDS)
    def go_back(self, data: st.DataObject, seed: int) -> None:
        """Another index takes in the first bookmarks in other splits; it finds the same, and goes on in its place."""
        kept = data.draw(st.integers(1, len(self.rows)), label="kept")
        searched = data.draw(st.booleans(), label="searched on the way")
        replayed = self._new()
        for start in range(0, kept, EXACT_ROWS):
            rows = self.rows[start : min(kept, start + EXACT_ROWS)]
            if searched:
                found = replayed.best_earlier(rows, start, 3).keys
                assert np.array_equal(found, self.links[start : start + len(rows)])
            replayed.add(rows)
        if kept == len(self.rows):
            queries, ends = vectors(5, seed), np.full(5, self.blocks[-1] + 1)
            both = [one.best_blocks(queries, ends, self.blocks, kept, 4) for one in (self.index, replayed)]
            assert np.array_equal(both[0].bookmark, both[1].bookmark)
            for one in (self.index, replayed):
                one.settle()
            assert self.index.status() == replayed.status()
        self.index = replayed
        self.rows, self.links, self.blocks = self.rows[:kept], self.links[:kept], self.blocks[:kept]

    @rule()
    def settle(self) -> None:
        """What threads were given is taken in; nothing else changes."""
        self.index.settle()

    def teardown(self) -> None:
        """Threads have ended what they were given."""
        if hasattr(self, "index"):
            self.index.settle()
        self.patch.undo()
        shutil.rmtree(self.folder)

    def _new(self) -> StreamIndex:
        return StreamIndex(DIMS, self.spec, self.folder, self.group)

    def _blocks_seen(self, query: np.ndarray, blocks: range, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys that may be found in these blocks, and those that must be if they are good enough."""
        own = self.blocks[:total]
        places = np.flatnonzero((own >= blocks.start) & (own < blocks.stop))
        keys = keys_of(self.rows[:total], query)[places]
        best = [keys[own[places] == block].max() for block in np.unique(own[places])]
        sure = [key for key in best if self.finder in EXACT_FINDERS or self._is_new(int(key))]
        return np.array(best if self.finder in EXACT_FINDERS else keys), np.array(sure, dtype=np.int64)

    def _is_new(self, key: int) -> bool:
        """Whether all of a hit's block is compared exactly, however much is sealed by now."""
        block = self.blocks[index_of(np.array(key))]
        return int(np.searchsorted(self.blocks, block)) >= len(self.rows) - EXACT_ROWS

    def _check(self, found: np.ndarray, keys: np.ndarray, sure: np.ndarray) -> None:
        """Hits are of these keys and in order, and none that is sure is missed."""
        hits = found[found != NOTHING]
        assert np.isin(hits, keys).all()
        assert (np.diff(hits) < 0).all()
        assert np.array_equal(hits, np.sort(np.union1d(hits, sure))[::-1][: len(found)])


TestShardMachine = ShardMachine.TestCase
TestShardMachine.settings = machine_settings(25, 8)
TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = machine_settings(25, 10)
