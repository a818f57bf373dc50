"""Commands that make one call or a few to a server, and show the answer as a table or as JSON: `memsvc sessions`,
`bookmarks`, `graph` and `explain`, and those of `memsvc.cli.change`.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import grpc

from memsvc.cli import shape
from memsvc.cli.change import CHANGES
from memsvc.cli.dial import dial
from protos.memsvc.v1 import graph_pb2, graph_pb2_grpc, session_pb2, session_pb2_grpc

TIMEOUT_S = 30.0
_PAGE_SIZE = 1000

Record = dict[str, Any]


class ReadFailed(Exception):
    """The server did not answer, or answered with an error; the message is one line."""


def show(options: argparse.Namespace) -> None:
    """Print what the server answers to a command. Raises ReadFailed, InvalidRequest."""
    read, table = _COMMANDS[options.command]
    with dial(options) as channel:
        try:
            record = read(channel, options)
        except grpc.RpcError as error:
            raise ReadFailed(explained(error, options.memory)) from error
    print(json.dumps(record) if options.json else table(record))


def explained(error: grpc.RpcError, address: str) -> str:
    """An error of a call to this address, in one line."""
    code = error.code()
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):
        return f"expected a memory server at {address}, got {code.name}: {error.details()}"
    return f"{code.name}: {error.details()}"


def _sessions(channel: grpc.Channel, options: argparse.Namespace) -> Record:
    stub = session_pb2_grpc.SessionServiceStub(channel)
    if options.session is not None:
        answer = stub.GetSession(session_pb2.GetSessionRequest(name=options.session), timeout=TIMEOUT_S)
        return {"sessions": [shape.session(answer.session)]}
    request = session_pb2.ListSessionsRequest(page_size=_PAGE_SIZE)
    sessions: list[Record] = []
    while True:
        page = stub.ListSessions(request, timeout=TIMEOUT_S)
        sessions += [shape.session(info) for info in page.sessions]
        if not page.next_page_token:
            return {"sessions": sessions}
        request.page_token = page.next_page_token


def _bookmarks(channel: grpc.Channel, options: argparse.Namespace) -> Record:
    request = graph_pb2.ListBookmarksRequest(session=options.session, first=options.first, count=_u32(options.count))
    answer = graph_pb2_grpc.GraphServiceStub(channel).ListBookmarks(request, timeout=TIMEOUT_S)
    found = [shape.bookmark(one) for one in answer.bookmarks]
    return {"session": options.session, "total": answer.total, "bookmarks": found}


def read_graph(channel: grpc.Channel, options: argparse.Namespace) -> Record:
    """The record that `memsvc graph --json` prints."""
    request = graph_pb2.GetGraphRequest(
        session=options.session, seeds=options.seeds, hops=_u32(options.hops), bookmarks_max=_u32(options.count)
    )
    answer = graph_pb2_grpc.GraphServiceStub(channel).GetGraph(request, timeout=TIMEOUT_S)
    return {"session": options.session, "bookmarks": [shape.bookmark(one) for one in answer.bookmarks]}


def _explain(channel: grpc.Channel, options: argparse.Namespace) -> Record:
    request = graph_pb2.ExplainRequest(session=options.session, asked_at_position=options.asked_at)
    answer = graph_pb2_grpc.GraphServiceStub(channel).Explain(request, timeout=TIMEOUT_S)
    return {"session": options.session, **shape.explanation(answer)}


def _u32(number: int) -> int:
    """The number, or the largest of its field: the server then says what its limit is."""
    return min(number, 2**32 - 1)


_COMMANDS: dict[str, tuple[Callable[[grpc.Channel, argparse.Namespace], Record], Callable[[Record], str]]] = {
    "sessions": (_sessions, shape.sessions_table),
    "bookmarks": (_bookmarks, shape.bookmarks_table),
    "graph": (read_graph, shape.bookmarks_table),
    "explain": (_explain, shape.explanation_table),
    **CHANGES,
}
