"""Calls on sessions by their names, each written down with what it was told and when it began and ended."""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.memsvc.v1 import graph_pb2, session_pb2, types_pb2
from tests.integration.fuzz_node import AioStubs
from tests.integration.history_model import (
    NO_SESSION,
    Create,
    Cut,
    Delete,
    Family,
    Fork,
    Look,
    Rename,
    Snap,
    TextStep,
)
from tests.integration.linearizability import Call, Operation
from tests.integration.server_process import TIMEOUT_S, spec

BLOCK_BYTES = 64


def history_spec() -> types_pb2.SessionSpec:
    """Small blocks, and a centre with the first step, so that every token is a bookmark at once."""
    own = spec(BLOCK_BYTES)
    own.search.centring_tokens = 1
    return own


def family_of(name: str) -> str:
    """The names that a session of this name can have, or a fork of it, begin with this."""
    return name.partition("-")[0]


class Notebook:
    """Operations by family; the count of moments, and of whatever must not come twice."""

    def __init__(self) -> None:
        self._moments = itertools.count()
        self.numbers = itertools.count(1)
        self.operations: dict[str, list[Operation[Family]]] = defaultdict(list)

    def moment(self) -> int:
        """A moment after all before it."""
        return next(self._moments)

    def note(self, client: int, start: int, name: str, *calls: Call[Family]) -> None:
        """Calls on a session of that name, which began then and end now."""
        for call in calls:
            self.operations[family_of(name)].append(Operation(client, start, self.moment(), call))


class NameCaller:
    """One client's calls on sessions by their names."""

    def __init__(self, client: int, stubs: AioStubs, notebook: Notebook) -> None:
        self.client, self.worker, self.notebook = client, f"worker-{client}", notebook
        self._stubs = stubs

    async def create(self, name: str) -> None:
        """Makes a session."""
        start = self.notebook.moment()
        request = session_pb2.CreateSessionRequest(name=name, spec=history_spec())
        answer, reason = await self._told(self._stubs.sessions.CreateSession, request)
        assert not reason, reason
        self._note(start, name, Create(name, answer.created, answer.session.id, answer.session.tokens))

    async def delete(self, name: str) -> None:
        """Deletes a session."""
        start = self.notebook.moment()
        _, reason = await self._told(self._stubs.sessions.DeleteSession, session_pb2.DeleteSessionRequest(name=name))
        self._note(start, name, Delete(name, reason))

    async def rename(self, name: str, to: str) -> None:
        """Gives a session another name."""
        start = self.notebook.moment()
        request = session_pb2.RenameSessionRequest(name=name, new_name=to)
        _, reason = await self._told(self._stubs.sessions.RenameSession, request)
        self._note(start, name, Rename(name, to, reason))

    async def fork(self, parent: str, snapshot: str, name: str) -> None:
        """Makes a fork."""
        start, fork = self.notebook.moment(), next(self.notebook.numbers)
        request = session_pb2.ForkSessionRequest(parent=parent, snapshot=snapshot, name=name)
        answer, reason = await self._told(self._stubs.sessions.ForkSession, request)
        if answer is None:
            self._note(start, name, Fork(fork, parent, snapshot, name, reason))
            return
        made = Fork(fork, parent, snapshot, name, "", answer.created, answer.session.id)
        cut = Cut(fork, parent, snapshot, answer.session.id, answer.session.fork_position)
        self._note(start, name, *([cut] if answer.created else []), made)

    async def snapshot(self, name: str, snapshot: str) -> None:
        """Names the newest tail."""
        start = self.notebook.moment()
        request = session_pb2.CreateSnapshotRequest(session=name, name=snapshot)
        answer, reason = await self._told(self._stubs.sessions.CreateSnapshot, request)
        made, position = (answer.created, answer.snapshot.position) if answer is not None else (False, 0)
        self._note(start, name, Snap(name, snapshot, reason, made, position))

    async def drop_snapshot(self, name: str, snapshot: str) -> None:
        """Takes the name away."""
        start = self.notebook.moment()
        request = session_pb2.DeleteSnapshotRequest(session=name, name=snapshot)
        _, reason = await self._told(self._stubs.sessions.DeleteSnapshot, request)
        self._note(start, name, Snap(name, snapshot, reason, drops=True))

    async def list_snapshots(self, name: str) -> None:
        """Reads which there are."""
        start = self.notebook.moment()
        request = session_pb2.ListSnapshotsRequest(session=name)
        answer, reason = await self._told(self._stubs.sessions.ListSnapshots, request)
        seen = None
        if answer is not None:
            seen = {"names": frozenset((own.name, own.position) for own in answer.snapshots)}
        self._looked(start, name, seen, reason)

    async def look(self, name: str) -> None:
        """Reads how a session is."""
        start = self.notebook.moment()
        answer, reason = await self._told(self._stubs.sessions.GetSession, session_pb2.GetSessionRequest(name=name))
        self._looked(start, name, _seen(answer.session) if answer is not None else None, reason)

    async def list(self, names: Iterable[str]) -> None:
        """Reads how all sessions are; these are the names that there can be."""
        start = self.notebook.moment()
        answer, reason = await self._told(self._stubs.sessions.ListSessions, session_pb2.ListSessionsRequest())
        assert not reason, reason
        seen = {own.name: _seen(own) for own in answer.sessions}
        for name in names:
            self._note(start, name, Look(name, seen.get(name)))

    async def read_text(self, name: str) -> None:
        """Reads the ids of all tokens."""
        start = self.notebook.moment()
        request = graph_pb2.ReadTokensRequest(session=name, positions=types_pb2.Range(first=0, count=100_000))
        answer, reason = await self._told(self._stubs.graph.ReadTokens, request)
        self._looked(start, name, {"text": _text(answer)} if answer is not None else None, reason)

    async def _told(self, method: Any, request: Any) -> tuple[Any, str]:
        """The answer, or None and the reason of the error."""
        try:
            return await method(request, timeout=TIMEOUT_S, metadata=self._stubs.metadata), ""
        except grpc.aio.AioRpcError as error:
            return None, reason_of(error)

    def _note(self, start: int, name: str, *calls: Call[Family]) -> None:
        self.notebook.note(self.client, start, name, *calls)

    def _looked(self, start: int, name: str, seen: dict[str, object] | None, reason: str) -> None:
        assert reason in ("", NO_SESSION), reason
        self._note(start, name, Look(name, seen))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Reason in an error's ErrorInfo; raises the error itself if it is no caller's."""
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    if status is None or not status.details[0].Unpack(info) or info.reason in ("INTERNAL", "STORAGE_FAILED"):
        raise error
    return str(info.reason)


def _seen(info: types_pb2.SessionInfo) -> dict[str, object]:
    return {
        "id": info.id,
        "parent": info.parent_id,
        "tokens": info.tokens,
        "tail": info.tail_position,
        "epoch": info.epoch,
        "blocks": info.blocks,
        "writer": info.writer,
        "snapshots": info.snapshots,
    }


def _text(answer: graph_pb2.ReadTokensResponse) -> tuple[TextStep, ...]:
    """Runs of the same id; the positions are without a hole."""
    ids = np.frombuffer(answer.ids, "<u4")
    assert [(own.first, own.count) for own in answer.positions] == ([(0, len(ids))] if len(ids) else [])
    firsts = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)] if len(ids) else [0]
    return tuple((first, end - first, int(ids[first])) for first, end in itertools.pairwise(firsts))
