"""GraphService: reading a session's memory. Changes nothing."""

from typing import Any

import grpc

from memsvc.errors import InvalidRequest, LimitExceeded
from memsvc.rpc.node import Node
from protos.memsvc.v1 import graph_pb2, graph_pb2_grpc

BOOKMARKS = 1000
BOOKMARKS_MAX = 10_000
HOPS_MAX = 64
READ_TOKENS_MAX = 100_000

Context = grpc.aio.ServicerContext[Any, Any]


class GraphService(graph_pb2_grpc.GraphServiceServicer):
    """Reads of the node's sessions, each on a thread."""

    def __init__(self, node: Node) -> None:
        self._sessions = node.sessions
        self._run = node.threads.calls.run

    async def ListBookmarks(
        self, request: graph_pb2.ListBookmarksRequest, context: Context
    ) -> graph_pb2.ListBookmarksResponse:
        """Bookmarks in order of position."""
        count = _bookmarks("count", request.count)
        return await self._run(lambda: self._sessions.get(request.session).list_bookmarks(request.first, count))

    async def GetGraph(self, request: graph_pb2.GetGraphRequest, context: Context) -> graph_pb2.GetGraphResponse:
        """Bookmarks around the seeds."""
        limit = _bookmarks("bookmarks_max", request.bookmarks_max)
        if request.hops > HOPS_MAX or len(request.seeds) > limit:
            expected = f"at most {HOPS_MAX} hops and {limit} seeds"
            raise LimitExceeded(f"graph: expected {expected}, got {request.hops} and {len(request.seeds)}")
        seeds = list(request.seeds)
        return await self._run(lambda: self._sessions.get(request.session).graph(seeds, request.hops, limit))

    async def ReadTokens(self, request: graph_pb2.ReadTokensRequest, context: Context) -> graph_pb2.ReadTokensResponse:
        """Token ids of a range."""
        if request.positions.count > READ_TOKENS_MAX:
            raise InvalidRequest(f"positions: expected at most {READ_TOKENS_MAX}, got {request.positions.count}")
        return await self._run(lambda: self._sessions.get(request.session).read_tokens(request.positions))

    async def Explain(self, request: graph_pb2.ExplainRequest, context: Context) -> graph_pb2.ExplainResponse:
        """Why blocks were recalled."""
        asked_at = request.asked_at_position if request.HasField("asked_at_position") else None
        return await self._run(lambda: self._sessions.get(request.session).explain(asked_at))


def _bookmarks(name: str, count: int) -> int:
    if count > BOOKMARKS_MAX:
        raise LimitExceeded(f"{name}: expected at most {BOOKMARKS_MAX}, got {count}")
    return count or BOOKMARKS
