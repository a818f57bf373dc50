"""The API's own methods, for somebody who came by HTTP.

    credential --> rate --> Reader:  scope --> names inward --> the method's handler --> names outward

Invariants:
    A read passes what `memsvc.rpc.gate` makes a call pass, by the tables of `memsvc.auth`.
    Of a tenant's calls a second one page takes one, however much it reads.
Must not know: HTTP.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from memsvc.auth.caller import Caller
from memsvc.auth.names import Namespace
from memsvc.auth.rules import scopes_of
from memsvc.rpc.gate import Gate
from memsvc.rpc.graph_service import GraphService
from memsvc.rpc.node import Node
from memsvc.rpc.session_service import SessionService
from memsvc.session import Session
from protos.memsvc.v1 import graph_pb2, session_pb2

_SERVICES = "/protos.memsvc.v1."
_LIST_BOOKMARKS = f"{_SERVICES}GraphService/ListBookmarks"

R = TypeVar("R")
Handler = Callable[[Any, Any], Awaitable[Message]]


class Door:
    """What a node lets be read.

    Args:
        gate: Whose callers and quotas hold.
        open_to_all: Whether the node has no credentials.
    """

    def __init__(self, node: Node, gate: Gate, *, open_to_all: bool) -> None:
        self.open_to_all = open_to_all
        self._node, self._gate = node, gate
        sessions, graph = SessionService(node), GraphService(node)
        self._methods: Mapping[type[Message], tuple[str, Handler]] = {
            session_pb2.ListSessionsRequest: ("SessionService/ListSessions", sessions.ListSessions),
            session_pb2.GetSessionRequest: ("SessionService/GetSession", sessions.GetSession),
            session_pb2.ListSnapshotsRequest: ("SessionService/ListSnapshots", sessions.ListSnapshots),
            graph_pb2.ListBookmarksRequest: ("GraphService/ListBookmarks", graph.ListBookmarks),
            graph_pb2.GetGraphRequest: ("GraphService/GetGraph", graph.GetGraph),
            graph_pb2.ReadTokensRequest: ("GraphService/ReadTokens", graph.ReadTokens),
            graph_pb2.ExplainRequest: ("GraphService/Explain", graph.Explain),
        }

    def caller(self, authorization: str | None) -> Caller:
        """Whose request it is, by the value of its authorization. Raises Unauthenticated."""
        return self._gate.callers([authorization] if authorization else [], [])

    def admit(self, authorization: str | None) -> "Reader":
        """What whoever comes with this may read for one page. Raises Unauthenticated, QuotaExceeded."""
        caller = self.caller(authorization)
        self._gate.quotas.admit_call(caller.tenant)
        return Reader(self, caller)

    def enter(self, caller: Caller, method: str, request: Message) -> None:
        """Lets a request in, its names changed in place to the node's. Raises what a call is refused with."""
        caller.require(scopes_of(method))
        Namespace(caller).inward(request)

    async def call(self, caller: Caller, request: Message) -> Message:
        """The answer to a request of the API. Raises MemsvcError."""
        name, handler = self._methods[type(request)]
        self.enter(caller, f"{_SERVICES}{name}", request)
        # None: what reads needs nothing of a call but its request.
        response = await handler(request, None)
        Namespace(caller).outward(response)
        return response

    async def on_session(self, caller: Caller, name: str, work: Callable[[Session], R]) -> R:
        """What `work` reads of a session, on a thread; asks for what listing its bookmarks asks for."""
        request = graph_pb2.ListBookmarksRequest(session=name)
        self.enter(caller, _LIST_BOOKMARKS, request)
        return await self.run(lambda: work(self._node.sessions.get(request.session)))

    async def run(self, work: Callable[[], R]) -> R:
        """The result of some work, done on a thread of the node's."""
        return await self._node.threads.calls.run(work)


@dataclass(frozen=True)
class Reader:
    """One caller's reads; each raises MemsvcError."""

    door: Door
    caller: Caller

    async def sessions(self, after: str, count: int) -> session_pb2.ListSessionsResponse:
        """One page of sessions in order of name, from after a name on."""
        request = session_pb2.ListSessionsRequest(page_size=count, page_token=after)
        return cast("session_pb2.ListSessionsResponse", await self.door.call(self.caller, request))

    async def session(self, name: str) -> session_pb2.GetSessionResponse:
        """A session as it is now."""
        request = session_pb2.GetSessionRequest(name=name)
        return cast("session_pb2.GetSessionResponse", await self.door.call(self.caller, request))

    async def bookmarks(self, name: str, first: int, count: int) -> graph_pb2.ListBookmarksResponse:
        """Bookmarks by index."""
        request = graph_pb2.ListBookmarksRequest(session=name, first=first, count=count)
        return cast("graph_pb2.ListBookmarksResponse", await self.door.call(self.caller, request))

    async def around(self, name: str, seeds: list[int], hops: int, most: int) -> graph_pb2.GetGraphResponse:
        """Bookmarks within some hops of the seeds."""
        request = graph_pb2.GetGraphRequest(session=name, seeds=seeds, hops=hops, bookmarks_max=most)
        return cast("graph_pb2.GetGraphResponse", await self.door.call(self.caller, request))

    async def tokens(self, name: str, first: int, count: int) -> graph_pb2.ReadTokensResponse:
        """Token ids of a range of positions."""
        request = graph_pb2.ReadTokensRequest(session=name)
        request.positions.first, request.positions.count = first, count
        return cast("graph_pb2.ReadTokensResponse", await self.door.call(self.caller, request))

    async def explanation(self, name: str, asked_at: int | None) -> graph_pb2.ExplainResponse:
        """Why the blocks of a recall were chosen; of the newest if `asked_at` is None."""
        request = graph_pb2.ExplainRequest(session=name, asked_at_position=asked_at)
        return cast("graph_pb2.ExplainResponse", await self.door.call(self.caller, request))

    async def on_session(self, name: str, work: Callable[[Session], R]) -> R:
        """What `work` reads of a session, on a thread."""
        return await self.door.on_session(self.caller, name, work)
