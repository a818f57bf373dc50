"""A session's graph as files of other programs."""

from memsvc.export.formats import FORMATS, Graph, write_graph

__all__ = ["FORMATS", "Graph", "write_graph"]
