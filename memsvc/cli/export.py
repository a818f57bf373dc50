"""`memsvc export`, and `memsvc graph --format`: a session's graph as a file of another program.

Invariant: a file that is there under its name is whole: it gets the name when the last byte is on the disk.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import grpc

from memsvc.cli import shape
from memsvc.cli.dial import add_dialling, dial
from memsvc.cli.read import ReadFailed, explained, read_graph
from memsvc.export import FORMATS, Graph, write_graph
from protos.memsvc.v1 import graph_pb2, graph_pb2_grpc

TIMEOUT_S = 30.0
# The most that a server gives at once.
_PAGE_BOOKMARKS = 10_000

Record = dict[str, Any]


def add_export(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc export`."""
    add_dialling(command)
    command.add_argument("--session", required=True, metavar="NAME")
    add_form(command, "graphml (the default), or node-link JSON")
    command.add_argument("--json", action="store_true", help="the same as --format node-link")


def add_form(command: argparse.ArgumentParser, text: str) -> None:
    """Flags of what is written, and where."""
    command.add_argument("--format", choices=tuple(FORMATS), metavar="NAME", help=text)
    command.add_argument("--output", type=Path, metavar="FILE", help="where to write; else to standard output")


def run_export(options: argparse.Namespace) -> None:
    """Write all of a session's graph, or for `graph` what is around the seeds. Raises ReadFailed, InvalidRequest."""
    form = options.format or ("node-link" if options.json else "graphml")
    with dial(options) as channel:
        try:
            graph = _around_seeds(channel, options) if options.command == "graph" else _whole(channel, options.session)
            with _opened(options.output) as file:
                nodes, edges = write_graph(graph, form, file)
        except grpc.RpcError as error:
            raise ReadFailed(explained(error, options.memory)) from error
        except OSError as error:
            # A reader of standard output that had enough is no failed write.
            if isinstance(error, BrokenPipeError) or options.output is None:
                raise
            raise ReadFailed(f"--output: expected to write {options.output}, got {error.strerror}") from error
    if options.output is not None:
        print(f"{options.output}: {nodes} bookmarks and {edges} links of session {options.session}")


def _around_seeds(channel: grpc.Channel, options: argparse.Namespace) -> Graph:
    bookmarks = sorted(read_graph(channel, options)["bookmarks"], key=lambda one: one["index"])
    return Graph(options.session, lambda: bookmarks, {one["index"] for one in bookmarks}.__contains__)


def _whole(channel: grpc.Channel, session: str) -> Graph:
    """All bookmarks that there are now; what a writer adds meanwhile is left out."""
    stub = graph_pb2_grpc.GraphServiceStub(channel)
    request = graph_pb2.ListBookmarksRequest(session=session, first=0, count=1)
    total = stub.ListBookmarks(request, timeout=TIMEOUT_S).total
    return Graph(session, lambda: _pages(stub, session, total), lambda index: index < total)


def _pages(stub: graph_pb2_grpc.GraphServiceStub, session: str, total: int) -> Iterator[Record]:
    for first in range(0, total, _PAGE_BOOKMARKS):
        count = min(_PAGE_BOOKMARKS, total - first)
        request = graph_pb2.ListBookmarksRequest(session=session, first=first, count=count)
        for one in stub.ListBookmarks(request, timeout=TIMEOUT_S).bookmarks:
            yield shape.bookmark(one)


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears under its name once it is whole."""
    if path is None:
        yield sys.stdout
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
