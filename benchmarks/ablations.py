"""One setting changed at a time, on traces of the real model: `python -m benchmarks.ablations DIR... [--record]`.

Each row: whole facts recalled of each kind (see `benchmarks.recall_of_trace`) and of all together; bytes of links a
token and of vectors that are searched; and the time that bookmarking, linking and indexing took a token, and one
question took. The base is what the client asks for unless told otherwise, with the exact finder, so that a difference
is the setting's own. What is changed about the policy and its coverage is measured by `benchmarks.coverage_recall`.

Traces may be thinned: tokens that the base's policy makes no bookmark have zero vectors.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from attn_client.settings import BookmarkSettings
from benchmarks.recall_of_trace import ASK, TRAIL_BLOCKS, TRAIL_DECAY, Bookmarked, PreparedTrace, found_of, trail_of
from benchmarks.summary import RESULTS, ROOT, commit_of, cpu_name
from benchmarks.traces.format import Trace, TraceError
from memsvc.errors import InvalidRequest
from protos.memsvc.v1 import memory_pb2
from protos.memsvc.v1 import types_pb2 as wire

RESULT = "ablations.json"
COMMAND = "python -m benchmarks.ablations"
# Layer whose vectors are the embedding.
LAYER = 6
LINKS = BookmarkSettings().links_max
POLICY = wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL, coverage=BookmarkSettings().coverage)


@dataclass(frozen=True)
class Variant:
    """A setting and its value; everything else is the base."""

    setting: str
    value: str
    metric: "wire.Metric.ValueType" = wire.METRIC_COSINE
    finder: "wire.FinderKind.ValueType" = wire.FINDER_KIND_FLAT
    trail_blocks: int = TRAIL_BLOCKS
    trail_decay: float = TRAIL_DECAY
    ask: memory_pb2.RecallRequest = field(default_factory=lambda: ASK)
    links_max: int = LINKS


@dataclass
class Result:
    """One row over all traces; facts are counted by kind."""

    setting: str
    value: str
    bookmarks: int = 0
    tokens: int = 0
    link_bytes: int = 0
    build_s: float = 0.0
    asked_s: float = 0.0
    facts: dict[str, int] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Whole facts of all kinds together."""
        return sum(self.whole.values()) / sum(self.facts.values())

    def add(self, own: Bookmarked, build_s: float, asked_s: float) -> None:
        """Counts one trace in."""
        parents, weights = own.graph.links()
        self.bookmarks += len(own.positions)
        self.tokens += own.prepared.trace.tokens
        # Each link is kept by its child, and once more by its parent.
        self.link_bytes += 2 * parents.nbytes + weights.nbytes
        self.build_s += build_s
        self.asked_s += asked_s


def variants() -> list[Variant]:
    """The base and every change of one setting."""
    found = [Variant("base", f"K {TRAIL_BLOCKS}, decay {TRAIL_DECAY}, best 8 and neighbours, {LINKS} links, cosine")]
    found += [Variant("metric", "dot product", metric=wire.METRIC_DOT)]
    found += [Variant("metric", "Pearson correlation", metric=wire.METRIC_PEARSON)]
    found += [Variant("trail, K", str(count), trail_blocks=count) for count in (4, 8, 32, 64, 256)]
    found += [Variant("trail, decay", str(decay), trail_decay=decay) for decay in (0.8, 0.9, 0.97, 0.99)]
    for best, near in ((24, 0), (12, 1), (5, 2)):
        found.append(Variant("neighbours", f"{near}, of the best {best}", ask=_asking(best, near)))
    for hops, blocks in ((1, 4), (1, 8), (2, 4), (2, 8)):
        found.append(Variant("hops", f"{hops}, to {blocks} blocks", ask=_asking(8, 1, hops, blocks)))
    for count in (4, 8, 32):
        found.append(Variant("links", f"{count}, with 1 hop to 4 blocks", ask=_asking(8, 1, 1, 4), links_max=count))
    for name in ("faiss", "hnsw", "dictionary", "walk"):
        found.append(Variant("finder", name, finder=wire.FinderKind.Value(f"FINDER_KIND_{name.upper()}")))
    return found


def measure(variant: Variant, traces: Sequence[Trace]) -> Result:
    """One row."""
    result = Result(variant.setting, variant.value)
    for trace in traces:
        prepared = PreparedTrace.of(trace, LAYER, variant.metric)
        begun = time.perf_counter()
        own = Bookmarked.of(prepared, POLICY, variant.links_max, variant.finder)
        built = time.perf_counter()
        settings = trail_of(trace.source, variant.trail_blocks, variant.trail_decay)
        found = found_of(own, variant.ask, settings)
        result.add(own, built - begun, time.perf_counter() - built)
        for fact in found:
            result.facts[fact.kind] = result.facts.get(fact.kind, 0) + 1
            result.whole[fact.kind] = result.whole.get(fact.kind, 0) + fact.whole
    return result


def table(results: Sequence[Result]) -> str:
    """The rows as a Markdown table."""
    kinds = sorted(results[0].facts)
    lines = [f"| setting | value | all | {' | '.join(kinds)} | links, bytes a token | us a token | ms a question |"]
    lines.append("|" + "---|" * (len(kinds) + 6))
    for own in results:
        rates = [f"{own.whole[kind] / own.facts[kind]:.3f}" for kind in kinds]
        costs = [f"{own.link_bytes / own.tokens:.0f}", f"{1e6 * own.build_s / own.tokens:.0f}"]
        costs.append(f"{1e3 * own.asked_s / sum(own.facts.values()):.1f}")
        lines.append(f"| {own.setting} | {own.value} | {own.rate:.3f} | {' | '.join([*rates, *costs])} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; an error is one line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("traces", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--settings", nargs="+", help="rows of these settings only")
    parser.add_argument("--record", action="store_true", help=f"write benchmarks/results/{RESULT}")
    chosen = parser.parse_args(arguments)
    results: list[Result] = []
    try:
        traces = [Trace.open(folder) for folder in chosen.traces]
        for variant in variants():
            if not chosen.settings or variant.setting in chosen.settings:
                results.append(measure(variant, traces))
                print(table(results).splitlines()[-1], flush=True)
    except (TraceError, InvalidRequest) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(results))
    if chosen.record:
        report = {
            "command": COMMAND,
            "device": cpu_name(),
            "commit": commit_of(),
            "numpy": np.__version__,
            "traces": [dataclasses.asdict(trace.source) for trace in traces],
            "rows": [dataclasses.asdict(own) for own in results],
        }
        (ROOT / RESULTS / RESULT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _asking(best: int, near: int, hops: int = 0, blocks: int = 0) -> memory_pb2.RecallRequest:
    ask = memory_pb2.RecallRequest(top_blocks=best, neighbours=near, budget_blocks=ASK.budget_blocks)
    if hops:
        ask.hops.CopyFrom(memory_pb2.HopRequest(hops=hops, blocks=blocks))
    return ask


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
