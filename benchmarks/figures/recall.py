"""What hops and single settings do to recall: `python -m benchmarks.figures.recall`.

Draws docs/figures/two-hop.svg and docs/figures/ablations.svg from what `benchmarks.two_hop` and `benchmarks.ablations`
wrote to benchmarks/results/.
"""

import json
import sys
from typing import Any

from benchmarks.figures.canvas import COLOURS, ROOT, labelled_bars, panels, save
from benchmarks.summary import RESULTS

Result = dict[str, Any]


def two_hop(result: Result) -> str:
    """Whole facts with links followed and without, by kind; the client's default number of links and hop blocks."""
    points = [point for point in result["points"] if (point["links_max"], point["hop_blocks"]) == (16, 4)]
    figure, (axes,) = panels(1)
    figure.set_size_inches(7.5, 3.4)
    for at, side in enumerate(("off", "on")):
        rates = [point["rates"][side] for point in points]
        middle = [rate["rate"] for rate in rates]
        bounds = [
            [max(0.0, rate["rate"] - rate["interval"][0]) for rate in rates],
            [max(0.0, rate["interval"][1] - rate["rate"]) for rate in rates],
        ]
        places = [place + 0.4 * (at - 0.5) for place in range(len(points))]
        label = f"links {'followed' if side == 'on' else 'not followed'}"
        axes.bar(places, middle, 0.38, yerr=bounds, color=COLOURS[at], label=label, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(points)), [point["kind"] for point in points], fontsize=8)
    axes.set_ylabel("whole facts recalled")
    axes.set_ylim(0, 1.2)
    axes.legend(fontsize=8, loc="upper center", ncols=2)
    title = "Recall of equally many blocks at 131,072 tokens (95 % intervals)"
    return save(figure, "two-hop", title).relative_to(ROOT).as_posix()


def ablations(result: Result) -> str:
    """Whole facts of all kinds together, one bar a setting."""
    rows = result["rows"]
    rates = [sum(row["whole"].values()) / sum(row["facts"].values()) for row in rows]
    figure, (axes,) = panels(1)
    figure.set_size_inches(8, 0.22 * len(rows) + 1)
    labelled_bars(axes, [f"{row['setting']}: {row['value']}" for row in rows], rates, goal=rates[0])
    axes.set_xlabel("whole facts of all six kinds recalled")
    title = "One setting changed at a time; dashed: the base"
    return save(figure, "ablations", title).relative_to(ROOT).as_posix()


def main() -> int:
    """Draw what there is."""
    for name, draw in (("two_hop.json", two_hop), ("ablations.json", ablations)):
        path = ROOT / RESULTS / name
        if path.is_file():
            print(draw(json.loads(path.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
