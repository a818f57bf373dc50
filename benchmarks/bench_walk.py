"""The source's own search on real text: `python -m benchmarks.bench_walk TRACE...`. One thread.

Each trace (see benchmarks/traces) is bookmarked with the server's policy `surprisal`. Then two tables:

    links     every bookmark finds its parents in the source's order, with other ideas of when a find is sure beside
              it: which stage ended it, how many links it walked, what it looked at, whether it got a parent where
              there is one, how often the table of contents was read
    finders   the bookmarks under checkpoints of several kinds, asked with tokens that come after the text: share of the
              true 16 best blocks, dot products computed, time, bytes of checkpoints a bookmark

A find is sure once it has compared a bookmark that is similar enough for a link (0.4). Across chains it is sure that
there is none if it found none and no checkpoint points as near as that which it left closed, having opened up to 64 on
each level.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.bench_finders import BLOCKS, CANDIDATES, SKETCH_ROWS
from benchmarks.recall_of_trace import PreparedTrace, bookmarks_of
from benchmarks.summary import RESULTS, ROOT, Row, record
from benchmarks.traces.format import Trace
from memsvc.dictionary.bounds import BoundKind, make_bounds
from memsvc.dictionary.find import Found
from memsvc.dictionary.settings import DictionarySettings, FindSettings, TopicalSettings
from memsvc.dictionary.walker import FindCounts, Walker
from memsvc.geometry import BLOCK_TOKENS
from memsvc.lattice import SIMILARITY_UNIT, similarities
from memsvc.shards.base import Int16Array, Int64Array
from memsvc.shards.dictionary import DictionaryShard, TopicalShard
from memsvc.shards.sketch import Sketch
from protos.memsvc.v1 import types_pb2

# The finds that are measured; the first is what a session does.
FINDS = {
    "a link is sure": FindSettings(),
    "walk back 16": FindSettings(walk_links=16),
    "sure from 0.6": FindSettings(sure=0.6),
}
WIDTHS = (16, 32, 64, 128)
PIECE_ROWS = 1024
RESULT = "bench_walk.json"


@dataclass(frozen=True)
class Marked:
    """A trace's bookmarks, in order, and what is asked.

    Args:
        rows: Lattice vectors, [n, dims]; `queries` likewise, [m, dims].
        blocks: Of each bookmark, [n].
        strongest: The true best earlier similarity of each bookmark, -1 of the first, [n].
    """

    name: str
    tokens: int
    rows: Int16Array
    blocks: Int64Array
    strongest: np.ndarray[tuple[int], np.dtype[np.float64]]
    queries: Int16Array


@dataclass(frozen=True)
class Linked:
    """How the bookmarks of one trace found their parents with one setting.

    Args:
        visited: Dot products a find; `flat` is what a comparison with all earlier ones takes.
        linked: Share of the bookmarks with an earlier one similar enough that got a parent.
        strength: Mean similarity of the strongest parent over that of the true best one.
        contents_reads: A 100,000 tokens.
    """

    trace: str
    name: str
    bookmarks: int
    counts: FindCounts
    visited: float
    flat: float
    linked: float
    strength: float
    contents_reads: float
    chains: int
    find_ms: float
    bytes_a_bookmark: float


@dataclass(frozen=True)
class Asked:
    """How one finder answered over the bookmarks of one trace."""

    trace: str
    name: str
    agreement: float
    visited: float
    query_ms: float
    bytes_a_bookmark: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each trace, print both tables, and record them if wanted."""
    chosen = _parsed(arguments)
    links: list[Linked] = []
    asked: list[Asked] = []
    for folder in chosen.traces:
        marked = marked_of(folder, chosen.layer, chosen.coverage, chosen.queries, chosen.seed)
        print(f"{marked.name}: {len(marked.rows)} bookmarks of {marked.tokens} tokens")
        for name, find in FINDS.items():
            links.append(link(marked, name, find))
            print(_line_of(links[-1]), flush=True)
        for one in ask_all(marked):
            asked.append(one)
            print(
                f"  {one.name:44} agreement {one.agreement:.3f}  visited {one.visited:7.0f}  {one.query_ms:6.2f} ms  "
                f"{one.bytes_a_bookmark:5.0f} bytes",
                flush=True,
            )
    if chosen.record:
        _record(chosen, links, asked)


def marked_of(folder: Path, layer: int, coverage: float, queries: int, seed: int) -> Marked:
    """A trace's bookmarks of the text, and tokens drawn from what comes after it."""
    prepared = PreparedTrace.of(Trace.open(folder), layer)
    policy = types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_SURPRISAL, coverage=coverage)
    tokens = prepared.trace.source.text_tokens
    positions = bookmarks_of(prepared, policy)
    positions = positions[positions < tokens]
    rows, after = prepared.rows[positions], prepared.rows[tokens:]
    drawn = np.random.default_rng(seed).choice(len(after), min(queries, len(after)), replace=False)
    return Marked(folder.name, tokens, rows, positions // BLOCK_TOKENS, strongest_earlier(rows), after[np.sort(drawn)])


def strongest_earlier(rows: Int16Array) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Similarity of each bookmark to the earlier one that it resembles most, [n]; -1 of the first."""
    strongest = np.full(len(rows), -1.0)
    wide = rows.astype(np.float32)
    for start in range(0, len(rows), PIECE_ROWS):
        end = min(len(rows), start + PIECE_ROWS)
        dots = similarities(rows[start:end], wide[:end])
        dots[np.arange(end) >= np.arange(start, end)[:, None]] = -np.inf
        strongest[start:end] = np.maximum(dots.max(axis=1) * SIMILARITY_UNIT, -1.0)
    return strongest


def link(marked: Marked, name: str, find: FindSettings) -> Linked:
    """Let all bookmarks of a trace find their parents."""
    walker = Walker(marked.rows.shape[1], find)
    begun = time.perf_counter()
    found = walker.link(marked.rows)
    find_ms = (time.perf_counter() - begun) / len(found) * 1e3
    linkable = np.flatnonzero(marked.strongest >= find.relevant)
    own = np.array([_strength(one) for one in found])[linkable]
    got = own > 0
    return Linked(
        trace=marked.name,
        name=name,
        bookmarks=len(found),
        counts=walker.counts,
        visited=float(np.mean([one.trace.visited for one in found])),
        flat=(len(found) - 1) / 2,
        linked=float(got.mean()),
        strength=float((own[got] / marked.strongest[linkable][got]).mean()),
        contents_reads=walker.counts.contents_reads / marked.tokens * 100_000,
        chains=walker.dictionary.levels.lists,
        find_ms=find_ms,
        bytes_a_bookmark=walker.bytes / len(found),
    )


def ask_all(marked: Marked) -> Iterator[Asked]:
    """Checkpoints by time, by chain and by topic; fixed and semantic; each bound; several levels and widths."""
    dims = marked.rows.shape[1]
    sketch = Sketch(marked.rows[:SKETCH_ROWS].astype(np.float32))
    walker = Walker(dims, FindSettings())
    walker.link(marked.rows)
    levels = walker.dictionary.levels
    chains = np.array([levels.list_of(bookmark) for bookmark in range(len(walker))], dtype=np.int64)
    tenth = len(marked.rows) // 10
    fixed, semantic = DictionarySettings(), DictionarySettings(boundary=0.3)
    kinds: tuple[BoundKind, ...] = ("ball", "box", "projected", "centroid")
    cases: list[tuple[str, BoundKind, DictionarySettings, int | None]] = [
        ("ball, exact", "ball", fixed, None),
        *((f"{kind}, a tenth as budget", kind, fixed, tenth) for kind in kinds),
        ("ball, semantic, a tenth as budget", "ball", semantic, tenth),
        ("ball, every 5, a tenth as budget", "ball", DictionarySettings(every=5), tenth),
        *((f"ball, every {c}, a tenth as budget", "ball", DictionarySettings(every=c), tenth) for c in (64, 250, 1000)),
        ("ball, skip 32, a tenth as budget", "ball", DictionarySettings(skip=32), tenth),
    ]
    for order in ("timeline", "chains"):
        for name, kind, settings, budget in cases:
            chains_of = (lambda first, last: chains[first:last]) if order == "chains" else None
            shard = DictionaryShard(dims, 0, settings, make_bounds(kind, dims, sketch), chains_of, budget)
            yield _ask(marked, f"{order}, {name}", shard, CANDIDATES)
    for width in WIDTHS:
        shard_by_topic = TopicalShard(dims, 0, TopicalSettings(width=width))
        yield _ask(marked, f"topics, width {width}", shard_by_topic, width)


def _ask(marked: Marked, name: str, shard: DictionaryShard | TopicalShard, k: int) -> Asked:
    shard.add(marked.rows)
    begun = time.perf_counter()
    hits = [shard.search(query[None], k).index[0] for query in marked.queries]
    query_ms = (time.perf_counter() - begun) / len(hits) * 1e3
    starts = np.flatnonzero(np.diff(marked.blocks, prepend=-1))
    of_blocks = np.maximum.reduceat(similarities(marked.queries, marked.rows), starts, axis=1)
    best = marked.blocks[starts[np.argsort(-of_blocks, axis=1, kind="stable")[:, :BLOCKS]]]
    shares = [_share(marked.blocks[own[own >= 0]], set(true.tolist())) for own, true in zip(hits, best, strict=True)]
    visited = shard.visited / len(hits)
    return Asked(marked.name, name, float(np.mean(shares)), visited, query_ms, shard.bytes / len(shard))


def _share(blocks: Int64Array, best: set[int]) -> float:
    return len(best & set(list(dict.fromkeys(blocks.tolist()))[: len(best)])) / len(best)


def _strength(found: Found) -> float:
    return found.parents[0].weight if found.parents else 0.0


def _line_of(one: Linked) -> str:
    counts = one.counts
    return (
        f"  {one.name:16} walk {counts.by_walk / counts.finds:.3f}, chain {counts.by_dictionary / counts.finds:.3f}, "
        f"across {counts.across / counts.finds:.3f}; hops {counts.walked / counts.finds - 1:.2f}; visited "
        f"{one.visited:.0f} (flat {one.flat:.0f}); linked {one.linked:.4f}, strength {one.strength:.3f}; contents "
        f"{one.contents_reads:.1f} a 100,000 tokens; {one.chains} chains; {one.find_ms:.2f} ms; "
        f"{one.bytes_a_bookmark:.0f} bytes"
    )


def _record(chosen: argparse.Namespace, links: Sequence[Linked], asked: Sequence[Asked]) -> None:
    details = {"links": [asdict(one) for one in links], "finders": [asdict(one) for one in asked]}
    (ROOT / RESULTS / RESULT).write_text(json.dumps(details, indent=1) + "\n")
    command = f"python -m benchmarks.bench_walk {' '.join(folder.name for folder in chosen.traces)}"
    own = [one for one in links if one.name == next(iter(FINDS))]
    finds = sum(one.counts.finds for one in own)
    alone = sum(one.counts.by_walk for one in own) / finds
    # Per trace, so that a short one without reads hides none.
    reads = max(one.contents_reads for one in own)
    agreement = min(one.agreement for one in asked if one.name == f"topics, width {WIDTHS[-1]}")
    seeds = (chosen.seed,)
    record(
        [
            Row(4, "walk: share answered alone", alone, "at least 0", alone >= 0, command, seeds=seeds),
            Row(4, "contents reads per 100,000 tokens", reads, "at most 1", reads <= 1, command, seeds=seeds),
            Row(
                4,
                "dictionary agreement, top 16 blocks",
                agreement,
                "at least 0.95",
                agreement >= 0.95,
                command,
                seeds=seeds,
            ),
        ]
    )


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_walk", description=__doc__)
    parser.add_argument("traces", type=Path, nargs="+", help="folders that benchmarks.traces.make made")
    parser.add_argument("--layer", type=int, default=6, help="of the embeddings")
    parser.add_argument("--coverage", type=float, default=0.19, help="of the policy surprisal")
    parser.add_argument("--queries", type=int, default=60, help="tokens after the text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="into benchmarks/results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
