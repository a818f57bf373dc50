"""Finders at scale: `python -m benchmarks.figures.scale`.

Draws docs/figures/finders-at-scale.svg from what `benchmarks.bench_index`, `bench_growth`, `bench_insertion` and
`bench_similarity` wrote to benchmarks/results/. A panel without its file is left out.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes

from benchmarks.figures.canvas import COLOURS, MARKERS, ROOT, labelled_bars, panels, save
from benchmarks.summary import RESULTS

Result = dict[str, Any]


def search_times(axes: Axes, result: Result) -> None:
    """Time of a step's search against agreement, one mark a finder and size."""
    rows = [row for row in result["rows"] if row["p50_ms"]]
    for at, row in enumerate(rows):
        label = f"{row['finder']}, {row['bookmarks']:,}"
        axes.plot(
            row["p50_ms"], row["agreement"], MARKERS[at % len(MARKERS)], color=COLOURS[at % len(COLOURS)], label=label
        )
    axes.set_xscale("log")
    axes.axvline(1.0, color="black", linestyle="--", linewidth=0.8)
    axes.set_xlabel("ms a search, median")
    axes.set_ylabel("share of the true 16 best blocks")
    axes.set_title("CPU, one core", fontsize=10)
    axes.legend(fontsize=6)


def growth(axes: Axes, result: Result) -> None:
    """Dot products that a search computes at 0.95 agreement, against the bookmarks there are."""
    for at, name in enumerate(sorted({point["finder"] for point in result["points"]})):
        points = [point for point in result["points"] if point["finder"] == name and point["agreement"] >= 0.95]
        sizes = sorted({point["bookmarks"] for point in points})
        least = [min(point["visited"] for point in points if point["bookmarks"] == size) for size in sizes]
        axes.plot(sizes, least, marker=MARKERS[at], color=COLOURS[at], label=name)
    sizes = sorted({point["bookmarks"] for point in result["points"]})
    axes.plot(sizes, sizes, color="black", linestyle="--", linewidth=0.8, label="flat")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bookmarks")
    axes.set_ylabel("looked at, at agreement of 0.95 and more")
    axes.set_title("growth", fontsize=10)
    axes.legend(fontsize=7)


def insertion(axes: Axes, result: Result) -> None:
    """Tokens a second that a session takes in, by policy."""
    runs = sorted(result["runs"], key=lambda run: -run["tokens_per_s"])
    names = [f"{run['policy']}{', gRPC' if run['through'] == 'gRPC' else ''}" for run in runs]
    labelled_bars(axes, names, [run["tokens_per_s"] for run in runs], goal=20_000)
    axes.set_xlabel("tokens a second, 15 % bookmarked")
    axes.set_title("insertion with policy, links, log and index", fontsize=10)


def on_gpu(axes: Axes, result: Result) -> None:
    """Time of a search of ten million bookmarks on the GPU, by number of queries."""
    measured = [own for own in result["figures"] if own["bookmarks"] == 10_000_000 and own.get("graph_ms")]
    # Real rows repeated with noise; agreement on clustered ones is higher throughout.
    largest = [own for own in measured if own["data"] == "replicated"]
    lines = sorted({(own["method"], own["setting"]) for own in largest})
    for at, (method, setting) in enumerate(lines):
        points = [own for own in largest if (own["method"], own["setting"]) == (method, setting)]
        points.sort(key=lambda own: own["queries"])
        axes.plot(
            [own["queries"] for own in points],
            [own["graph_ms"] for own in points],
            marker=MARKERS[at],
            color=COLOURS[at],
            label=f"{method}, {setting}: {points[0]['agreement']:.3f}",
        )
    axes.axhline(1.0, color="black", linestyle="--", linewidth=0.8)
    axes.set_xlabel("queries at once")
    axes.set_ylabel("ms a search, as a CUDA graph")
    axes.set_yscale("log")
    axes.set_title(f"10,000,000 bookmarks, {result['device']}", fontsize=10)
    axes.legend(fontsize=5, title="share of the true 16 best", title_fontsize=6)


PANELS: tuple[tuple[str, Callable[[Axes, Result], None]], ...] = (
    ("bench_index.json", search_times),
    ("bench_growth.json", growth),
    ("bench_insertion.json", insertion),
    ("bench_similarity.json", on_gpu),
)


def main() -> int:
    """Draw what there is."""
    found = [(ROOT / RESULTS / name, draw) for name, draw in PANELS if (ROOT / RESULTS / name).is_file()]
    figure, axes = panels(len(found), columns=2)
    for own, (path, draw) in zip(axes, found, strict=True):
        draw(own, json.loads(path.read_text(encoding="utf-8")))
    print(save(figure, "finders-at-scale", "Finders at scale").relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
