"""The index of a stream at scale, finder beside finder: `python -m benchmarks.bench_index`. One query a call.

Each row: the share of the true 16 best blocks that a step's search finds, among all bookmarks and as of an old snapshot
(half of them); codes that a query reads (where FAISS counts them); the time of a step's search; of an add, and of the
search for the links of a batch of 64, a bookmark; the longest step of those; bytes of RAM a bookmark, without the
vectors themselves (2 bytes a dimension), which are mapped files.

Up to `--linked` bookmarks, the index is fed as a session feeds it: links of 64 bookmarks are searched for, then they
are added. More than that are added without links first, and only the last 8,192 are fed so. Beside the index stand
FAISS's flat index and plain hnswlib over all dimensions (M 16, 80 wide while inserting, 128 while searching), up to
`--plain` bookmarks, at one thread like everything here but what the index does in the background.

With `--vectors`, an .npz of codes int8 [n, dims], scale float32 [n], positions int64 [n], query_codes and query_scale,
rows are real. Larger sizes repeat them with noise of their own covariance and 0.6 of their length, so that the nearest
of a query are about as near as among the real ones; each repetition is further text. Else rows are those of
`benchmarks.bench_finders`.
"""

import argparse
import ctypes
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import faiss
import hnswlib
import numpy as np

from benchmarks.bench_finders import BLOCK_BOOKMARKS, make_text
from benchmarks.summary import RESULTS, ROOT, Row, cpu_name, record
from memsvc.lattice import to_lattice
from memsvc.shards.base import NOTHING, Float32Array, Int16Array, Int64Array, best, index_of, pack
from memsvc.shards.index import StreamIndex
from protos.memsvc.v1 import types_pb2 as wire

BLOCKS, CANDIDATES, LINKS, LINK_MIN = 16, 128, 4, 0.4
COMMAND = "python -m benchmarks.bench_index"
BATCH, LAST, BULK, GROUP = 64, 8192, 512, 778
NOISE = 0.6
CENTRING_TOKENS = 4096
MILLION = 1_000_000
KINDS = {
    "flat": wire.FINDER_KIND_FLAT,
    "hnsw": wire.FINDER_KIND_HNSW,
    "faiss": wire.FINDER_KIND_FAISS,
    "auto": wire.FINDER_KIND_AUTO,
}
# A scan of a million takes long; its time hardly varies.
PLAIN_QUERIES = 40


@dataclass(frozen=True)
class Bookmarks:
    """What is indexed and asked.

    Args:
        rows: Lattice vectors, [n, dims].
        block_of: Block of each, ascending.
        queries: Lattice vectors, [m, dims].
        real: Bookmarks before any is repeated.
    """

    rows: Int16Array
    block_of: Int64Array
    queries: Int16Array
    real: int


@dataclass(frozen=True)
class Measured:
    """One row of the table; what was not measured is NaN."""

    finder: str
    bookmarks: int
    agreement: float
    agreement_old: float
    codes_read: float
    p50_ms: float
    p99_ms: float
    add_us: float
    link_us: float
    stall_ms: float
    bytes: float


def main() -> None:
    """Measure each finder at each size, print the table, and write or record it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="real rows; synthetic ones if left out")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000], help="bookmarks")
    parser.add_argument("--finders", nargs="+", default=["auto", "hnsw"], choices=KINDS)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--linked", type=int, default=150_000, help="most bookmarks that all get links")
    parser.add_argument("--plain", type=int, default=50_000, help="most bookmarks that plain hnswlib takes")
    parser.add_argument("--most", type=int, default=150_000, help="most bookmarks for finders other than the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/bench_index.json and the rows")
    chosen = parser.parse_args()
    columns = ("finder", "bookmarks", "agree", "old cut", "codes", "p50 ms", "p99 ms", "add us", "link us", "stall ms")
    print(" ".join(f"{name:>9}" for name in (*columns, "bytes")))
    found: list[Measured] = []
    for size in sorted(chosen.sizes):
        marks = _bookmarks(chosen.vectors, size, chosen.queries, chosen.seed)
        for row in _all_of(marks, chosen.finders[: None if size <= chosen.most else 1], chosen.linked, chosen.plain):
            found.append(row)
            print(_line(row), flush=True)
    if chosen.record:
        _record(found, marks.real, chosen)


def _bookmarks(vectors: Path | None, count: int, queries: int, seed: int) -> Bookmarks:
    if vectors is None:
        text = make_text(count, queries, seed)
        return Bookmarks(text.rows, np.arange(count) // BLOCK_BOOKMARKS, text.queries, count)
    with np.load(vectors) as file:
        coded = {name: file[name] for name in file.files}
    embeddings = coded["codes"] * coded["scale"][:, None]
    centre = embeddings[coded["positions"] < CENTRING_TOKENS].mean(axis=0).astype(np.float64)
    asked = np.linspace(0, len(coded["query_codes"]) - 1, queries).astype(np.int64)
    asking = to_lattice(coded["query_codes"][asked] * coded["query_scale"][asked, None], centre)
    real = to_lattice(embeddings, centre)
    blocks = coded["positions"] // 64
    repeats = -(-count // len(real))
    block_of = np.concatenate([blocks + at * (blocks[-1] + 1) for at in range(repeats)])[:count]
    return Bookmarks(_repeated(real, count, seed), block_of, asking, min(count, len(real)))


def _repeated(real: Int16Array, count: int, seed: int) -> Int16Array:
    """Real rows, then the same with noise, as often as it takes."""
    rows = np.empty((count, real.shape[1]), dtype=np.int16)
    rows[: len(real)] = real[:count]
    generator = np.random.default_rng(seed)
    sample = real[:: max(1, len(real) // 16384)].astype(np.float64)
    values, directions = np.linalg.eigh(np.cov(sample.T))
    spread = NOISE * np.sqrt(np.maximum(values, 0) / values.sum()) * np.sqrt(np.mean((sample**2).sum(axis=1)))
    turn = (directions * spread).T.astype(np.float32)
    zero = np.zeros(real.shape[1])
    for start in range(len(real), count, 8192):
        own = np.arange(start, min(count, start + 8192))
        noise = generator.standard_normal((len(own), real.shape[1]), dtype=np.float32) @ turn
        rows[own] = to_lattice(real[own % len(real)].astype(np.float32) + noise, zero)
    return rows


def _all_of(marks: Bookmarks, finders: list[str], linked: int, plain: int) -> list[Measured]:
    count = len(marks.rows)
    truth, old = (_true_blocks(marks, total) for total in (count, count // 2))
    found = [_index(name, marks, truth, old, linked) for name in finders]
    found.append(_faiss_flat(marks, truth))
    if count <= plain:
        found.append(_plain_hnswlib(marks, truth))
    return found


def _index(name: str, marks: Bookmarks, truth: list[set[int]], old: list[set[int]], linked: int) -> Measured:
    before = _anonymous_bytes()
    spec = wire.SearchSpec(finder=KINDS[name], link_similarity_min=LINK_MIN)
    with tempfile.TemporaryDirectory(dir=ROOT / RESULTS) as folder:
        return _fed(
            StreamIndex(marks.rows.shape[1], spec, Path(folder), GROUP), name, marks, truth, old, linked, before
        )


def _fed(
    index: StreamIndex,
    name: str,
    marks: Bookmarks,
    truth: list[set[int]],
    old: list[set[int]],
    linked: int,
    before: int,
) -> Measured:
    count = len(marks.rows)
    fed_from = 0 if count <= linked else count - LAST
    begun = time.perf_counter()
    for start in range(0, fed_from, BULK):
        index.add(marks.rows[start : min(fed_from, start + BULK)])
        index.settle()
    bulk_us = (time.perf_counter() - begun) / max(1, fed_from) * 1e6
    links, adds = [], []
    for start in range(fed_from, count, BATCH):
        own = marks.rows[start : start + BATCH]
        begun = time.perf_counter()
        index.best_earlier(own, start, LINKS)
        searched = time.perf_counter()
        index.add(own)
        links.append(searched - begun)
        adds.append(time.perf_counter() - searched)
    index.settle()
    size = (_anonymous_bytes() - before) / count
    faiss.cvar.indexIVF_stats.reset()
    agreement, times = _ask(index, marks, count, truth)
    codes = faiss.cvar.indexIVF_stats.ndis / len(truth)
    agreement_old, _ = _ask(index, marks, count // 2, old)
    return Measured(
        finder=name,
        bookmarks=count,
        agreement=agreement,
        agreement_old=agreement_old,
        codes_read=codes or math.nan,
        p50_ms=float(np.median(times)),
        p99_ms=float(np.quantile(times, 0.99)),
        add_us=bulk_us if fed_from else sum(adds) / count * 1e6,
        link_us=sum(links) / (count - fed_from) * 1e6,
        stall_ms=max(a + b for a, b in zip(links, adds, strict=True)) * 1e3,
        bytes=size,
    )


def _ask(index: StreamIndex, marks: Bookmarks, total: int, truth: list[set[int]]) -> tuple[float, list[float]]:
    """Agreement, and the time of each query in ms."""
    shared, times = [], []
    end = np.array([marks.block_of[total - 1] + 1])
    for query, own in zip(marks.queries, truth, strict=True):
        begun = time.perf_counter()
        hits = index.best_blocks(query[None], end, marks.block_of, total, BLOCKS)
        times.append((time.perf_counter() - begun) * 1e3)
        shared.append(len(own & set(hits.block[0].tolist())) / len(own))
    return float(np.mean(shared)), times


def _faiss_flat(marks: Bookmarks, truth: list[set[int]]) -> Measured:
    flat = faiss.IndexFlatIP(marks.rows.shape[1])
    begun = time.perf_counter()
    for start in range(0, len(marks.rows), 65536):
        flat.add(marks.rows[start : start + 65536].astype(np.float32))
    add_us = (time.perf_counter() - begun) / len(marks.rows) * 1e6

    def ask(query: Float32Array) -> Int64Array:
        faiss.omp_set_num_threads(1)
        return np.asarray(flat.search(query, CANDIDATES)[1][0], dtype=np.int64)

    return _plain("FAISS flat", marks, truth, ask, add_us)


def _plain_hnswlib(marks: Bookmarks, truth: list[set[int]]) -> Measured:
    graph = hnswlib.Index(space="ip", dim=marks.rows.shape[1])
    graph.init_index(len(marks.rows), M=16, ef_construction=80, random_seed=1)
    begun = time.perf_counter()
    graph.add_items(marks.rows.astype(np.float32), num_threads=1)
    add_us = (time.perf_counter() - begun) / len(marks.rows) * 1e6
    graph.set_ef(CANDIDATES)

    def ask(query: Float32Array) -> Int64Array:
        return np.asarray(graph.knn_query(query, CANDIDATES, num_threads=1)[0][0], dtype=np.int64)

    return _plain("hnswlib", marks, truth, ask, add_us)


def _plain(
    name: str, marks: Bookmarks, truth: list[set[int]], ask: Callable[[Float32Array], Int64Array], add_us: float
) -> Measured:
    """A library by itself, which finds bookmarks and knows no blocks."""
    shared, times = [], []
    for query, own in list(zip(marks.queries, truth, strict=True))[:PLAIN_QUERIES]:
        wide = query[None].astype(np.float32)
        begun = time.perf_counter()
        hits = ask(wide)
        times.append((time.perf_counter() - begun) * 1e3)
        blocks = list(dict.fromkeys(marks.block_of[hits[hits >= 0]].tolist()))[:BLOCKS]
        shared.append(len(own & set(blocks)) / len(own))
    nan = math.nan
    p50, p99 = float(np.median(times)), float(np.quantile(times, 0.99))
    return Measured(name, len(marks.rows), float(np.mean(shared)), nan, nan, p50, p99, add_us, nan, nan, nan)


def _true_blocks(marks: Bookmarks, total: int) -> list[set[int]]:
    """The 16 best blocks of each query among the first `total` bookmarks, exactly."""
    wide = marks.queries.astype(np.float32)
    keys = np.full((len(wide), CANDIDATES), NOTHING)
    for start in range(0, total, 16384):
        rows = marks.rows[start : min(total, start + 16384)]
        own = pack(wide @ rows.astype(np.float32).T, np.arange(start, start + len(rows)))
        keys = best(np.concatenate([keys, own], axis=1), CANDIDATES)
    blocks = [dict.fromkeys(marks.block_of[index_of(own[own != NOTHING])].tolist()) for own in keys]
    assert all(len(own) >= BLOCKS for own in blocks), "expected 16 blocks among the best bookmarks"
    return [set(list(own)[:BLOCKS]) for own in blocks]


def _anonymous_bytes() -> int:
    """RAM that this process holds and no file stands behind, once what was freed is given back."""
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def _line(row: Measured) -> str:
    numbers = (row.codes_read, row.p50_ms, row.p99_ms, row.add_us, row.link_us, row.stall_ms, row.bytes)
    places = (0, 3, 3, 1, 1, 1, 0)
    cells = [f"{row.finder:>10}", f"{row.bookmarks:9}", f"{row.agreement:9.4f}", f"{row.agreement_old:9.4f}"]
    return " ".join([*cells, *(f"{own:9.{digits}f}" for own, digits in zip(numbers, places, strict=True))])


def _record(found: list[Measured], real: int, chosen: argparse.Namespace) -> None:
    vectors = f" --vectors {chosen.vectors.name}" if chosen.vectors else ""
    sizes, finders = (" ".join(str(own) for own in many) for many in (chosen.sizes, chosen.finders))
    limits = f"--plain {chosen.plain} --most {chosen.most}"
    command = f"{COMMAND}{vectors} --sizes {sizes} --finders {finders} {limits}"
    versions = {"numpy": np.__version__, "faiss": faiss.__version__, "hnswlib": version("hnswlib")}
    report = {
        "command": command,
        "device": cpu_name(),
        "versions": versions,
        "seeds": [chosen.seed],
        "real_bookmarks": real,
        "rows": [asdict(row) for row in found],
    }
    # Python's NaN is no JSON.
    text = json.dumps(report, indent=2).replace("NaN", "null")
    (ROOT / RESULTS / "bench_index.json").write_text(text + "\n")
    rows = [row for own in found if own.finder in KINDS and own.finder != "flat" for row in _rows(own, real)]
    record([replace(row, command=command, seeds=(chosen.seed,)) for row in rows])


def _rows(own: Measured, real: int) -> list[Row]:
    """What is wanted of a finder: times are wanted at a million, ratios to others stand in the file beside."""
    what = f"{own.finder} at {own.bookmarks:,} bookmarks"
    least = 0.98 if own.bookmarks <= real else 0.95
    values = [
        (f"{what}, share of the true 16 best blocks", own.agreement, f"at least {least}"),
        (f"{what}, share of the true 16 best blocks of an old snapshot", own.agreement_old, "at least 0.95"),
        (f"{what}, longest step, ms", own.stall_ms, "at most 50"),
    ]
    if own.bookmarks >= MILLION:
        values.append((f"{what}, a step's search, p50, ms", own.p50_ms, "at most 1"))
        values.append((f"{what}, a step's search, p99, ms", own.p99_ms, "at most 3"))
    return [_row(name, round(value, 4), goal) for name, value, goal in values]


def _row(name: str, value: float, goal: str) -> Row:
    limit = float(goal.split()[-1])
    return Row(4, name, value, goal, value >= limit if goal.startswith("at least") else value <= limit, COMMAND)


if __name__ == "__main__":
    main()
