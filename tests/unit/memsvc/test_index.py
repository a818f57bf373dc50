"""The index of one stream: links and blocks against a naive oracle, sealing, and saved shards."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from memsvc.errors import InvalidRequest, StorageFailed
from memsvc.lattice import SCALE, to_lattice
from memsvc.shards import choice, faiss
from memsvc.shards.choice import group_rows_of
from memsvc.shards.index import TAIL_ROWS, StreamIndex
from protos.memsvc.v1 import types_pb2 as wire
from tests.disk_faults import files_end_at, fsync_fails

DIMS = 32
FLAT, HNSW = wire.FINDER_KIND_FLAT, wire.FINDER_KIND_HNSW
FAISS, WALK, DICTIONARY = wire.FINDER_KIND_FAISS, wire.FINDER_KIND_WALK, wire.FINDER_KIND_DICTIONARY
AUTO = wire.FINDER_KIND_AUTO


def _vectors(count: int, seed: int = 3) -> np.ndarray:
    """Lattice vectors around 50 topics, every tenth a copy of an earlier one, so that ties occur."""
    generator = np.random.default_rng(seed)
    topics = generator.standard_normal((50, DIMS))
    data = topics[generator.integers(0, 50, count)] + 0.5 * generator.standard_normal((count, DIMS))
    data[10::10] = data[5 : count - 5 : 10][: len(data[10::10])]
    return to_lattice(data.astype(np.float32), np.zeros(DIMS))


def _blocks(count: int) -> np.ndarray:
    """Ascending blocks of 1 to 40 bookmarks each, with holes, from block 0."""
    generator = np.random.default_rng(6)
    sizes = generator.integers(1, 41, count)
    return np.repeat(np.cumsum(generator.integers(1, 3, count)) - 1, sizes)[:count]


def _index(finder: "wire.FinderKind.ValueType", link_min: float = 0.4, folder: Path | None = None) -> StreamIndex:
    return StreamIndex(DIMS, wire.SearchSpec(finder=finder, link_similarity_min=link_min), folder)


def _links(rows: np.ndarray, own: int, k: int, link_min: float) -> list[int]:
    dots = rows[:own].astype(np.int64) @ rows[own].astype(np.int64)
    hits = [(int(dot), at) for at, dot in enumerate(dots) if dot / SCALE**2 >= link_min]
    return [at for _, at in sorted(hits, reverse=True)[:k]]


def _best_blocks(rows: np.ndarray, query: np.ndarray, block_of: np.ndarray, seen: range, k: int) -> list[tuple]:
    """(dot, block, bookmark) of the k best blocks in `seen`, by plain sorting."""
    dots = rows[: len(block_of)].astype(np.int64) @ query.astype(np.int64)
    best: dict[int, tuple[int, int]] = {}
    for at, block in enumerate(block_of.tolist()):
        if block in seen:
            best[block] = max(best.get(block, (-(2**30), 0)), (int(dots[at]), at))
    return sorted(((dot, block, at) for block, (dot, at) in best.items()), reverse=True)[:k]


@pytest.mark.parametrize("added_before", [True, False])
def test_links_go_to_the_best_earlier_bookmarks(added_before: bool) -> None:
    """A bookmark links only to earlier ones, those of its own batch included, whether the batch is added yet or not."""
    rows = _vectors(700)
    index = _index(FLAT)
    for start in range(0, 700, 233):
        batch = rows[start : start + 233]
        if added_before:
            index.add(batch)
        hits = index.best_earlier(batch, start, 4)
        if not added_before:
            index.add(batch)
        for offset, found in enumerate(hits.index):
            expected = _links(rows, start + offset, 4, 0.4)
            assert found.tolist() == expected + [-1] * (4 - len(expected)), f"bookmark {start + offset}"


def test_a_link_needs_the_least_similarity() -> None:
    """No link is below the minimum, and a minimum that nothing reaches leaves no link."""
    rows = _vectors(250)
    index = _index(FLAT, link_min=0.9)
    hits = index.best_earlier(rows, 0, 4)
    assert hits.dot[hits.index >= 0].min() >= 0.9 * SCALE**2
    # Copies have similarity 1; it is the others that stay alone.
    assert (hits.index[:, 0] >= 0).sum() < 100
    assert (_index(FLAT, link_min=1.1).best_earlier(rows, 0, 4).index == -1).all()


@pytest.mark.parametrize("k", [1, 5, 500])
def test_best_blocks_equal_the_oracle(k: int) -> None:
    """Distinct blocks, best bookmark each, ties to the newer; sinks, window and what is past the cut are not seen."""
    rows, block_of = _vectors(900), _blocks(900)
    index = _index(FLAT)
    index.add(rows)
    queries, total = rows[::90], 800
    ends = np.linspace(0, block_of[-1] + 5, len(queries)).astype(np.int64)
    hits = index.best_blocks(queries, ends, block_of, total, k, first_block=3)
    for at, (query, end) in enumerate(zip(queries, ends, strict=True)):
        expected = _best_blocks(rows, query, block_of[:total], range(3, int(end)), k)
        found = hits.found[at]
        assert found == len(expected)
        got = zip(hits.dot[at, :found], hits.block[at, :found], hits.bookmark[at, :found], strict=True)
        assert [(int(d), int(b), int(i)) for d, b, i in got] == expected
        assert (hits.block[at, found:] == -1).all()


def test_an_empty_index_finds_nothing() -> None:
    """No bookmarks: no links and no blocks, in the shapes asked for."""
    for finder in (FLAT, HNSW, FAISS, WALK, DICTIONARY, AUTO):
        index = _index(finder)
        hits = index.best_blocks(_vectors(2), np.array([9, 9]), np.zeros(0, dtype=np.int64), 0, 3)
        assert (hits.block.tolist(), hits.found.tolist()) == ([[-1] * 3] * 2, [0, 0])
        assert index.best_earlier(_vectors(1), 0, 3).index.tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize(
    ("finder", "count", "least", "sealed"),
    [
        (HNSW, 8000, 0.98, "hnsw: 7680 bookmarks in 1 graphs, 320"),
        (FAISS, 8000, 0.98, "faiss: 7680 bookmarks in 1 sets of lists, 320"),
        (AUTO, 8000, 0.98, "auto, faiss: 7680 bookmarks in 1 sets of lists, 320"),
        (DICTIONARY, 3000, 1.0, "dictionary: 2560 bookmarks in 1 dictionaries, 440"),
        # Reported rather than promised: the walk answers with what it meets.
        (WALK, 3000, 0.05, "walk: 2560 bookmarks in 1 sets of chains, 440"),
    ],
)
def test_a_finder_seals_all_but_the_newest_and_finds_nearly_the_same(
    finder: "wire.FinderKind.ValueType", count: int, least: float, sealed: str
) -> None:
    """Proves that 256 to 511 bookmarks stay exact, that the status says so in words, and that of the blocks and
    links that flat finds on clustered data each finder finds its share."""
    rows, block_of = _vectors(count), _blocks(count)
    flat, other = _index(FLAT), _index(finder)
    flat.add(rows)
    other.add(rows)
    queries, ends = _vectors(100, seed=3), np.full(100, block_of[-1] + 1)
    exact, found = (one.best_blocks(queries, ends, block_of, count, 16, 1) for one in (flat, other))
    assert other.status() == f"{sealed} bookmarks compared exactly"
    assert (found.found == 16).all()
    assert all(len(set(row)) == 16 for row in found.block.tolist())
    assert np.mean([np.isin(a, b).mean() for a, b in zip(exact.block, found.block, strict=True)]) >= least
    links = [one.best_earlier(rows[-200:], count - 200, 4).index for one in (flat, other)]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(*links, strict=True)]) >= least


@pytest.mark.parametrize("finder", [FAISS, AUTO])
def test_bookmarks_too_few_to_learn_from_are_all_compared(finder: "wire.FinderKind.ValueType") -> None:
    """Proves that nothing is sealed, and results are exact, while a finder has less than it learns from."""
    rows, block_of = _vectors(4000), _blocks(4000)
    index, flat = _index(finder), _index(FLAT)
    for one in (index, flat):
        one.add(rows)
    ends = np.full(20, block_of[-1] + 1)
    found, exact = (one.best_blocks(rows[:20], ends, block_of, 4000, 16) for one in (index, flat))
    np.testing.assert_array_equal(found.bookmark, exact.bookmark)
    assert index.status().endswith("faiss: 0 bookmarks in 0 sets of lists, 4000 bookmarks compared exactly")


@pytest.mark.parametrize("finder", [FAISS, WALK, DICTIONARY])
def test_blocks_of_any_finder_respect_what_a_view_may_see(finder: "wire.FinderKind.ValueType") -> None:
    """Proves that a snapshot's cut and a query's window bound hold inside the sealed part of every kind."""
    count = 6000 if finder == FAISS else 1500
    rows, block_of = _vectors(count), _blocks(count)
    index = _index(finder)
    index.add(rows)
    index.best_earlier(rows[-1:], count - 1, 1)
    ends = np.array([4, 10, 10_000])
    hits = index.best_blocks(rows[:3], ends, block_of, 500, 16, first_block=2)
    assert (hits.bookmark < 500).all()
    for row, end in zip(hits.block, ends, strict=True):
        blocks = row[row >= 0]
        assert ((blocks >= 2) & (blocks < end)).all()


def test_hnsw_blocks_respect_what_a_view_may_see() -> None:
    """A snapshot's cut and a query's window bound hold inside the sealed part too."""
    rows, block_of = _vectors(6000), _blocks(6000)
    index = _index(HNSW)
    index.add(rows)
    index.best_earlier(rows[-1:], 5999, 1)
    ends = np.array([4, 10, 10_000])
    hits = index.best_blocks(rows[:3], ends, block_of, 500, 16, first_block=2)
    assert (hits.bookmark < 500).all()
    for row, end in zip(hits.block, ends, strict=True):
        blocks = row[row >= 0]
        assert ((blocks >= 2) & (blocks < end)).all()
    assert hits.found.tolist() == [len(set(block_of) & {2, 3}), len(set(block_of) & set(range(2, 10))), 16]


@pytest.mark.parametrize("finder", [HNSW, FAISS, WALK, DICTIONARY, AUTO])
def test_links_do_not_depend_on_the_split(finder: "wire.FinderKind.ValueType", monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that steps of 167, of 256 and of uneven sizes give the same links, bit for bit, across many seals and new
    generations of lists, whenever the threads that take bookmarks in happen to run."""
    monkeypatch.setattr(faiss, "_GROWTH", 1.05)
    rows = _vectors(7000 if finder in (HNSW, FAISS, AUTO) else 1800)
    keys = []
    for sizes in ([167], [256], [1, 130, 7, 250]):
        index, parts, start = _index(finder), [], 0
        while start < len(rows):
            own = rows[start : start + sizes[len(parts) % len(sizes)]]
            parts.append(index.best_earlier(own, start, 4).keys)
            index.add(own)
            start += len(own)
        keys.append(np.concatenate(parts))
    for other in keys[1:]:
        np.testing.assert_array_equal(keys[0], other)


def test_links_of_bookmarks_that_are_added_already_go_back_only() -> None:
    """Proves that no link leads to a later bookmark where the sealed part is ahead of the bookmark asked about."""
    rows = _vectors(6000)
    index = _index(HNSW)
    index.add(rows)
    hits = index.best_earlier(rows[3000:3250], 3000, 4)
    assert (hits.index < np.arange(3000, 3250)[:, None]).all()
    assert (hits.index >= 0).any(axis=1).all()


def test_an_index_gone_back_to_a_cut_answers_like_one_that_never_went_on() -> None:
    """Proves that after a lost writer's bookmarks are discarded, by replay to the cut, links and blocks are those of an
    index that read on from the cut at once."""
    rows, other, block_of = _vectors(7000), _vectors(1000, seed=9), _blocks(8000)
    straight, replayed = _index(FAISS), _index(FAISS)
    lost = _index(FAISS)
    for start in range(0, 7000, 250):
        lost.best_earlier(rows[start : start + 250], start, 4)
        lost.add(rows[start : start + 250])
        straight.best_earlier(rows[start : start + 250], start, 4)
        straight.add(rows[start : start + 250])
    replayed.add(rows)
    ends = np.full(20, block_of[-1] + 1)
    for start in range(0, 1000, 250):
        own = other[start : start + 250]
        links = [one.best_earlier(own, 7000 + start, 4).keys for one in (straight, replayed)]
        np.testing.assert_array_equal(*links)
        for one in (straight, replayed):
            one.add(own)
    blocks = [one.best_blocks(other[:20], ends, block_of, 8000, 8).bookmark for one in (straight, replayed)]
    np.testing.assert_array_equal(*blocks)


@pytest.mark.parametrize("finder", [HNSW, FAISS])
def test_what_was_saved_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finder: "wire.FinderKind.ValueType"
) -> None:
    """Proves that a replayed index reads files instead of making them again, unless its bookmarks went another way."""
    monkeypatch.setattr(choice, "_GRAPH_ROWS", 1024)
    monkeypatch.setattr(faiss, "_GROWTH", 1.25)
    rows, block_of = _vectors(9000), _blocks(9000)
    ends = np.full(20, block_of[-1] + 1)

    def answers() -> np.ndarray:
        index = _index(finder, folder=tmp_path)
        index.add(rows)
        found = index.best_blocks(rows[:20], ends, block_of, len(rows), 8).bookmark
        index.settle()
        return found

    first = answers()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    # Graphs or lists, each with its directions.
    assert len(written) >= 2
    np.testing.assert_array_equal(answers(), first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    rows = _vectors(9000, seed=8)
    assert not np.array_equal(answers(), first)
    assert not set(tmp_path.iterdir()) & set(written)


@pytest.mark.parametrize("short", [False, True])
def test_a_shard_that_cannot_be_saved_is_sealed_once(
    short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that a failed fsync or a short write is told, and that later searches find each bookmark once."""
    monkeypatch.setattr(choice, "_GRAPH_ROWS", 1024)
    rows, block_of = _vectors(5000), _blocks(5000)
    ends = np.full(20, block_of[-1] + 1)
    index = _index(HNSW, folder=tmp_path)
    index.add(rows)
    with files_end_at(4096) if short else fsync_fails(monkeypatch), pytest.raises(StorageFailed):
        index.settle()
    healthy = _index(HNSW)
    healthy.add(rows)
    healthy.settle()
    # They resemble what was sealed when the save failed.
    again = rows[256:266]
    links = [one.best_earlier(again, len(rows), 4).index for one in (index, healthy)]
    np.testing.assert_array_equal(links[0], links[1])
    found = index.best_blocks(rows[:20], ends, block_of, len(rows), 8).bookmark
    np.testing.assert_array_equal(found, healthy.best_blocks(rows[:20], ends, block_of, len(rows), 8).bookmark)
    assert index.status() == healthy.status()


def test_kinds_without_files_keep_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that full dictionaries are followed by the next one and write nothing."""
    kind = choice.sealed_kind(DICTIONARY)
    assert kind is not None
    monkeypatch.setattr("memsvc.shards.index.sealed_kind", lambda _: dataclasses.replace(kind, first_rows=512))
    rows, block_of = _vectors(2100), _blocks(2100)
    index = _index(DICTIONARY, folder=tmp_path)
    index.add(rows)
    hits = index.best_blocks(rows[:20], np.full(20, block_of[-1] + 1), block_of, len(rows), 8)
    assert index.status().startswith("dictionary: 1792 bookmarks in 4 dictionaries, ")
    flat = _index(FLAT)
    flat.add(rows)
    exact = flat.best_blocks(rows[:20], np.full(20, block_of[-1] + 1), block_of, len(rows), 8)
    np.testing.assert_array_equal(hits.bookmark, exact.bookmark)
    assert list(tmp_path.iterdir()) == []


def test_bookmarks_are_sealed_by_as_many_as_the_tokens_asked_for_hold() -> None:
    """Proves that `index_every_tokens` becomes bookmarks by the policy's coverage, and that an index holds to it."""
    every = wire.PolicySpec(kind=wire.POLICY_KIND_EVERY)
    tenth = wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL, coverage=0.1)
    fifth = wire.PolicySpec(kind=wire.POLICY_KIND_FIXED, every_tokens=5)
    groups = [
        group_rows_of(wire.SessionSpec(policy=policy, search=wire.SearchSpec(index_every_tokens=tokens)))
        for policy, tokens in ((every, 100), (tenth, 0), (fifth, 100), (tenth, 1))
    ]
    assert groups == [100, 410, 20, 1]
    rows = _vectors(3000)
    index = StreamIndex(DIMS, wire.SearchSpec(finder=HNSW, link_similarity_min=0.4), None, 100)
    for start in range(0, 3000, 250):
        index.best_earlier(rows[start : start + 250], start, 4)
        index.add(rows[start : start + 250])
    index.settle()
    assert index.status().startswith(f"hnsw: {(3000 - TAIL_ROWS) // 100 * 100} bookmarks")


def test_an_unknown_finder_is_refused_by_name() -> None:
    """Proves that no index is made for a kind that nobody knows."""
    with pytest.raises(InvalidRequest, match=r"expected search\.finder FLAT, HNSW, FAISS, FAISS_GPU, WALK, .*, got 99"):
        StreamIndex(DIMS, wire.SearchSpec(finder=99))  # type: ignore[arg-type]


def test_without_faiss_it_is_refused_by_name_and_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that without the package the error says what is missing, that the other finders do not need it, and that
    an index that leaves the choice to the server goes on with graphs."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "memsvc.shards.faiss", raising=False)
    _index(HNSW)
    assert _index(AUTO).status().startswith("auto, hnsw: ")
    with pytest.raises(InvalidRequest, match=r"faiss-cpu to be installed for search\.finder FAISS"):
        _index(FAISS)
