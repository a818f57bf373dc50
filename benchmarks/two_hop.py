"""What links add to the recall of two-hop facts: `python -m benchmarks.two_hop DIR...`.

Each DIR is a trace (`benchmarks.traces`) with two-hop facts: A is B's C, B lives in D, asked for A's place. The
client's own recall, with links followed and without, has the same budget of blocks; how many came is shown. Whole: all
blocks of both sentences are there. Other kinds of facts that a trace holds say what following links costs where it is
not needed.

Intervals are Wilson's, 95 %; of the difference Newcombe's, as if the two shares were independent. `--record` writes the
row of the first policy, links and hop blocks, and a JSON with the whole table.
"""

import argparse
import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.coverage_recall import LAYER, wilson
from benchmarks.recall_of_trace import ASK, Bookmarked, Found, PreparedTrace, found_of
from benchmarks.summary import RESULTS, ROOT, Row, commit_of, cpu_name, record
from benchmarks.traces.format import Trace, TraceError
from memsvc.errors import InvalidRequest
from protos.memsvc.v1 import memory_pb2
from protos.memsvc.v1 import types_pb2 as wire

COVERAGE = 0.19
LINKS, HOP_BLOCKS = (16, 4, 8), (4, 8)
POLICIES = ("surprisal", "rarity", "novelty", "every")
KIND = "two-hop"
NAME = "two-hop whole-fact recall, hops on minus off, points"
GOAL = 15.0


@dataclass(frozen=True)
class Point:
    """Facts of one kind over all traces, with links followed and without.

    Args:
        links_max: Links of a bookmark at most.
        hop_blocks: Blocks that links may bring at most.
        facts: How many there are; `off` and `on` count those that were recalled whole, `first_*` and `last_*` those
            whose first and last sentence was.
        blocks_off: Blocks that a recall brought, on average; `blocks_on` likewise.
    """

    kind: str
    policy: str
    links_max: int
    hop_blocks: int
    facts: int
    off: int
    on: int
    first_off: int
    first_on: int
    last_off: int
    last_on: int
    blocks_off: float
    blocks_on: float

    @property
    def points(self) -> float:
        """Difference of the two shares, in points of a hundred."""
        return 100 * (self.on - self.off) / self.facts

    @property
    def interval(self) -> tuple[float, float]:
        """Of the difference, in points."""
        (off_low, off_high), (on_low, on_high) = wilson(self.off, self.facts), wilson(self.on, self.facts)
        off, on = self.off / self.facts, self.on / self.facts
        below, above = math.hypot(on - on_low, off_high - off), math.hypot(on_high - on, off - off_low)
        return 100 * (on - off - below), 100 * (on - off + above)

    def as_json(self) -> dict[str, Any]:
        """The point with its shares, difference and intervals."""
        shares = {
            "off": {"rate": self.off / self.facts, "interval": wilson(self.off, self.facts)},
            "on": {"rate": self.on / self.facts, "interval": wilson(self.on, self.facts)},
        }
        return {**dataclasses.asdict(self), "rates": shares, "points": self.points, "interval": self.interval}


def with_hops(hop_blocks: int) -> memory_pb2.RecallRequest:
    """The client's recall, and one link followed."""
    ask = memory_pb2.RecallRequest()
    ask.CopyFrom(ASK)
    ask.hops.CopyFrom(memory_pb2.HopRequest(hops=1, blocks=hop_blocks))
    return ask


def measure(traces: Sequence[PreparedTrace], policy: str, links_max: int, hop_blocks: Sequence[int]) -> list[Point]:
    """All kinds of facts of some traces, one policy. Raises InvalidRequest: a signal that a trace lacks."""
    spec = wire.PolicySpec(kind=wire.PolicyKind.Value(f"POLICY_KIND_{policy.upper()}"), coverage=COVERAGE)
    linked = [Bookmarked.of(trace, spec, links_max) for trace in traces]
    off = [found for own in linked for found in found_of(own, ASK)]
    points = []
    for count in hop_blocks:
        on = [found for own in linked for found in found_of(own, with_hops(count))]
        for kind in sorted({found.kind for found in off}):
            pairs = [pair for pair in zip(off, on, strict=True) if pair[0].kind == kind]
            points.append(_point(kind, policy, links_max, count, pairs))
    return points


def table(points: Sequence[Point]) -> str:
    """One line a point."""
    heads = ("kind", "policy", "links", "hop blocks", "n", "off", "95 %", "on", "95 %", "points", "95 %", "blocks")
    lines: list[tuple[str, ...]] = [heads]
    for own in points:
        shares = [
            cell
            for count in (own.off, own.on)
            for cell in (f"{count / own.facts:.3f}", "{:.3f}-{:.3f}".format(*wilson(count, own.facts)))
        ]
        difference = (f"{own.points:+.1f}", "{:+.1f} to {:+.1f}".format(*own.interval))
        blocks = f"{own.blocks_off:.1f} / {own.blocks_on:.1f}"
        lines.append(
            (
                own.kind,
                own.policy,
                str(own.links_max),
                str(own.hop_blocks),
                str(own.facts),
                *shares,
                *difference,
                blocks,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main(arguments: Sequence[str]) -> int:
    """Measure and print the table; an error is one line."""
    chosen = _parsed(arguments)
    points: list[Point] = []
    try:
        opened = [Trace.open(folder) for folder in chosen.traces]
        traces = [PreparedTrace.of(trace, chosen.layer) for trace in opened]
        for policy, links_max in itertools.product(chosen.policies, chosen.links):
            points += measure(traces, policy, links_max, chosen.hop_blocks)
            print(f"{policy}, {links_max} links: done", file=sys.stderr, flush=True)
    except (TraceError, InvalidRequest) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(points))
    if chosen.record:
        _record(chosen, opened, points)
    return 0


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_hop", description=__doc__)
    parser.add_argument("traces", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--layer", type=int, default=LAYER)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=["surprisal"])
    parser.add_argument("--links", type=int, nargs="+", default=list(LINKS), help="of a bookmark, at most")
    parser.add_argument("--hop-blocks", type=int, nargs="+", default=list(HOP_BLOCKS), help="that links may bring")
    parser.add_argument("--record", action="store_true", help="write the row and the table to benchmarks/results")
    chosen = parser.parse_args(arguments)
    if not all(1 <= links <= 64 for links in chosen.links):
        parser.error(f"expected --links of 1 to 64, got {chosen.links}")
    if not all(1 <= blocks <= ASK.top_blocks for blocks in chosen.hop_blocks):
        parser.error(f"expected --hop-blocks of 1 to {ASK.top_blocks}, got {chosen.hop_blocks}")
    return chosen


def _point(kind: str, policy: str, links_max: int, hop_blocks: int, pairs: Sequence[tuple[Found, Found]]) -> Point:
    off, on = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Point(
        kind=kind,
        policy=policy,
        links_max=links_max,
        hop_blocks=hop_blocks,
        facts=len(pairs),
        off=sum(found.whole for found in off),
        on=sum(found.whole for found in on),
        first_off=sum(found.sentences[0] for found in off),
        first_on=sum(found.sentences[0] for found in on),
        last_off=sum(found.sentences[-1] for found in off),
        last_on=sum(found.sentences[-1] for found in on),
        blocks_off=sum(found.blocks for found in off) / len(off),
        blocks_on=sum(found.blocks for found in on) / len(on),
    )


def _record(chosen: argparse.Namespace, traces: Sequence[Trace], points: Sequence[Point]) -> None:
    first = next(point for point in points if point.kind == KIND)
    seeds = sorted({seed for trace in traces for seed in trace.source.seeds})
    value = round(first.points, 1)
    command = "python -m benchmarks.two_hop " + " ".join(folder.name for folder in chosen.traces) + " --record"
    record([Row(4, NAME, value, f"at least {GOAL:g}", value >= GOAL, command, seeds=seeds)])
    report = {
        "device": cpu_name(),
        "commit": commit_of(ROOT),
        "layer": chosen.layer,
        "coverage": COVERAGE,
        "ask": {name: getattr(ASK, name) for name in ("top_blocks", "neighbours", "budget_blocks")},
        "traces": [dataclasses.asdict(trace.source) for trace in traces],
        "points": [point.as_json() for point in points],
    }
    path = ROOT / RESULTS / "two_hop.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
