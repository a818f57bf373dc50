"""A graph in GraphML and node-link JSON, as NetworkX reads them."""

import io
import json
from typing import Any

import networkx
import pytest

from memsvc.export import FORMATS, Graph, write_graph

HOSTILE = "a<b>&\"'\u202e]]>"


def _bookmark(index: int, *links: tuple[int, float]) -> dict[str, Any]:
    return {
        "index": index,
        "position": 10 * index,
        "block": index // 6,
        "chain": index % 2,
        "signal": 0.1 * index,
        "forced": index == 3,
        "links": [{"parent": parent, "weight": weight} for parent, weight in links],
    }


# The last link goes to a bookmark that is not among them.
BOOKMARKS = [_bookmark(2), _bookmark(3, (2, 0.75)), _bookmark(5, (3, 0.1), (2, 0.30000001192092896), (1, 0.9))]


def _graph(session: str = "s") -> Graph:
    return Graph(session, lambda: BOOKMARKS, {2, 3, 5}.__contains__)


def _written(form: str, graph: Graph) -> tuple[str, tuple[int, int]]:
    file = io.StringIO()
    counts = write_graph(graph, form, file)
    return file.getvalue(), counts


def _read(form: str, text: str) -> networkx.DiGraph:
    if form == "graphml":
        return networkx.parse_graphml(text, node_type=int)
    return networkx.node_link_graph(json.loads(text), edges="edges")


@pytest.mark.parametrize("form", list(FORMATS))
def test_networkx_reads_what_was_written(form: str) -> None:
    """Proves that nodes, edges, their values and directions come back exactly."""
    text, counts = _written(form, _graph())
    read = _read(form, text)
    assert counts == (3, 3)
    assert read.is_directed()
    assert not read.is_multigraph()
    assert {key: value for key, value in read.nodes[3].items() if key != "label"} == {
        "position": 30,
        "block": 0,
        "chain": 1,
        "signal": 0.1 * 3,
        "forced": True,
    }
    assert sorted((*edge, data["weight"]) for *edge, data in read.edges(data=True)) == [
        (3, 2, 0.75),
        (5, 2, 0.30000001192092896),
        (5, 3, 0.1),
    ]


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_name_of_markup_is_only_a_name(form: str) -> None:
    """Proves that whatever a session is called comes back as it was, and makes no element of its own."""
    text, _ = _written(form, _graph(HOSTILE))
    assert _read(form, text).graph["session"] == HOSTILE


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_graph_of_nothing_can_be_read(form: str) -> None:
    """Proves that a session without bookmarks is a graph, too."""
    text, counts = _written(form, Graph("s", list, lambda _: False))
    assert counts == (0, 0)
    assert _read(form, text).number_of_nodes() == 0
