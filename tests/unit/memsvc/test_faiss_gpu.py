"""The GPU shard: everything but the device over a CPU index in its place, and the device where there is one."""

import gc
import threading
import weakref

import faiss
import numpy as np
import pytest

from memsvc.errors import InvalidRequest
from memsvc.lattice import to_lattice
from memsvc.shards.base import Shard
from memsvc.shards.choice import sealed_kind
from memsvc.shards.faiss_gpu import FaissGpuShard, FlatIndex, GpuIndexes, IndexOwner
from memsvc.shards.flat import FlatShard
from protos.memsvc.v1 import types_pb2 as wire

DIMS = 64
HAS_GPU = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
BACKENDS = ["cpu", pytest.param("gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")])]


class _Watched:
    """A CPU index over float16, as on the GPU, that notes which threads touch it."""

    def __init__(self, dims: int, touched: set[str]) -> None:
        touched.add(threading.current_thread().name)
        self._touched = touched
        self._index = faiss.IndexScalarQuantizer(dims, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)

    def add(self, rows: np.ndarray) -> None:
        self._touched.add(threading.current_thread().name)
        self._index.add(rows)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self._touched.add(threading.current_thread().name)
        found: tuple[np.ndarray, np.ndarray] = self._index.search(queries, k)
        return found


def _owner(backend: str, touched: set[str] | None = None) -> IndexOwner:
    noted = set() if touched is None else touched
    return IndexOwner(GpuIndexes() if backend == "gpu" else lambda dims: _Watched(dims, noted))


def _vectors(count: int, seed: int = 3, topics: int = 100) -> np.ndarray:
    middles = np.random.default_rng(1).standard_normal((topics, DIMS))
    generator = np.random.default_rng(seed)
    data = middles[np.arange(count) * topics // count] + 0.5 * generator.standard_normal((count, DIMS))
    return to_lattice(data.astype(np.float32), np.zeros(DIMS))


def _filled(shard: Shard, rows: np.ndarray, batch: int = 256) -> Shard:
    for start in range(0, len(rows), batch):
        shard.add(rows[start : start + batch])
    return shard


@pytest.mark.parametrize("backend", BACKENDS)
def test_hits_are_those_of_an_exact_search(backend: str) -> None:
    """Proves that rescoring undoes what float16 blurs: of the 16 true best at least 999 in 1,000 are found, with exact
    dot products, best first."""
    rows, queries = _vectors(6000), _vectors(200, seed=4)
    flat = FlatShard(DIMS)
    flat.add(rows)
    exact = flat.search(queries, 16)
    found = _filled(FaissGpuShard(DIMS, _owner(backend)), rows).search(queries, 16)
    shared = [np.isin(a, b).sum() for a, b in zip(exact.index, found.index, strict=True)]
    print(f"seeds 1, 3 and 4: recall@16 {np.mean(shared) / 16:.4f}")
    assert np.mean(shared) / 16 >= 0.999
    dots = np.take_along_axis(queries.astype(np.int64) @ rows.T.astype(np.int64), found.index, axis=1)
    np.testing.assert_array_equal(found.dot, dots)
    assert (np.diff(found.keys, axis=1) < 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 5, 2000, 2100])
def test_few_bookmarks_and_many_hits_are_blanks_or_exact(backend: str, count: int) -> None:
    """Proves that below 2,048 bookmarks, or for more hits than a GPU gives, results are those of flat."""
    rows, queries = _vectors(count or 1)[:count], _vectors(20, seed=4)
    flat = FlatShard(DIMS)
    flat.add(rows)
    shard = _filled(FaissGpuShard(DIMS, _owner(backend)), rows)
    for k in (16, 1500):
        if k > 16 or count < 2048:
            np.testing.assert_array_equal(shard.search(queries, k).keys, flat.search(queries, k).keys)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_limit_hides_newer_bookmarks(backend: str) -> None:
    """Proves that only bookmarks below the limit are found, near the end and far before it, under indices from
    `first`, and that as many are found as there are."""
    rows = _vectors(5000)
    shard = _filled(FaissGpuShard(DIMS, _owner(backend), 10_000), rows)
    assert (shard.first, len(shard), shard.dims) == (10_000, 5000, DIMS)
    for limit in (10_000, 10_020, 13_000, 14_990, 15_000):
        hits = shard.search(rows[-5:], 40, limit)
        assert hits.index.max() < limit
        assert ((hits.index >= 10_000).sum(axis=1) == min(40, limit - 10_000)).all()


def test_one_thread_touches_the_indexes_of_an_owner() -> None:
    """Proves that with four threads searching beside adds every call on an index comes from the owner's one thread,
    that all see their own nearest bookmark, and that another shard of the owner does not mix with the first."""
    rows, touched = _vectors(4096), set[str]()
    owner = _owner("cpu", touched)
    shard, other = FaissGpuShard(DIMS, owner), FaissGpuShard(DIMS, owner, 50_000)
    shard.add(rows[:2560])
    wrong: list[int] = []

    def ask(start: int) -> None:
        for at in range(start, 2560, 97):
            if shard.search(rows[at : at + 1], 1).index[0, 0] != at:
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for start in range(2560, 4096, 256):
        shard.add(rows[start : start + 256])
        other.add(rows[:256])
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (len(shard), len(other)) == (4096, 1536)
    assert len(touched) == 1
    assert threading.current_thread().name not in touched


def test_a_shard_that_is_gone_frees_its_index() -> None:
    """Proves that the index goes on the owner's thread when its shard does, and the thread when the owner does."""
    touched = set[str]()
    made: list[weakref.ref[FlatIndex]] = []

    def make(dims: int) -> FlatIndex:
        index = _Watched(dims, touched)
        made.append(weakref.ref(index))
        return index

    owner = IndexOwner(make)
    shard = FaissGpuShard(DIMS, owner)
    del shard
    gc.collect()
    # Takes its turn after the release.
    owner.create(DIMS)
    assert made[0]() is None
    own = [thread for thread in threading.enumerate() if thread.name in touched]
    del owner
    gc.collect()
    for thread in own:
        thread.join(timeout=60)
    assert [thread for thread in own if thread.is_alive()] == []


def test_an_index_that_refuses_leaves_the_shard_as_it_was() -> None:
    """Proves that an error on the owner's thread arrives at the caller, and that nothing was added."""

    class Full(_Watched):
        def add(self, rows: np.ndarray) -> None:
            raise RuntimeError("out of memory on device")

    shard = FaissGpuShard(DIMS, IndexOwner(lambda dims: Full(dims, set())))
    with pytest.raises(RuntimeError, match="out of memory on device"):
        shard.add(_vectors(10))
    assert len(shard) == 0


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_without_a_gpu_the_finder_is_refused() -> None:
    """Proves the typed error, which names the field and says what is missing."""
    with pytest.raises(InvalidRequest, match=r"expected a GPU.* for search\.finder FAISS_GPU, got"):
        sealed_kind(wire.FINDER_KIND_FAISS_GPU)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_with_a_gpu_the_finder_is_chosen() -> None:
    """Proves that the kind makes shards on the GPU under its own name."""
    kind = sealed_kind(wire.FINDER_KIND_FAISS_GPU)
    assert kind is not None
    assert kind.name == "faiss_gpu"
    rows = _vectors(3000)
    shard = _filled(kind.make(DIMS, 7, None), rows)
    np.testing.assert_array_equal(shard.search(rows[:9], 1).index[:, 0], np.arange(7, 16))
