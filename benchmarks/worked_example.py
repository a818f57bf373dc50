"""The source's worked example of a find, run as it is and drawn from its trace: `python -m benchmarks.worked_example`.

A chain of three bookmarks, cat, species, tom; "Egyptian cat" comes next, and is 0.9, 0.95 and 0.3 similar to them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memsvc.dictionary.bounds import BallBounds
from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.find import Found, find_relevant_bookmark
from memsvc.dictionary.settings import DictionarySettings, FindSettings
from memsvc.graph import BookmarkGraph
from memsvc.lattice import to_lattice
from memsvc.shards.base import Int16Array, Int64Array

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "worked-example.svg"
NAMES = ("cat", "species", "tom", "Egyptian cat")
# Similarity of each to each; the last row is the source's, the others are chosen so that the three form one chain.
SIMILARITIES = (
    (1.0, 0.85, 0.3, 0.9),
    (0.85, 1.0, 0.5, 0.95),
    (0.3, 0.5, 1.0, 0.3),
    (0.9, 0.95, 0.3, 1.0),
)
SETTINGS = FindSettings(relevant=0.4, sure=0.4, walk_links=4, refine=4, parents=2)

_WIDTH, _HEIGHT, _ROW = 760, 300, 150
_PLACES = (110, 290, 470, 650)


@dataclass(frozen=True)
class Example:
    """The example, worked.

    Args:
        dictionary: Holds the chain of three.
        graph: Likewise.
        query: Lattice vector of "Egyptian cat".
        found: What its find returned.
    """

    dictionary: Dictionary
    graph: BookmarkGraph
    query: Int16Array
    found: Found


def work(settings: FindSettings = SETTINGS) -> Example:
    """Forms the chain by finding each bookmark's parents among those before it, then finds those of the query."""
    rows = vectors()
    dictionary = Dictionary(rows.shape[1], DictionarySettings(every=2, skip=2), BallBounds(rows.shape[1]))
    graph = BookmarkGraph(settings.parents)
    for at, row in enumerate(rows[:3]):
        dictionary.extend(row[None], _link(graph, find_relevant_bookmark(dictionary, row, settings), at))
    return Example(dictionary, graph, rows[3], find_relevant_bookmark(dictionary, rows[3], settings))


def vectors() -> Int16Array:
    """Lattice vectors of the four names with these similarities, [4, 4]."""
    rows = np.linalg.cholesky(np.array(SIMILARITIES)).astype(np.float32)
    return to_lattice(rows, np.zeros(4))


def draw(found: Found) -> str:
    """The picture of a find, as SVG."""
    marks = [_mark(at, found) for at in range(3)]
    links = [_link_line(2, 1, "#999999"), _link_line(1, 0, "#999999")]
    links += [_parent_line(link.parent, link.weight) for link in found.parents]
    walked = [
        _walk_line(older, newer) for newer, older in zip(found.trace.walked, found.trace.walked[1:], strict=False)
    ]
    steps = f"walk: {_named(found.trace.walked)}; around it: {_named(found.trace.refined)}"
    assert found.landed is not None
    landed = f"lands on {NAMES[found.landed.parent]}; parents: {_named(link.parent for link in found.parents)}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
            'font-size="14" text-anchor="middle">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
            *links,
            *walked,
            *marks,
            _circle(3, "#ffffff", "#1f5fa8", 'stroke-dasharray="4 3"') + _label(3, NAMES[3], "comes next"),
            f'<text x="{_WIDTH // 2}" y="266">{steps}</text>',
            f'<text x="{_WIDTH // 2}" y="287">{landed}</text>',
            "</svg>",
            "",
        ]
    )


def main() -> None:
    """Work the example, draw it, and say how it went."""
    found = work().found
    PICTURE.write_text(draw(found))
    print(f"{_named(found.trace.walked)} walked, parents {_named(link.parent for link in found.parents)}")


def _link(graph: BookmarkGraph, found: Found, at: int) -> Int64Array:
    parents, weights = np.full((1, SETTINGS.parents), -1), np.zeros((1, SETTINGS.parents), dtype=np.float32)
    for column, link in enumerate(found.parents[: SETTINGS.parents]):
        parents[0, column], weights[0, column] = link.parent, link.weight
    nothing = np.zeros(1, dtype=np.float32)
    return graph.extend(np.array([at]), parents, weights, nothing, np.zeros(1, dtype=np.bool_))


def _named(bookmarks: Iterable[int]) -> str:
    return ", ".join(NAMES[bookmark] for bookmark in bookmarks)


def _mark(at: int, found: Found) -> str:
    landed = found.landed is not None and found.landed.parent == at
    fill = "#1f5fa8" if landed else "#cfe0f3" if at in {link.parent for link in found.parents} else "#eeeeee"
    return _circle(at, fill, "#333333", "") + _label(at, NAMES[at], f"similarity {SIMILARITIES[3][at]}")


def _circle(at: int, fill: str, stroke: str, more: str) -> str:
    return f'<circle cx="{_PLACES[at]}" cy="{_ROW}" r="16" fill="{fill}" stroke="{stroke}" {more}/>'


def _label(at: int, name: str, below: str) -> str:
    place = _PLACES[at]
    return (
        f'<text x="{place}" y="{_ROW + 38}" font-weight="bold">{name}</text>'
        f'<text x="{place}" y="{_ROW + 58}" font-size="12" fill="#555555">{below}</text>'
    )


def _link_line(child: int, parent: int, colour: str) -> str:
    return (
        f'<line x1="{_PLACES[child] - 18}" y1="{_ROW}" x2="{_PLACES[parent] + 18}" y2="{_ROW}" stroke="{colour}" '
        'stroke-width="2"/>'
    )


def _parent_line(parent: int, weight: float) -> str:
    start, end = _PLACES[3], _PLACES[parent]
    top = _ROW - 40 - (start - end) // 6
    below = top + (_ROW - 18 - top) // 4 + 17
    return (
        f'<path d="M{start} {_ROW - 18} C{start} {top} {end} {top} {end} {_ROW - 18}" fill="none" stroke="#1f5fa8" '
        f'stroke-width="{1 + 3 * weight:.1f}"/>'
        f'<text x="{(start + end) // 2}" y="{below}" fill="#1f5fa8">link {weight:.2f}</text>'
    )


def _walk_line(older: int, newer: int) -> str:
    middle, low = (_PLACES[older] + _PLACES[newer]) // 2, _ROW + 92
    return (
        f'<path d="M{_PLACES[newer]} {_ROW + 66} Q{middle} {low} {_PLACES[older]} {_ROW + 66}" fill="none" '
        f'stroke="#b35c00" stroke-dasharray="5 4" stroke-width="2"/>'
        f'<text x="{middle}" y="{low}" font-size="12" fill="#b35c00">not relevant: walk back</text>'
    )


if __name__ == "__main__":
    main()
