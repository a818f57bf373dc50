"""How what a search looks at grows with the bookmarks: `python -m benchmarks.bench_growth`. One thread to search.

For each size and each width of a search: the share of the true 16 best blocks found, the dot products computed, and
the time of a query. Growth is the exponent of a power law through the sizes, of what it takes to find 0.95 of the
blocks: between two widths the logarithms are interpolated, and below the narrowest width its own figure counts.

    dictionary   `TopicalShard`, bookmarks and nodes compared
    hnsw         a graph of FAISS over 8-bit codes (16 links, 80 candidates to insert), distances computed as FAISS
                 counts them, rescored exactly; hnswlib counts none, and its graph is the same kind
    flat         compares each bookmark: its exponent is 1 by definition

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
from dataclasses import asdict, dataclass
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
from memsvc.shards.base import NOTHING, Int16Array, Int64Array, index_of

DIMS = 576
BLOCKS = 16
AGREEMENT = 0.95
FINDERS = ("dictionary", "hnsw")
WIDTHS = (16, 24, 32, 48, 64, 96, 128, 256)
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
    points: list[Point] = []
    for name in chosen.finders:
        grown: Growing = GrowingDictionary() if name == "dictionary" else GrowingGraph()
        for size in sorted(chosen.sizes):
            begun = time.perf_counter()
            grown.grow(text.rows[:size])
            print(f"{name}, {size} bookmarks, {time.perf_counter() - begun:.0f} s to grow", flush=True)
            for point in measure(name, grown.search, text, size):
                points.append(point)
                print(
                    f"  width {point.width:4}  agreement {point.agreement:.3f}  visited {point.visited:7.0f}  "
                    f"{point.query_ms:.2f} ms",
                    flush=True,
                )
    growths = [growth_of(name, points) for name in chosen.finders]
    for growth in growths:
        print(f"{growth.finder}: visited ~ n^{growth.visited:.3f}, time ~ n^{growth.time:.3f} at {AGREEMENT}")
    if chosen.record:
        _record(chosen, points, growths)


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
    """A graph of FAISS over 8-bit codes of a growing matrix."""

    def __init__(self) -> None:
        self._graph = faiss.IndexHNSWSQ(DIMS, faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = 80
        self._rows = np.empty((0, DIMS), dtype=np.int16)

    def grow(self, rows: Int16Array) -> None:
        """Take in what is new of these bookmarks, [n, DIMS]."""
        self._rows = rows
        faiss.omp_set_num_threads(2)
        if not self._graph.is_trained:
            # Later topics reach further than the first.
            self._graph.train(2.0 * rows[:PIECE_ROWS].astype(np.float32))
        for start in range(self._graph.ntotal, len(rows), PIECE_ROWS):
            self._graph.add(rows[start : start + PIECE_ROWS].astype(np.float32))
        faiss.omp_set_num_threads(1)

    def search(self, query: Int16Array, width: int) -> tuple[Int64Array, int]:
        """The best `width` bookmarks by codes, rescored."""
        faiss.cvar.hnsw_stats.reset()
        chosen = faiss.SearchParametersHNSW(efSearch=width)
        _, found = self._graph.search(query[None].astype(np.float32), width, params=chosen)
        own = found[0][found[0] >= 0]
        dots = similarities(query[None], self._rows[own])[0]
        return own[np.argsort(-dots, kind="stable")], int(faiss.cvar.hnsw_stats.ndis) + len(own)


def measure(name: str, search: Search, text: Text, size: int) -> list[Point]:
    """One finder over the first `size` bookmarks, with each width."""
    best = best_blocks(text, size)
    points: list[Point] = []
    for width in WIDTHS:
        begun = time.perf_counter()
        found = [search(query, width) for query in text.queries]
        query_ms = (time.perf_counter() - begun) / len(found) * 1e3
        shares = [_share(text.blocks[bookmarks], own) for (bookmarks, _), own in zip(found, best, strict=True)]
        visited = float(np.mean([count for _, count in found]))
        points.append(Point(name, size, width, float(np.mean(shares)), visited, query_ms))
    return points


def best_blocks(text: Text, size: int) -> list[set[int]]:
    """The true best blocks of each query among the first `size` bookmarks."""
    starts = np.flatnonzero(np.diff(text.blocks[:size], prepend=-1))
    dots = np.empty((len(text.queries), size), dtype=np.float32)
    for start in range(0, size, PIECE_ROWS):
        end = min(size, start + PIECE_ROWS)
        dots[:, start:end] = similarities(text.queries, text.rows[start:end])
    of_blocks = np.maximum.reduceat(dots, starts, axis=1)
    order = np.argsort(-of_blocks, axis=1, kind="stable")[:, :BLOCKS]
    return [set(text.blocks[starts[own]].tolist()) for own in order]


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
    details = {"points": [asdict(point) for point in points], "growth": [asdict(growth) for growth in growths]}
    (ROOT / RESULTS / RESULT).write_text(json.dumps(details, indent=1) + "\n")
    sizes = " ".join(map(str, chosen.sizes))
    vectors = f" --vectors {chosen.vectors.name}" if chosen.vectors else ""
    command = f"python -m benchmarks.bench_growth{vectors} --sizes {sizes} --queries {chosen.queries}"
    rows: list[Row] = []
    for growth in growths:
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
    parser.add_argument("--finders", nargs="+", choices=FINDERS, default=list(FINDERS))
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="into benchmarks/results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
