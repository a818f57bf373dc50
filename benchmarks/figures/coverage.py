"""Coverage against recall: `python -m benchmarks.figures.coverage [--record]`.

Draws docs/figures/coverage-recall.svg from benchmarks/results/coverage_recall.json, which `benchmarks.coverage_recall`
wrote, and prints what each policy keeps of the recall that every token as a bookmark gives. `--record` writes the
figures of the policy that keeps most.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.figures.canvas import COLOURS, MARKERS, ROOT, legend_below, panels, save
from benchmarks.summary import RESULTS, Row, record

RESULT = RESULTS / "coverage_recall.json"
# The kinds that the bar is about; look-alikes are drawn beside them.
KINDS = ("numbers", "names", "plain", "paraphrases", "two-hop")
# At the wide coverage on each kind, at the narrow one on so many.
WIDE, NARROW, KEPT, NARROW_KINDS = 0.2, 0.1, 0.97, 3
COMMAND = "python -m benchmarks.figures.coverage --record"

Point = dict[str, Any]


def kept(points: Sequence[Point], policy: str, coverage: float) -> dict[str, float]:
    """Whole-fact recall by kind as a share of `every`'s; 1 where that finds none."""
    shares = {}
    for kind in KINDS:
        own = _point(points, kind, policy, coverage)
        every = _point(points, kind, "every", 1.0)
        rate = own["whole"] / own["facts"]
        best = every["whole"] / every["facts"]
        shares[kind] = rate / best if best else 1.0
    return shares


def best_policy(points: Sequence[Point]) -> str:
    """The policy whose worst kind keeps most at the wide coverage."""
    policies = {point["policy"] for point in points if point["coverage"] == WIDE}
    return str(max(sorted(policies), key=lambda policy: min(kept(points, policy, WIDE).values())))


def rows(result: dict[str, Any]) -> list[Row]:
    """The figures of the best policy."""
    points, device = result["points"], result["device"]
    policy = best_policy(points)
    seeds = tuple(seed for trace in result["traces"] for seed in trace["seeds"])

    def row(name: str, value: float, goal: str, least: float) -> Row:
        return Row(4, name, value, goal, value >= least, COMMAND, device=device, seeds=seeds)

    wide = kept(points, policy, WIDE)
    found = [
        row(f"recall kept at 20 % coverage, {kind} ({policy})", round(wide[kind], 4), f"at least {KEPT}", KEPT)
        for kind in KINDS
    ]
    enough = sum(share >= KEPT for share in kept(points, policy, NARROW).values())
    found.append(row("kinds of 5 kept at 10 % coverage", enough, f"at least {NARROW_KINDS}", NARROW_KINDS))
    reachable = min(point["reachable"] for point in points if point["policy"] == policy)
    found.append(row("share of blocks that can be reached", reachable, "at least 1", 1))
    return found


def draw(points: Sequence[Point]) -> str:
    """Write the figure; returns its path, relative."""
    kinds = sorted({point["kind"] for point in points}, key=lambda kind: (kind not in KINDS, kind))
    figure, axes = panels(len(kinds))
    policies = sorted({point["policy"] for point in points} - {"every"})
    for own, kind in zip(axes, kinds, strict=True):
        for at, policy in enumerate(policies):
            line = sorted((p for p in points if (p["kind"], p["policy"]) == (kind, policy)), key=lambda p: p["share"])
            rates = [point["rates"]["whole"] for point in line]
            middle = [rate["rate"] for rate in rates]
            below = [max(0.0, rate["rate"] - rate["interval"][0]) for rate in rates]
            above = [max(0.0, rate["interval"][1] - rate["rate"]) for rate in rates]
            own.errorbar(
                [100 * point["share"] for point in line],
                middle,
                yerr=[below, above],
                label=policy,
                color=COLOURS[at % len(COLOURS)],
                marker=MARKERS[at % len(MARKERS)],
                markersize=4,
                linewidth=1.2,
                elinewidth=0.6,
            )
        every = _point(points, kind, "every", 1.0)["rates"]["whole"]
        own.axhline(every["rate"], color="black", linestyle="--", linewidth=0.9, label="every token")
        own.axhspan(*every["interval"], color="black", alpha=0.08, linewidth=0)
        own.set_title(kind, fontsize=10)
        own.set_xlabel("bookmarks, % of the tokens")
        own.set_ylabel("whole facts recalled")
        own.set_ylim(-0.02, 1.02)
    legend_below(figure, axes[0], columns=6)
    title = "Whole facts recalled at 131,072 tokens, by policy and coverage (95 % intervals)"
    return save(figure, "coverage-recall", title).relative_to(ROOT).as_posix()


def main(arguments: Sequence[str]) -> int:
    """Draw, print, and record if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures.coverage", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the figures to the summary")
    chosen = parser.parse_args(arguments)
    result = json.loads((ROOT / RESULT).read_text(encoding="utf-8"))
    points = result["points"]
    for coverage in sorted({point["coverage"] for point in points} - {1.0}):
        for policy in sorted({point["policy"] for point in points} - {"every"}):
            shares = "  ".join(f"{kind} {share:.2f}" for kind, share in kept(points, policy, coverage).items())
            print(f"{coverage:.2f}  {policy:12} {shares}")
    print(draw(points))
    if chosen.record:
        record(rows(result))
    return 0


def _point(points: Sequence[Point], kind: str, policy: str, coverage: float) -> Point:
    return next(p for p in points if (p["kind"], p["policy"], p["coverage"]) == (kind, policy, coverage))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
