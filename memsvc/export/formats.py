"""A session's graph in the formats that NetworkX, Gephi and others read.

    graphml     directed; GraphML 1.0 (Gephi, NetworkX `read_graphml`, igraph, yEd)
    node-link   directed; one JSON object with `nodes` and `edges` (NetworkX `node_link_graph`, d3)

A node is a bookmark, its id the index. An edge goes from a bookmark to an earlier one that it resembles.

Invariants:
    What is written does not grow with the graph in memory: bookmarks are gone through twice, nodes first.
    Both ends of every edge are nodes: a link to a bookmark outside of what is written is left out.
Must not know: gRPC.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO
from xml.sax.saxutils import escape

Record = Mapping[str, Any]

# Of a node: name, GraphML's type of it.
_NODE_FIELDS = (
    ("label", "string"),
    ("position", "long"),
    ("block", "long"),
    ("chain", "long"),
    ("signal", "double"),
    ("forced", "boolean"),
)
_EDGE_FIELDS = (("weight", "double"),)
_NAMESPACE = "http://graphml.graphdrawing.org/xmlns"


@dataclass(frozen=True)
class Graph:
    """What is written.

    Args:
        session: Its name.
        bookmarks: Goes through them, in order of index, each time it is called: records as `memsvc bookmarks --json`
            prints them.
        holds: Whether the bookmark of an index is among them.
    """

    session: str
    bookmarks: Callable[[], Iterable[Record]]
    holds: Callable[[int], bool]


def write_graph(graph: Graph, form: str, file: TextIO) -> tuple[int, int]:
    """Write a graph in one of FORMATS; how many nodes and edges it has."""
    return FORMATS[form](graph, file)


def _write_graphml(graph: Graph, file: TextIO) -> tuple[int, int]:
    file.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="{_NAMESPACE}">\n')
    for kind, fields in (("node", _NODE_FIELDS), ("edge", _EDGE_FIELDS)):
        for name, type_name in fields:
            file.write(f'<key id="{name}" for="{kind}" attr.name="{name}" attr.type="{type_name}"/>\n')
    file.write('<key id="session" for="graph" attr.name="session" attr.type="string"/>\n')
    file.write(f'<graph id="session" edgedefault="directed">\n<data key="session">{escape(graph.session)}</data>\n')
    nodes = edges = 0
    for one in graph.bookmarks():
        data = "".join(f'<data key="{name}">{_text(value)}</data>' for name, value in _node(one).items())
        file.write(f'<node id="{one["index"]}">{data}</node>\n')
        nodes += 1
    for source, target, weight in _edges(graph):
        file.write(f'<edge source="{source}" target="{target}"><data key="weight">{weight!r}</data></edge>\n')
        edges += 1
    file.write("</graph>\n</graphml>\n")
    return nodes, edges


def _write_node_link(graph: Graph, file: TextIO) -> tuple[int, int]:
    head = {"directed": True, "multigraph": False, "graph": {"session": graph.session}}
    file.write(f'{json.dumps(head)[:-1]}, "nodes": [')
    nodes = edges = 0
    for one in graph.bookmarks():
        file.write(f"{',' if nodes else ''}\n{json.dumps({'id': one['index'], **_node(one)})}")
        nodes += 1
    file.write('],\n"edges": [')
    for source, target, weight in _edges(graph):
        edge = {"source": source, "target": target, "weight": weight}
        file.write(f"{',' if edges else ''}\n{json.dumps(edge)}")
        edges += 1
    file.write("]}\n")
    return nodes, edges


def _node(one: Record) -> dict[str, Any]:
    fields = {name: one[name] for name, _ in _NODE_FIELDS if name != "label"}
    return {"label": f"{one['index']} at {one['position']}", **fields}


def _edges(graph: Graph) -> Iterable[tuple[int, int, float]]:
    for one in graph.bookmarks():
        for link in one["links"]:
            if graph.holds(link["parent"]):
                yield one["index"], link["parent"], link["weight"]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else escape(str(value))


FORMATS: Mapping[str, Callable[[Graph, TextIO], tuple[int, int]]] = {
    "graphml": _write_graphml,
    "node-link": _write_node_link,
}
