"""SessionService: making, naming, opening and ending sessions."""

import asyncio
from typing import Any
from weakref import WeakValueDictionary

import grpc

from memsvc.errors import InvalidRequest, WorkerNotAttached
from memsvc.rpc.node import Node
from protos.memsvc.v1 import session_pb2, session_pb2_grpc

PAGE_SIZE = 100
PAGE_SIZE_MAX = 1000

Context = grpc.aio.ServicerContext[Any, Any]


class SessionService(session_pb2_grpc.SessionServiceServicer):
    """Calls on the node's sessions, each on a thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._run = node.threads.calls.run
        # One for each attachment that is being opened now, by its id.
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def CreateSession(
        self, request: session_pb2.CreateSessionRequest, context: Context
    ) -> session_pb2.CreateSessionResponse:
        """Make a session, or find the same one."""
        self._node.workers.refuse_when_draining()
        session, created = await self._run(self._node.sessions.create, request.name, request.spec)
        return session_pb2.CreateSessionResponse(session=session, created=created)

    async def GetSession(
        self, request: session_pb2.GetSessionRequest, context: Context
    ) -> session_pb2.GetSessionResponse:
        """A session as it is now."""
        info = await self._run(lambda: self._node.sessions.get(request.name).info())
        return session_pb2.GetSessionResponse(session=info)

    async def ListSessions(
        self, request: session_pb2.ListSessionsRequest, context: Context
    ) -> session_pb2.ListSessionsResponse:
        """One page of sessions."""
        if request.page_size > PAGE_SIZE_MAX:
            raise InvalidRequest(f"page_size: expected 0 to {PAGE_SIZE_MAX}, got {request.page_size}")
        page_size = request.page_size or PAGE_SIZE
        sessions, token = await self._run(self._node.sessions.list, page_size, request.page_token)
        return session_pb2.ListSessionsResponse(sessions=sessions, next_page_token=token)

    async def DeleteSession(
        self, request: session_pb2.DeleteSessionRequest, context: Context
    ) -> session_pb2.DeleteSessionResponse:
        """Delete a session."""
        await self._run(self._node.sessions.delete, request.name)
        return session_pb2.DeleteSessionResponse()

    async def ForkSession(
        self, request: session_pb2.ForkSessionRequest, context: Context
    ) -> session_pb2.ForkSessionResponse:
        """Make a session of what another one has up to a cut, or find the same fork."""
        self._node.workers.refuse_when_draining()
        fork = self._node.sessions.fork
        session, created = await self._run(fork, request.parent, request.snapshot, request.name)
        return session_pb2.ForkSessionResponse(session=session, created=created)

    async def RenameSession(
        self, request: session_pb2.RenameSessionRequest, context: Context
    ) -> session_pb2.RenameSessionResponse:
        """Give a session another name."""
        info = await self._run(self._node.sessions.rename, request.name, request.new_name)
        return session_pb2.RenameSessionResponse(session=info)

    async def CreateSnapshot(
        self, request: session_pb2.CreateSnapshotRequest, context: Context
    ) -> session_pb2.CreateSnapshotResponse:
        """Name the newest tail."""
        snapshot, created = await self._run(self._node.sessions.create_snapshot, request.session, request.name)
        return session_pb2.CreateSnapshotResponse(snapshot=snapshot, created=created)

    async def ListSnapshots(
        self, request: session_pb2.ListSnapshotsRequest, context: Context
    ) -> session_pb2.ListSnapshotsResponse:
        """All snapshots of a session."""
        snapshots = await self._run(lambda: self._node.sessions.get(request.session).list_snapshots())
        return session_pb2.ListSnapshotsResponse(snapshots=snapshots)

    async def DeleteSnapshot(
        self, request: session_pb2.DeleteSnapshotRequest, context: Context
    ) -> session_pb2.DeleteSnapshotResponse:
        """Let go of a snapshot."""
        await self._run(self._node.sessions.drop_snapshot, request.session, request.name)
        return session_pb2.DeleteSnapshotResponse()

    async def OpenSession(
        self, request: session_pb2.OpenSessionRequest, context: Context
    ) -> session_pb2.OpenSessionResponse:
        """Open an attachment of a worker whose stream is up, and still is once it is open."""
        workers = self._node.workers
        workers.refuse_when_draining()
        workers.attached(request.worker)
        response = await self._open(request)
        try:
            workers.attached(request.worker)
        except WorkerNotAttached:
            # Its stream ended meanwhile, perhaps before the attachment was there to be ended with it.
            await self._run(self._node.sessions.worker_gone, request.worker)
            raise
        return response

    async def SaveTail(self, request: session_pb2.SaveTailRequest, context: Context) -> session_pb2.SaveTailResponse:
        """Cut a tail."""
        await self._run(self._save_tail, request)
        return session_pb2.SaveTailResponse()

    async def CloseAttachment(
        self, request: session_pb2.CloseAttachmentRequest, context: Context
    ) -> session_pb2.CloseAttachmentResponse:
        """End an attachment."""
        await self._run(self._node.sessions.close_attachment, request.attachment)
        return session_pb2.CloseAttachmentResponse()

    async def _open(self, request: session_pb2.OpenSessionRequest) -> session_pb2.OpenSessionResponse:
        """Open, and close again if the caller is gone by then: nobody would, as long as the worker's stream is up.

        The same call again waits: what it then opens is its own, and no caller who has gone closes it.
        """
        attachment = request.attachment
        async with self._opening.setdefault(attachment, asyncio.Lock()):
            try:
                return await self._run(self._node.sessions.open, request)
            except asyncio.CancelledError:
                # A writer that resumed keeps what it had.
                if not request.resume_epoch:
                    await self._run(self._node.sessions.close_attachment, attachment)
                raise

    def _save_tail(self, request: session_pb2.SaveTailRequest) -> None:
        attachment = self._node.sessions.attachment(request.attachment)
        attachment.session.save_tail(attachment, request.epoch, request.tail)
