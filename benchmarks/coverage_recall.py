"""Coverage against recall, for every policy: `python -m benchmarks.coverage_recall DIR... --out results.json`.

Each DIR is a trace (`benchmarks.traces`); facts of a kind are counted over all of them. What is measured is defined in
`benchmarks.recall_of_trace`. Intervals are Wilson's, 95 %. One process a core; set OMP_NUM_THREADS=1. The policy
`attention` needs traces that were made with `--mass`. `benchmarks.figures.coverage` draws and records what this writes.
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attn_client.settings import BookmarkSettings
from benchmarks.recall_of_trace import Outcome, PreparedTrace, recall_of
from benchmarks.summary import commit_of, cpu_name
from benchmarks.traces.format import Trace, TraceError
from memsvc.errors import InvalidRequest
from protos.memsvc.v1 import types_pb2 as wire

COVERAGES = (0.02, 0.05, 0.1, 0.2, 1.0)
POLICIES = (
    *("every", "fixed", "relevance", "novelty", "distance", "topic_shift", "surprisal", "rarity", "attention"),
    "hybrid",
)
# What `hybrid` weighs unless its name says otherwise: "hybrid:surprisal=2,rarity=1".
HYBRID = BookmarkSettings().hybrid_weights
LAYER = 6
# Half-width of a 95 % interval, in deviations.
_Z = 1.959964


@dataclass(frozen=True, order=True)
class Case:
    """One point of the table. At coverage 1 every policy is `every`, which has no other."""

    policy: str
    coverage: float

    @property
    def spec(self) -> wire.PolicySpec:
        """The policy as a session is made with it."""
        name, _, given = self.policy.partition(":")
        spec = wire.PolicySpec(kind=_kind(name), coverage=self.coverage)
        if name == "fixed":
            spec.every_tokens = round(1 / self.coverage)
        if name == "hybrid":
            weights = _weights(given) if given else HYBRID
            spec.weights.extend(wire.PolicyWeight(kind=_kind(part), weight=weight) for part, weight in weights)
        return spec


@dataclass(frozen=True)
class Point:
    """Facts of one kind, all traces together. `whole`, `rank_1` and `top_16` count facts; the rest are mean shares."""

    kind: str
    policy: str
    coverage: float
    share: float
    cold_share: float
    reachable: float
    facts: int
    whole: int
    rank_1: int
    top_16: int

    def as_json(self) -> dict[str, Any]:
        """The point with the rates of the three counts and their intervals."""
        rates = {
            name: {"rate": count / self.facts, "interval": wilson(count, self.facts)}
            for name, count in (("whole", self.whole), ("rank_1", self.rank_1), ("top_16", self.top_16))
        }
        return {**dataclasses.asdict(self), "rates": rates}


def wilson(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; `of` is at least 1."""
    share, z2 = count / of, _Z * _Z / of
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2 * z2 / 4) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def cases(policies: Sequence[str], coverages: Sequence[float]) -> list[Case]:
    """All points to be measured, the slowest policies first."""
    slow = ("relevance", "novelty")
    found = [
        Case(policy, coverage) for policy in policies if policy != "every" for coverage in coverages if coverage < 1
    ]
    if "every" in policies:
        found.append(Case("every", 1.0))
    return sorted(found, key=lambda case: (case.policy not in slow, case))


def points(outcomes: Iterable[tuple[Case, Outcome]]) -> list[Point]:
    """One point a kind and case, in order of kind, policy and coverage."""
    grouped: dict[tuple[str, Case], list[Outcome]] = {}
    for case, outcome in outcomes:
        for kind in sorted({found.kind for found in outcome.found}):
            grouped.setdefault((kind, case), []).append(outcome)
    return [_point(kind, case, own) for (kind, case), own in sorted(grouped.items(), key=lambda item: item[0])]


def table(listed: Sequence[Point]) -> str:
    """Whole-fact recall and its interval, rank 1 and top 16, one line a point."""
    heads = ("kind", "policy", "asked", "share", "cold", "reachable", "n", "whole", "95 %", "rank 1", "top 16")
    lines = [heads]
    for own in listed:
        low, high = wilson(own.whole, own.facts)
        shares = (f"{own.coverage:.2f}", f"{own.share:.3f}", f"{own.cold_share:.3f}", f"{own.reachable:.3f}")
        rates = (f"{own.whole / own.facts:.3f}", f"{low:.3f}-{high:.3f}")
        others = (f"{own.rank_1 / own.facts:.3f}", f"{own.top_16 / own.facts:.3f}")
        lines.append((own.kind, own.policy, *shares, str(own.facts), *rates, *others))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def measure(folder: Path, layer: int, case: Case) -> tuple[Case, Outcome]:
    """One case over one trace, whose checksums were compared before."""
    return case, recall_of(PreparedTrace.of(Trace.open(folder, verify=False), layer), case.spec)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table and write the JSON; an error is one line."""
    chosen = _parsed(arguments)
    try:
        traces = [Trace.open(folder) for folder in chosen.traces]
        for trace in traces:
            trace.embeddings(chosen.layer, 0, 0)
        tasks = [(folder, case) for case in cases(chosen.policies, chosen.coverages) for folder in chosen.traces]
        outcomes: list[tuple[Case, Outcome]] = []
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=min(chosen.jobs, len(tasks)), mp_context=context) as pool:
            for future in as_completed([pool.submit(measure, folder, chosen.layer, case) for folder, case in tasks]):
                outcomes.append(future.result())
                print(f"{len(outcomes)} of {len(tasks)}", file=sys.stderr, flush=True)
    except (TraceError, InvalidRequest) as error:
        print(error, file=sys.stderr)
        return 1
    listed = points(outcomes)
    print(table(listed))
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(_report(chosen, traces, listed), indent=1) + "\n", encoding="utf-8")
    return 0


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage_recall", description=__doc__)
    parser.add_argument("traces", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--layer", type=int, default=LAYER)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), help="or hybrid:NAME=WEIGHT,...")
    parser.add_argument("--coverages", type=float, nargs="+", default=list(COVERAGES), help="shares of the tokens")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    chosen = parser.parse_args(arguments)
    if not all(0 < coverage <= 1 for coverage in chosen.coverages):
        parser.error(f"expected --coverages above 0 and at most 1, got {chosen.coverages}")
    for policy in chosen.policies:
        if not _known(policy):
            parser.error(f"expected --policies of {', '.join(POLICIES)} or hybrid:NAME=WEIGHT,..., got {policy}")
    if chosen.jobs < 1 or not cases(chosen.policies, chosen.coverages):
        parser.error("expected --jobs of at least 1, and a coverage below 1 unless the policy is every")
    return chosen


def _point(kind: str, case: Case, outcomes: Sequence[Outcome]) -> Point:
    facts = [found for outcome in outcomes for found in outcome.found if found.kind == kind]
    return Point(
        kind=kind,
        policy=case.policy,
        coverage=case.coverage,
        share=sum(own.share for own in outcomes) / len(outcomes),
        cold_share=sum(own.cold_share for own in outcomes) / len(outcomes),
        reachable=sum(own.reachable for own in outcomes) / len(outcomes),
        facts=len(facts),
        whole=sum(fact.whole for fact in facts),
        rank_1=sum(fact.rank_1 for fact in facts),
        top_16=sum(fact.top_16 for fact in facts),
    )


def _report(chosen: argparse.Namespace, traces: Sequence[Trace], listed: Sequence[Point]) -> dict[str, Any]:
    return {
        "command": "python -m benchmarks.coverage_recall",
        "device": cpu_name(),
        "commit": commit_of(),
        "layer": chosen.layer,
        "traces": [dataclasses.asdict(trace.source) for trace in traces],
        "points": [point.as_json() for point in listed],
    }


def _known(policy: str) -> bool:
    if not policy.startswith("hybrid:"):
        return policy in POLICIES
    try:
        weights = _weights(policy.partition(":")[2])
    except ValueError:
        return False
    return all(name in POLICIES and weight > 0 for name, weight in weights)


def _weights(given: str) -> tuple[tuple[str, float], ...]:
    """Parts of a hybrid's name. Raises ValueError for a weight that is no number."""
    pairs = [part.partition("=") for part in given.split(",")]
    return tuple((name, float(weight)) for name, _, weight in pairs)


def _kind(policy: str) -> "wire.PolicyKind.ValueType":
    return wire.PolicyKind.Value(f"POLICY_KIND_{policy.upper()}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
