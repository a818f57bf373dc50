"""How what a search looks at grows with the bookmarks: `python -m benchmarks.bench_growth`. One thread to search.

For each size and each width of a search: the share of the true 16 best blocks found, the dot products computed, and
the time of a query. Growth is the exponent of a power law through the sizes, of what it takes to find 0.95 of the
blocks: between two widths the logarithms are interpolated, and below the narrowest width its own figure counts.

    dictionary    `TopicalShard`, bookmarks and nodes compared
    hnsw          one graph that grows, over projections as the finder hnsw makes them (`--directions` of the first
                  1,024 bookmarks, 16 links, 60 candidates to insert), held as 8-bit codes; distances computed, as FAISS
                  counts them, and bookmarks rescored; hnswlib counts none, and its graph is the same kind
    hnsw-shards   the same in shards of the sizes that a session with that finder has, each searched with every width
    flat          compares each bookmark: its exponent is 1 by definition

A finder grows from size to size and is measured at each, so the largest size alone says what it takes to build. With
`--together` all of them grow at the same time, each on a thread of its own; they are measured one after the other.
Memory: 1,152 bytes a bookmark for the vectors, about 140 and one a direction for a graph, 220 for the dictionary, and
half of these again while arrays grow.

The data: the bookmarks of `--vectors` (an .npz with codes, scale, positions, query_codes, query_scale), about the mean
of the first 4,096. Past their number, replicas with noise: a bookmark plus a random vector of 0.6 of its
length, so that a replica is 0.86 similar to what it came from, as nearest bookmarks of real text are. Without
`--vectors` the synthetic ones of benchmarks/bench_finders.py.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import faiss
import numpy as np

from benchmarks.bench_finders import BLOCK_BOOKMARKS, make_text
from benchmarks.summary import RESULTS, ROOT, Row, record
from memsvc.dictionary.settings import TopicalSettings
from memsvc.dictionary.topical import TopicalDictionary
from memsvc.geometry import BLOCK_TOKENS
from memsvc.lattice import SCALE, centre_of, similarities, to_lattice
from memsvc.shards.base import NOTHING, Int16Array, Int64Array, best, index_of, pack
from memsvc.shards.choice import sealed_kind
from memsvc.shards.hnsw import LEARN_ROWS
from memsvc.shards.projection import PROJECTED_DIMS, Projection
from protos.memsvc.v1 import types_pb2

DIMS = 576
BLOCKS = 16
AGREEMENT = 0.95
FINDERS = ("dictionary", "hnsw", "hnsw-shards")
WIDTHS = (16, 24, 32, 48, 64, 96, 128, 256, 512)
# As the finder hnsw has them.
LINKS, WIDTH_INSERT = 16, 60
REPLICA_NOISE = 0.6
CENTRING_ROWS = 4096
# Bookmarks compared, or added, at once.
PIECE_ROWS = 8192
RESULT = "bench_growth.json"


@dataclass(frozen=True)
class Text:
    """Bookmarks, as many as the largest size, their blocks, and queries.

    Args:
        rows: Lattice vectors, [n, DIMS]; `queries` likewise, [m, DIMS].
        blocks: Of each bookmark, ascending, [n].
    """

    rows: Int16Array
    blocks: Int64Array
    queries: Int16Array


@dataclass(frozen=True)
class Point:
    """One finder at one size with one width."""

    finder: str
    bookmarks: int
    width: int
    agreement: float
    visited: float
    query_ms: float


@dataclass(frozen=True)
class Growth:
    """Exponents of one finder over the sizes, at equal agreement; NaN where a size does not reach it."""

    finder: str
    visited: float
    time: float


# From a query and a width to bookmarks, best first, and dot products computed.
Search = Callable[[Int16Array, int], tuple[Int64Array, int]]


class Growing(Protocol):
    """A finder over a matrix that grows."""

    def grow(self, rows: Int16Array) -> None:
        """Take in what is new of these bookmarks, [n, DIMS]."""
        ...

    def search(self, query: Int16Array, width: int) -> tuple[Int64Array, int]:
        """A `Search`."""
        ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Grow each finder through the sizes, print the table and the exponents, and record them if wanted."""
    chosen = _parsed(arguments)
    text = load(chosen.vectors, max(chosen.sizes), chosen.queries, chosen.seed)
    sizes = sorted(chosen.sizes)
    true = {size: best_blocks(text, size) for size in sizes}
    points: list[Point] = []
    for names in [chosen.finders] if chosen.together else [[name] for name in chosen.finders]:
        grown = {
            told(name, chosen.directions): growing(name, sizes[-1], 1 if len(names) > 1 else 2, chosen.directions)
            for name in names
        }
        for size in sizes:
            _grow_all(grown, text.rows[:size])
            for name, finder in grown.items():
                points += measure(name, finder.search, text, size, true[size])
        # One at a time in memory.
        del grown
    growths = [growth_of(told(name, chosen.directions), points) for name in chosen.finders]
    for growth in growths:
        print(f"{growth.finder}: visited ~ n^{growth.visited:.3f}, time ~ n^{growth.time:.3f} at {AGREEMENT}")
    if chosen.record:
        _record(chosen, points, growths)


def told(finder: str, directions: int) -> str:
    """A finder as it is recorded: with its directions, if they are not all."""
    return finder if finder == "dictionary" or directions >= DIMS else f"{finder}, {directions} directions"


def _grow_all(grown: dict[str, Growing], rows: Int16Array) -> None:
    def timed(name: str) -> float:
        begun = time.perf_counter()
        grown[name].grow(rows)
        return time.perf_counter() - begun

    with ThreadPoolExecutor(len(grown)) as threads:
        for name, seconds in zip(grown, threads.map(timed, grown), strict=True):
            print(f"{name}, {len(rows)} bookmarks, {seconds:.0f} s to grow", flush=True)


def load(vectors: Path | None, count: int, queries: int, seed: int) -> Text:
    """The bookmarks there are, and replicas with noise up to `count`."""
    if vectors is None:
        made = make_text(count, queries, seed)
        return Text(made.rows, np.arange(count) // BLOCK_BOOKMARKS, made.queries)
    generator = np.random.default_rng(seed)
    with np.load(vectors) as file:
        real = file["codes"][:count].astype(np.float32) * file["scale"][:count, None]
        asking = file["query_codes"].astype(np.float32) * file["query_scale"][:, None]
        blocks = file["positions"][:count] // BLOCK_TOKENS
    centre = centre_of(real[:CENTRING_ROWS])
    rows = np.empty((count, DIMS), dtype=np.int16)
    rows[: len(real)] = to_lattice(real, centre)
    for start in range(len(real), count, PIECE_ROWS):
        own = np.arange(start, min(count, start + PIECE_ROWS)) % len(real)
        noise = generator.standard_normal((len(own), DIMS), dtype=np.float32) * (REPLICA_NOISE * SCALE / DIMS**0.5)
        rows[start : start + len(own)] = to_lattice(rows[own] + noise, np.zeros(DIMS))
    copies = np.arange(count) // len(real)
    blocks = blocks[np.arange(count) % len(real)] + copies * (blocks[-1] + 1)
    drawn = generator.choice(len(asking), min(queries, len(asking)), replace=False)
    return Text(rows, blocks, to_lattice(asking[drawn], centre))


class GrowingDictionary:
    """The dictionary by topic over a growing matrix."""

    def __init__(self) -> None:
        self._dictionary = TopicalDictionary(DIMS, TopicalSettings(width=1))
        self._rows = np.empty((0, DIMS), dtype=np.int16)

    def grow(self, rows: Int16Array) -> None:
        """Take in what is new of these bookmarks, [n, DIMS]."""
        self._rows = rows
        self._dictionary.place(rows)

    def search(self, query: Int16Array, width: int) -> tuple[Int64Array, int]:
        """The best `width` bookmarks."""
        reached = self._dictionary.search(self._rows, query, width)
        return index_of(reached.keys[reached.keys != NOTHING]), reached.visited


class GrowingGraph:
    """Graphs of FAISS over 8-bit codes of projections of a growing matrix.

    Args:
        threads: To insert with.
        first_rows: Bookmarks of the first graph when full; there is room for them from the start if it is the only one.
        growth: How many times as many each later one holds.
        directions: Of projections; DIMS of them are all.
    """

    def __init__(self, threads: int, first_rows: int, growth: int = 1, directions: int = PROJECTED_DIMS) -> None:
        self._threads, self._capacity, self._growth, self._directions = threads, first_rows, growth, directions
        self._room = first_rows if growth == 1 else 0
        self._graphs: list[tuple[Projection, faiss.IndexHNSWSQ]] = []
        # First bookmark of each graph, and the end of the last one.
        self._bounds = [0]
        self._rows = np.empty((0, DIMS), dtype=np.int16)

    def grow(self, rows: Int16Array) -> None:
        """Take in what is new of these bookmarks, [n, DIMS]."""
        self._rows = rows
        faiss.omp_set_num_threads(self._threads)
        while (start := self._bounds[-1]) < len(rows):
            full = not self._graphs or self._graphs[-1][1].ntotal == self._capacity
            if full:
                self._capacity *= self._growth if self._graphs else 1
                # Of its own bookmarks, where there are as many yet.
                first = max(0, min(start, len(rows) - PIECE_ROWS))
                self._graphs.append(_empty_graph(rows[first : first + PIECE_ROWS], self._directions, self._room))
                self._bounds.append(start)
            projection, graph = self._graphs[-1]
            end = min(len(rows), start + PIECE_ROWS, self._bounds[-2] + self._capacity)
            graph.add(projection.of(rows[start:end]))
            self._bounds[-1] = end
        faiss.omp_set_num_threads(1)

    def search(self, query: Int16Array, width: int) -> tuple[Int64Array, int]:
        """The best `width` bookmarks of each graph by codes, rescored."""
        faiss.cvar.hnsw_stats.reset()
        chosen = faiss.SearchParametersHNSW(efSearch=width)
        near = []
        for first, (projection, graph) in zip(self._bounds, self._graphs, strict=False):
            _, found = graph.search(projection.of(query[None]), width, params=chosen)
            near.append(first + found[0][found[0] >= 0])
        own = np.concatenate(near)
        dots = similarities(query[None], self._rows[own])[0]
        return own[np.argsort(-dots, kind="stable")], int(faiss.cvar.hnsw_stats.ndis) + len(own)


def _empty_graph(rows: Int16Array, directions: int, room: int) -> tuple[Projection, faiss.IndexHNSWSQ]:
    """A graph, and the directions that it is over, learnt from these bookmarks."""
    projection = Projection.learnt(rows[:LEARN_ROWS].astype(np.float32), directions)
    graph = faiss.IndexHNSWSQ(projection.width, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = WIDTH_INSERT
    # Later topics reach further than the first.
    graph.train(2.0 * projection.of(rows))
    # What has room is not copied as it grows: for a moment, there would be two of it.
    codes = faiss.downcast_index(graph.storage).codes
    codes.resize(room * projection.width)
    codes.resize(0)
    return projection, graph


def growing(name: str, most: int, threads: int = 1, directions: int = PROJECTED_DIMS) -> Growing:
    """A finder of FINDERS, empty, for `most` bookmarks."""
    if name == "dictionary":
        return GrowingDictionary()
    if name == "hnsw":
        return GrowingGraph(threads, most, directions=directions)
    kind = sealed_kind(types_pb2.FINDER_KIND_HNSW)
    assert kind is not None
    return GrowingGraph(threads, kind.first_rows, kind.growth, directions)


def measure(name: str, search: Search, text: Text, size: int, true: Sequence[set[int]]) -> list[Point]:
    """One finder over the first `size` bookmarks, with each width, beside the true best blocks; told as it goes."""
    points: list[Point] = []
    for width in WIDTHS:
        begun = time.perf_counter()
        found = [search(query, width) for query in text.queries]
        query_ms = (time.perf_counter() - begun) / len(found) * 1e3
        shares = [_share(text.blocks[bookmarks], own) for (bookmarks, _), own in zip(found, true, strict=True)]
        visited = float(np.mean([count for _, count in found]))
        points.append(Point(name, size, width, float(np.mean(shares)), visited, query_ms))
        found_share = points[-1].agreement
        print(f"  width {width:4}  agreement {found_share:.3f}  visited {visited:7.0f}  {query_ms:.2f} ms", flush=True)
    return points


def best_blocks(text: Text, size: int) -> list[set[int]]:
    """The true best blocks of each query among the first `size` bookmarks."""
    starts = np.flatnonzero(np.diff(text.blocks[:size], prepend=-1))
    keys = np.full((len(text.queries), BLOCKS), NOTHING)
    # Whole blocks at a time, so that each is found once.
    pieces = np.unique([*np.searchsorted(starts, np.arange(0, size, PIECE_ROWS)), len(starts)])
    for first, last in pairwise(pieces.tolist()):
        end = size if last == len(starts) else int(starts[last])
        dots = similarities(text.queries, text.rows[starts[first] : end])
        of_blocks = np.maximum.reduceat(dots, starts[first:last] - starts[first], axis=1)
        keys = best(np.concatenate([keys, pack(of_blocks, text.blocks[starts[first:last]])], axis=1), BLOCKS)
    return [set(index_of(own[own != NOTHING]).tolist()) for own in keys]


def growth_of(finder: str, points: Sequence[Point]) -> Growth:
    """The exponents of one finder."""
    own = [point for point in points if point.finder == finder]
    sizes = sorted({point.bookmarks for point in own})
    taken = [_at_agreement([point for point in own if point.bookmarks == size]) for size in sizes]
    visited, times = ([point[at] for point in taken] for at in (0, 1))
    return Growth(finder, _exponent(sizes, visited), _exponent(sizes, times))


def _at_agreement(points: Sequence[Point]) -> tuple[float, float]:
    """Nodes visited and milliseconds that AGREEMENT takes at one size; NaN if no width reaches it."""
    before: Point | None = None
    for point in sorted(points, key=lambda point: point.width):
        if point.agreement >= AGREEMENT:
            if before is None:
                return point.visited, point.query_ms
            share = (AGREEMENT - before.agreement) / (point.agreement - before.agreement)
            visited = before.visited * (point.visited / before.visited) ** share
            return visited, before.query_ms * (point.query_ms / before.query_ms) ** share
        before = point
    return math.nan, math.nan


def _exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    if len(sizes) < 2 or not all(math.isfinite(value) for value in values):
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _share(blocks: Int64Array, best: set[int]) -> float:
    """Share of the best blocks among the first distinct ones of the hits, best first."""
    return len(best & set(list(dict.fromkeys(blocks.tolist()))[: len(best)])) / len(best)


def _record(chosen: argparse.Namespace, points: Sequence[Point], growths: Sequence[Growth]) -> None:
    path, own = ROOT / RESULTS / RESULT, {growth.finder for growth in growths}
    details = json.loads(path.read_text()) if path.is_file() else {}
    for key, fresh in (("points", [asdict(one) for one in points]), ("growth", [asdict(one) for one in growths])):
        # Other finders' stay: one that takes hours is measured by itself.
        details[key] = [one for one in details.get(key, []) if one["finder"] not in own] + fresh
    path.write_text(json.dumps(details, indent=1) + "\n")
    sizes = " ".join(map(str, chosen.sizes))
    vectors = f" --vectors {chosen.vectors.name}" if chosen.vectors else ""
    command = f"python -m benchmarks.bench_growth{vectors} --sizes {sizes} --queries {chosen.queries}"
    command += f" --finders {' '.join(chosen.finders)} --directions {chosen.directions}"
    command += " --together" if chosen.together else ""
    rows: list[Row] = []
    for growth in growths:
        if not math.isfinite(growth.visited):
            print(
                f"{growth.finder}: expected agreement of {AGREEMENT} at every size, got less: no exponent is recorded"
            )
            continue
        for name, value, most in (
            (f"nodes visited exponent, {growth.finder}", growth.visited, 0.2),
            (f"time exponent, {growth.finder}", growth.time, 0.35),
        ):
            rows.append(Row(4, name, value, f"at most {most}", value <= most, command, seeds=(chosen.seed,)))
    record(rows)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_growth", description=__doc__)
    parser.add_argument("--vectors", type=Path, help="real bookmarks, .npz; synthetic ones if absent")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000], help="bookmarks")
    parser.add_argument("--finders", nargs="+", choices=FINDERS, default=["dictionary", "hnsw"])
    parser.add_argument("--directions", type=int, default=PROJECTED_DIMS, help=f"of the graphs; {DIMS} are all")
    parser.add_argument("--together", action="store_true", help="grow all finders at once, a thread each")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="into benchmarks/results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
