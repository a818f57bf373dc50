"""The dictionary and walk shards behind the protocol: exact or within a budget, in any order, with honest blanks."""

import numpy as np
import pytest

from memsvc.dictionary.bounds import BoundKind, make_bounds
from memsvc.dictionary.settings import DictionarySettings, FindSettings
from memsvc.lattice import to_lattice
from memsvc.shards.dictionary import DictionaryShard, TopicalShard
from memsvc.shards.flat import FlatShard
from memsvc.shards.sketch import Sketch
from memsvc.shards.walk import WalkShard

DIMS = 72


def _vectors(count: int, seed: int = 3) -> np.ndarray:
    """Lattice vectors in runs of 40 around topics that return, every tenth a copy of an earlier one, so ties occur."""
    topics = np.random.default_rng(1).standard_normal((12, DIMS))
    generator = np.random.default_rng(seed)
    runs = np.repeat(generator.integers(0, 12, count // 40 + 1), 40)[:count]
    data = topics[runs] + 0.3 * generator.standard_normal((count, DIMS))
    data[10::10] = data[5 : count - 5 : 10][: len(data[10::10])]
    return to_lattice(data.astype(np.float32), np.zeros(DIMS))


def _topics_of(count: int) -> np.ndarray:
    return np.repeat(np.random.default_rng(3).integers(0, 12, count // 40 + 1), 40)[:count]


def _exact(rows: np.ndarray, queries: np.ndarray, k: int, limit: int | None = None) -> np.ndarray:
    flat = FlatShard(DIMS)
    flat.add(rows)
    return flat.search(queries, k, limit).keys


@pytest.mark.parametrize("kind", ["box", "projected", "ball", "centroid"])
@pytest.mark.parametrize("chained", [False, True])
def test_without_a_budget_the_dictionary_is_exact(kind: BoundKind, chained: bool) -> None:
    """Proves for each bound, over the timeline and over chains: the hits are those of flat, ties and limit included."""
    rows, queries = _vectors(1200), _vectors(30, seed=4)
    topics = _topics_of(1200)
    sketch = Sketch(rows[:200].astype(np.float32))
    shard = DictionaryShard(
        DIMS,
        settings=DictionarySettings(every=8, boundary=0.3, skip=4),
        bounds=make_bounds(kind, DIMS, sketch),
        chains_of=(lambda first, last: topics[first:last]) if chained else None,
    )
    for start in range(0, 1200, 300):
        shard.add(rows[start : start + 300])
    for limit in (None, 0, 3, 700):
        np.testing.assert_array_equal(shard.search(queries, 16, limit).keys, _exact(rows, queries, 16, limit))
    assert shard.proven == 4 * len(queries)


def test_bounds_spare_most_comparisons_on_clustered_data() -> None:
    """Proves that on tight topics an exact search by balls looks at less than half of what flat compares."""
    rows, queries = _vectors(4000), _vectors(30, seed=4)
    shard = DictionaryShard(DIMS)
    shard.add(rows)
    np.testing.assert_array_equal(shard.search(queries, 16).keys, _exact(rows, queries, 16))
    print(f"visited a query: {shard.visited / len(queries):.0f} of 4000")
    assert shard.visited / len(queries) < 2000


def test_a_budget_ends_a_search_with_what_it_has() -> None:
    """Proves that a query passes its budget by what it opens at once at most, that agreement stays 0.95 at a tenth of
    the bookmarks, and that such a result does not claim to be exact."""
    rows, queries = _vectors(4000), _vectors(50, seed=4)
    shard = DictionaryShard(DIMS, bounds=make_bounds("centroid", DIMS), budget=400)
    shard.add(rows)
    found, exact = shard.search(queries, 16), _exact(rows, queries, 16)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, found.keys, strict=True)]) >= 0.95
    # Eight segments of 16 at once.
    assert shard.visited <= len(queries) * (400 + 8 * 16)
    assert shard.proven == 0


def test_checkpoints_by_topic_find_what_flat_finds_for_less() -> None:
    """Proves that 0.95 of flat's best 16 are found for a tenth of its dot products, that their dot products are exact,
    and that results depend on the split of neither adds nor queries."""
    rows, queries = _vectors(3000), _vectors(40, seed=4)
    shard, twin = TopicalShard(DIMS), TopicalShard(DIMS)
    shard.add(rows)
    for start in range(0, 3000, 71):
        twin.add(rows[start : start + 71])
    found, exact = shard.search(queries, 16), _exact(rows, queries, 16)
    np.testing.assert_array_equal(np.concatenate([twin.search(query[None], 16).keys for query in queries]), found.keys)
    agreement = np.mean([np.isin(a, b).mean() for a, b in zip(exact, found.keys, strict=True)])
    print(f"seeds 1, 3 and 4: agreement@16 {agreement:.3f}, visited {shard.visited / 40:.0f} of 3000")
    assert agreement >= 0.95
    assert shard.visited / 40 < 300
    dots = np.take_along_axis(queries.astype(np.int64) @ rows.T.astype(np.int64), found.index, axis=1)
    np.testing.assert_array_equal(found.dot, dots)


def test_a_shard_begins_where_it_is_told() -> None:
    """Proves that indices count from `first`, and that an empty shard finds nothing."""
    rows = _vectors(100)
    for shard in (DictionaryShard(DIMS, first=500), TopicalShard(DIMS, first=500), WalkShard(DIMS, first=500)):
        assert (shard.search(rows[:2], 3).index == -1).all()
        shard.add(rows)
        assert (shard.first, len(shard), shard.dims) == (500, 100, DIMS)
        assert shard.search(rows[-1:], 1).index.tolist() == [[599]]
        assert (shard.search(rows[-1:], 5, 520).index < 520).all()


def test_the_walk_forms_chains_and_finds_what_it_meets() -> None:
    """Proves that bookmarks of a topic share a chain, and that with every stage open and enough around each checkpoint
    compared, 0.9 of flat's best 16 are met."""
    rows, queries = _vectors(2000), _vectors(50, seed=4)
    find = FindSettings(relevant=0.6, sure=1.1, refine=64, checkpoints=8)
    shard = WalkShard(DIMS, find=find)
    shard.add(rows)
    assert shard.chains == 12
    found, exact = shard.search(queries, 16), _exact(rows, queries, 16)
    agreement = np.mean([np.isin(a, b).mean() for a, b in zip(exact, found.keys, strict=True)])
    print(f"seeds 1, 3 and 4: agreement@16 {agreement:.3f}, visited {shard.visited / 50:.0f}")
    assert agreement >= 0.9
    dots = np.take_along_axis(queries.astype(np.int64) @ rows.T.astype(np.int64), found.index, axis=1)
    np.testing.assert_array_equal(found.dot, dots)


def test_a_sure_walk_reads_no_contents() -> None:
    """Proves that the table of contents is read when a topic is new or left, and never for one that goes on."""
    rows = np.tile(_vectors(1), (50, 1))
    shard = WalkShard(DIMS)
    shard.add(rows)
    assert (shard.chains, shard.contents_reads) == (1, 0)
    hits = shard.search(rows[:1], 16)
    assert (shard.contents_reads, hits.index[0, 0]) == (0, 49)
