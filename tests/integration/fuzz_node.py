"""A real node inside this process, what its leaks would show in, and a client that has to be served all the while.

The node, its callers and the client share one event loop, so that every task, thread and descriptor can be counted.
"""

import asyncio
import contextlib
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from memsvc.server import Server
from memsvc.settings import AccessSettings, ServerSettings, TimingSettings
from protos.memsvc.v1 import (
    block_pb2,
    block_pb2_grpc,
    graph_pb2_grpc,
    memory_pb2,
    session_pb2,
    session_pb2_grpc,
)
from tests.credential_book import CredentialBook, authorization
from tests.integration.server_process import TIMEOUT_S, block_data, put, recall, spec, step

SHARED = Path("/dev/shm")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FuzzNode:
    """A node that asks for credentials, and a channel to it.

    Args:
        metadata: Of a call that may do everything.
        sessions: How many sessions there are, and how many attachments and streams.
        codes: How often each method ended with which code, as the node counts it.
    """

    channel: grpc.aio.Channel
    metadata: Metadata
    sessions: Callable[[], tuple[int, int, int]]
    codes: Counter[tuple[str, str]]

    def stubs(self) -> "AioStubs":
        """Stubs on the channel."""
        return AioStubs(self.channel, self.metadata)


class AioStubs:
    """The services that a good client calls, every call with a deadline."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self.channel, self.metadata = channel, metadata
        self.sessions = session_pb2_grpc.SessionServiceStub(channel)
        self.blocks = block_pb2_grpc.BlockServiceStub(channel)
        self.graph = graph_pb2_grpc.GraphServiceStub(channel)


@contextlib.asynccontextmanager
async def fuzz_node(folder: Path) -> AsyncIterator[FuzzNode]:
    """A node that is gone afterwards."""
    book = CredentialBook(folder / "tokens.toml")
    metadata = authorization(book.bearer("acme"))
    settings = ServerSettings(
        data=folder / "data",
        listen=f"unix://{folder}/socket",
        access=AccessSettings(token_file=book.path, reflection=True),
        timing=TimingSettings(drain_grace_ms=100),
    )
    (folder / "data").mkdir()
    server = await Server.start(settings)
    node, manifest = server._node, server._storage.manifest
    codes: Counter[tuple[str, str]] = Counter()
    node.metrics.call_ended = lambda method, code, seconds: codes.update([(method, code)])

    def sessions() -> tuple[int, int, int]:
        return len(manifest.list("", 10_000)), len(node.sessions._attachments._attachments), len(node.workers)

    try:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(settings.listen, options=options) as channel:
            yield FuzzNode(channel, metadata, sessions, codes)
    finally:
        await server.drain()


@dataclass(frozen=True)
class Held:
    """What this process holds: descriptors by kind, threads but for those of pools, tasks, sessions."""

    descriptors: Counter[str]
    threads: Counter[str]
    tasks: Counter[str]
    sessions: tuple[int, int, int]

    @classmethod
    def now(cls, node: FuzzNode) -> "Held":
        """As it is now."""
        return cls(
            Counter(_opened()),
            Counter(one.name for one in threading.enumerate() if not one.name.startswith("memsvc-")),
            Counter(_name(task) for task in asyncio.all_tasks()),
            node.sessions(),
        )

    def beyond(self, before: "Held") -> list[str]:
        """What there is more of than before, in words."""
        more = (self.descriptors - before.descriptors) + (self.threads - before.threads) + (self.tasks - before.tasks)
        found = [f"{count} more of {name}" for name, count in sorted(more.items())]
        same = self.sessions == before.sessions
        return found if same else [*found, f"sessions, attachments, streams {self.sessions}, not {before.sessions}"]


def _opened() -> list[str]:
    """What descriptors are of, without the numbers of sockets and the names of sessions' folders."""
    kinds = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = Path(os.readlink(descriptor))
            shared = "shared memory" if target.parent == SHARED else target.suffix or "file"
            kinds.append(shared if target.is_absolute() else str(target).split(":[")[0])
    return kinds


def _name(task: asyncio.Task[Any]) -> str:
    """What a task runs."""
    coroutine = task.get_coro()
    return coroutine.__qualname__ if coroutine is not None else ""


def pool_threads() -> int:
    """Threads of the node's pools; each is made when it is needed, and stays."""
    return sum(one.name.startswith("memsvc-") for one in threading.enumerate())


async def least_held(node: FuzzNode) -> Held:
    """What is held all the time: what a call that has just ended, or an fsync, holds for a moment is not counted."""
    least = Held.now(node)
    for _ in range(5):
        await asyncio.sleep(0.1)
        now = Held.now(node)
        least = Held(
            least.descriptors & now.descriptors, least.threads & now.threads, least.tasks & now.tasks, now.sessions
        )
    return least


async def settled(node: FuzzNode, before: Held) -> list[str]:
    """What is held beyond what was before: nothing as soon as that is so, else what is left when the time is over."""
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    while (left := Held.now(node).beyond(before)) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.1)
    return left


class AioStream:
    """An Attach stream, greeted; ends with `leave`."""

    def __init__(self, stubs: AioStubs, worker: str, arena: memory_pb2.Arena | None = None) -> None:
        # Requests are bytes, so that some may be none.
        path = "/protos.memsvc.v1.MemoryService/Attach"
        parse = memory_pb2.AttachResponse.FromString
        self.call = stubs.channel.stream_stream(path, response_deserializer=parse)(metadata=stubs.metadata)
        self._hello = memory_pb2.Hello(protocol_version=1, worker=worker, arena=arena)

    async def greet(self) -> memory_pb2.Welcome:
        """Says Hello; the Welcome."""
        await self.call.write(memory_pb2.AttachRequest(hello=self._hello).SerializeToString())
        return (await self.receive()).welcome

    async def send(self, *steps: memory_pb2.Step) -> None:
        """Sends steps in one batch."""
        request = memory_pb2.AttachRequest(steps=memory_pb2.StepBatch(steps=steps))
        await self.call.write(request.SerializeToString())

    async def receive(self) -> memory_pb2.AttachResponse:
        """The next response."""
        response = await asyncio.wait_for(self.call.read(), TIMEOUT_S)
        assert response is not grpc.aio.EOF
        return response

    async def leave(self) -> None:
        """Says that nothing more comes, and waits for the end."""
        await self.call.done_writing()
        while await asyncio.wait_for(self.call.read(), TIMEOUT_S) is not grpc.aio.EOF:
            pass


class GoodClient:
    """Writes a session, block after block, and reads back what it wrote."""

    SESSION, WORKER, ATTACHMENT = "good", "good-worker", "good-attachment"

    def __init__(self, stubs: AioStubs) -> None:
        self._stubs, self._blocks, self._epoch = stubs, 0, 0
        self._stream = AioStream(stubs, self.WORKER)

    async def start(self) -> None:
        """Makes the session and opens its writer."""
        stubs = self._stubs
        made = session_pb2.CreateSessionRequest(name=self.SESSION, spec=spec())
        await stubs.sessions.CreateSession(made, timeout=TIMEOUT_S, metadata=stubs.metadata)
        await self._stream.greet()
        self._epoch = (await opened(stubs, self.SESSION, self.WORKER, self.ATTACHMENT)).epoch

    async def work(self) -> None:
        """A block's tokens and its bytes are written, recalled and read back."""
        stubs, block = self._stubs, self._blocks
        self._blocks += 1
        ask = recall(block)
        await self._stream.send(step(self.ATTACHMENT, self._epoch, self._blocks, 64 * block, recall=ask))
        ack = (await self._stream.receive()).ack
        assert (ack.seq, ack.bookmarks) == (self._blocks, 64 * self._blocks)
        assert (await self._stream.receive()).recall.asked_at_position == 64 * self._blocks - 1
        requests = [put(self.ATTACHMENT, self._epoch, block, block_data(block))]
        answers = stubs.blocks.PutBlocks(iter(requests), timeout=TIMEOUT_S, metadata=stubs.metadata)
        assert [answer.reason async for answer in answers] == [""]
        fetch = block_pb2.GetBlocksRequest(attachment=self.ATTACHMENT, blocks=[block // 2, block])
        pieces = stubs.blocks.GetBlocks(fetch, timeout=TIMEOUT_S, metadata=stubs.metadata)
        assert [piece.chunk async for piece in pieces] == [block_data(block // 2), block_data(block)]

    async def end(self) -> None:
        """Leaves; the session stays."""
        await self._stream.leave()


async def opened(stubs: AioStubs, session: str, worker: str, attachment: str) -> session_pb2.OpenSessionResponse:
    """A writer, opened."""
    request = session_pb2.OpenSessionRequest(
        session=session,
        mode=session_pb2.OPEN_MODE_WRITER,
        fingerprint=spec().fingerprint,
        worker=worker,
        attachment=attachment,
    )
    return await stubs.sessions.OpenSession(request, timeout=TIMEOUT_S, metadata=stubs.metadata)


async def delete_others(stubs: AioStubs, kept: str) -> None:
    """Deletes every session but one, forks before their parents."""
    while True:
        page = await stubs.sessions.ListSessions(
            session_pb2.ListSessionsRequest(page_size=1000), timeout=TIMEOUT_S, metadata=stubs.metadata
        )
        others = [own.name for own in page.sessions if own.name != kept]
        if not others:
            return
        before = len(others)
        for name in others:
            before -= await _deleted(stubs, name)
        assert before < len(others), f"expected sessions that can be deleted, got {others[:5]}"


async def _deleted(stubs: AioStubs, name: str) -> bool:
    """Whether it could be deleted; its forks have to go first."""
    asked = session_pb2.ListSnapshotsRequest(session=name)
    listed = await stubs.sessions.ListSnapshots(asked, timeout=TIMEOUT_S, metadata=stubs.metadata)
    for snapshot in listed.snapshots:
        dropped = session_pb2.DeleteSnapshotRequest(session=name, name=snapshot.name)
        await stubs.sessions.DeleteSnapshot(dropped, timeout=TIMEOUT_S, metadata=stubs.metadata)
    try:
        request = session_pb2.DeleteSessionRequest(name=name)
        await stubs.sessions.DeleteSession(request, timeout=TIMEOUT_S, metadata=stubs.metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        return False
    return True
