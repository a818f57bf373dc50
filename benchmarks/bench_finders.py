"""The finders side by side on clustered synthetic bookmarks: `python -m benchmarks.bench_finders`. One thread.

Each row: the share of the true 16 best blocks found, what a query looked at (checkpoints and bookmarks; not counted for
graphs), the time of a query and of an add, and the bytes of checkpoints a bookmark. Prints one table, records nothing.

The data: topics that return, passages of 8 to 45 bookmarks about a topic, noise on each bookmark; all with a spectrum
that falls off, as embeddings have. Half of the queries go on from the newest passage, half return to an old one. Ten
bookmarks a block, as at 15 % coverage. Chains are those that the walk forms.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from memsvc.dictionary.bounds import BoundKind, make_bounds
from memsvc.dictionary.find import find_relevant_bookmark
from memsvc.dictionary.settings import DictionarySettings, FindSettings
from memsvc.lattice import to_lattice
from memsvc.shards.base import Float32Array, Int16Array, Int64Array, Shard, index_of
from memsvc.shards.dictionary import ChainsOf, DictionaryShard
from memsvc.shards.faiss import FaissShard
from memsvc.shards.flat import FlatShard
from memsvc.shards.hnsw import HnswShard
from memsvc.shards.sketch import Sketch
from memsvc.shards.walk import WalkShard

AnyShard = TypeVar("AnyShard", bound=Shard)

DIMS = 576
TOPICS = 60
BLOCK_BOOKMARKS = 10
BLOCKS = 16
# Candidates of a query, as an index asks a sealed shard for 16 blocks.
CANDIDATES = 8 * BLOCKS
SKETCH_ROWS = 1024
# Bookmarks of one add.
ADD_ROWS = 256
BOUND_KINDS: tuple[BoundKind, ...] = ("box", "projected", "ball", "centroid")
EVERYTHING = FindSettings(relevant=0.4, sure=2.0, refine=32, checkpoints=4)


@dataclass(frozen=True)
class Text:
    """Bookmarks and queries.

    Args:
        rows: Lattice vectors, [n, DIMS].
        queries: Lattice vectors, [m, DIMS].
        best: The true best blocks of each query.
    """

    rows: Int16Array
    queries: Int16Array
    best: list[set[int]]


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    name: str
    bookmarks: int
    agreement: float
    visited: float
    query_ms: float
    add_us: float
    bytes_a_bookmark: float


def main() -> None:
    """Measure each finder at each size, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[2_000, 10_000, 50_000], help="bookmarks")
    arguments.add_argument("--queries", type=int, default=40, help="of each size")
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    print(f"{'finder':34} {'bookmarks':>9} {'agree@16':>8} {'visited':>8} {'query ms':>8} {'add us':>7} {'bytes':>6}")
    for size in chosen.sizes:
        text = make_text(size, chosen.queries, chosen.seed)
        for row in measure_all(text):
            print(
                f"{row.name:34} {row.bookmarks:9} {row.agreement:8.3f} {row.visited:8.0f} {row.query_ms:8.2f} "
                f"{row.add_us:7.1f} {row.bytes_a_bookmark:6.0f}",
                flush=True,
            )


def make_text(count: int, queries: int, seed: int) -> Text:
    """Synthetic bookmarks and queries, a function of the arguments."""
    generator = np.random.default_rng(seed)
    spectrum = (1.0 / np.sqrt(1.0 + np.arange(DIMS) / 8.0)).astype(np.float32)

    def noise(*shape: int) -> Float32Array:
        return generator.standard_normal((*shape, DIMS), dtype=np.float32) * spectrum

    topics = noise(TOPICS)
    rows, passages = np.empty((count, DIMS), dtype=np.float32), []
    start = 0
    while start < count:
        passages.append(topics[generator.integers(TOPICS)] + 0.5 * noise())
        end = min(count, start + int(generator.integers(8, 46)))
        rows[start:end] = passages[-1] + 0.6 * noise(end - start)
        start = end
    asked = [passages[-1] if at % 2 else passages[generator.integers(len(passages))] for at in range(queries)]
    lattice, centre = to_lattice(rows, np.zeros(DIMS)), np.zeros(DIMS)
    asking = to_lattice(np.stack(asked) + 0.6 * noise(queries), centre)
    flat = FlatShard(DIMS)
    flat.add(lattice)
    blocks = np.arange(0, count, BLOCK_BOOKMARKS)
    keys = flat.block_best(asking, blocks, count)
    best = [set((index_of(own[np.argsort(own)[-BLOCKS:]]) // BLOCK_BOOKMARKS).tolist()) for own in keys]
    return Text(lattice, asking, best)


def measure_all(text: Text) -> Iterator[Measured]:
    """Every finder on one text, row by row."""
    queries = len(text.queries)
    yield _measure("flat", FlatShard(DIMS), text, lambda _: float(len(text.rows)))
    yield _measure("hnsw", HnswShard(DIMS), text)
    yield _measure("faiss", FaissShard(DIMS), text)
    walk = WalkShard(DIMS)
    yield _measure("walk, relevant is sure", walk, text, lambda _: walk.visited / queries)
    yield _walk_everything(walk, text)
    levels = walk.dictionary.levels
    chains = np.array([levels.list_of(bookmark) for bookmark in range(len(walk))], dtype=np.int64)
    print(f"{walk.chains} chains formed by the walk, which read the table of contents {walk.contents_reads} times")
    sketch = Sketch(text.rows[:SKETCH_ROWS].astype(np.float32))
    orders: dict[str, ChainsOf | None] = {"timeline": None, "chain": lambda first, last: chains[first:last]}
    for order, chains_of in orders.items():
        for kind, settings, budget in (
            *((kind, DictionarySettings(), None) for kind in BOUND_KINDS),
            ("ball", DictionarySettings(boundary=0.7), None),
            *((kind, DictionarySettings(), len(text.rows) // 10) for kind in ("box", "ball", "centroid")),
        ):
            shard = DictionaryShard(DIMS, 0, settings, make_bounds(kind, DIMS, sketch), chains_of, budget)
            name = f"dictionary {kind}, {order}{', semantic' if settings.boundary else ''}{', n/10' if budget else ''}"
            yield _measure(name, shard, text, lambda own: own.visited / queries, lambda own: own.bytes / len(own))


def _measure(
    name: str,
    shard: AnyShard,
    text: Text,
    visited: Callable[[AnyShard], float] = lambda _: math.nan,
    size: Callable[[AnyShard], float] = lambda _: math.nan,
) -> Measured:
    """Fills a shard, asks it, and tells what `visited` and `size` say of it then."""
    begun = time.perf_counter()
    for start in range(0, len(text.rows), ADD_ROWS):
        shard.add(text.rows[start : start + ADD_ROWS])
    added = time.perf_counter()
    # One query a call, as in decoding.
    hits = [shard.search(query[None], CANDIDATES).index[0] for query in text.queries]
    asked = time.perf_counter()
    count, queries = len(text.rows), len(text.queries)
    times = ((asked - added) / queries * 1e3, (added - begun) / count * 1e6)
    return Measured(name, count, _agreement(hits, text), visited(shard), *times, size(shard))


def _walk_everything(walk: WalkShard, text: Text) -> Measured:
    """The same chains, asked with every stage open."""
    begun = time.perf_counter()
    found = [find_relevant_bookmark(walk.dictionary, query, EVERYTHING) for query in text.queries]
    query_ms = (time.perf_counter() - begun) / len(found) * 1e3
    agreement = _agreement([index_of(one.keys) for one in found], text)
    visited = float(np.mean([one.trace.visited for one in found]))
    size = walk.dictionary.bytes / len(walk)
    return Measured("walk, never sure", len(walk), agreement, visited, query_ms, math.nan, size)


def _agreement(hits: list[Int64Array], text: Text) -> float:
    """Share of the true best blocks among the first distinct blocks of each query's hits, best first."""
    shared = []
    for own, best in zip(hits, text.best, strict=True):
        blocks = dict.fromkeys((own[own >= 0] // BLOCK_BOOKMARKS).tolist())
        shared.append(len(best & set(list(blocks)[:BLOCKS])) / len(best))
    return float(np.mean(shared))


if __name__ == "__main__":
    main()
