"""How every figure looks: one page of panels, colours that print, and an SVG that is the same for the same data."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "figures"
# Okabe and Ito's palette, which people with any colour vision tell apart; black last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A6761D", "#999999", "#F0E442", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_PANEL_INCHES = (4.2, 3.2)


def panels(count: int, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of at most `columns`."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for own in axes:
        own.grid(visible=True, alpha=0.3)
        own.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend_below(figure: Figure, axes: Axes, columns: int = 5) -> None:
    """One legend for all panels, with the labels of one of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def save(figure: Figure, name: str, title: str, folder: Path = FOLDER) -> Path:
    """Write the figure as docs/figures/NAME.svg; returns the path."""
    figure.suptitle(title, fontsize=11)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    # Without a fixed salt and with a date, each run would write another file.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def labelled_bars(axes: Axes, names: Sequence[str], values: Sequence[float], goal: float | None = None) -> None:
    """Horizontal bars, the first on top, each with its value; a dashed line at the goal."""
    places = range(len(names))
    axes.barh(list(places), list(values), color=COLOURS[0], height=0.7)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f" {value:,.0f}" if value >= 1000 else f" {value:.3g}", (max(value, 0.0), place), va="center", fontsize=7
        )
    axes.set_yticks(list(places), list(names), fontsize=7)
    axes.invert_yaxis()
    if goal is not None:
        axes.axvline(goal, color="black", linestyle="--", linewidth=0.8)
