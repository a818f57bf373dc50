"""A client that goes through the whole life of a session again and again; every session is gone in the end.

made, opened -> steps in batches, with a recall -> blocks, one of them through shared memory -> read back -> read,
explained, listed -> tail, snapshot, view, fork -> all of it deleted
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import google_crc32c
import grpc
import numpy as np

from attn_client.memory.arena import Arena
from protos import codec
from protos.memsvc.v1 import block_pb2, graph_pb2, memory_pb2, session_pb2, types_pb2
from tests.integration.fuzz_node import AioStream, AioStubs
from tests.integration.server_process import BLOCK_BYTES, DIMS, TIMEOUT_S, block_data, put, recall, spec

STEPS, STEP_TOKENS, BATCH_STEPS = 96, 16, 16
BLOCKS = STEPS * STEP_TOKENS // 64
# What one life is: each step and each block put or read counts, and every call of one answer.
OPERATIONS = STEPS + 2 * BLOCKS + 16
_ARENA_BYTES = 64 * 1024


class SoakClient:
    """One client; its stream is a new one with each `connected`."""

    def __init__(self, client: int, stubs: AioStubs, stream: AioStream, arena: Arena) -> None:
        self._stubs, self._stream, self._arena = stubs, stream, arena
        self._worker, self._lives = f"soak-{client}", 0
        rows = np.random.default_rng(client).standard_normal((STEP_TOKENS, DIMS)).astype(np.float32)
        self._rows = codec.encode(rows)
        self._data = [block_data(block) for block in range(BLOCKS)]

    async def live(self) -> int:
        """One session's life; how many operations it was."""
        name = f"{self._worker}-{self._lives}"
        self._lives += 1
        await self._call("CreateSession", session_pb2.CreateSessionRequest(name=name, spec=spec()))
        epoch = (await self._open(name, name)).epoch
        await self._write(name, epoch)
        await self._put(name, epoch)
        await self._read(name)
        await self._cut(name, epoch)
        await self._call("CloseAttachment", session_pb2.CloseAttachmentRequest(attachment=name))
        await self._call("DeleteSession", session_pb2.DeleteSessionRequest(name=name))
        return OPERATIONS

    async def _write(self, name: str, epoch: int) -> None:
        steps = [self._step(name, epoch, at) for at in range(STEPS)]
        steps[-1].recall.CopyFrom(recall(0))
        for first in range(0, STEPS, BATCH_STEPS):
            await self._stream.send(*steps[first : first + BATCH_STEPS])
            for at in range(BATCH_STEPS):
                assert (await self._stream.receive()).ack.seq == first + at + 1
        assert (await self._stream.receive()).recall.asked_at_position == STEPS * STEP_TOKENS - 1

    def _step(self, name: str, epoch: int, at: int) -> memory_pb2.Step:
        first = at * STEP_TOKENS
        return memory_pb2.Step(
            attachment=name,
            epoch=epoch,
            seq=at + 1,
            first_position=first,
            count=STEP_TOKENS,
            ids=np.arange(first, first + STEP_TOKENS, dtype="<u4").tobytes(),
            embeddings={"probe": self._rows},
            durability=types_pb2.DURABILITY_BUFFERED,
        )

    async def _put(self, name: str, epoch: int) -> None:
        slot = self._arena.puts.lease(BLOCK_BYTES)
        assert slot is not None
        self._arena.view(slot)[:] = np.frombuffer(self._data[0], np.uint8)
        shared = block_pb2.ArenaSlot(offset=slot.offset, size_bytes=slot.size_bytes)
        requests = [put(name, epoch, 0, self._data[0], slot=shared)]
        requests += [put(name, epoch, block, self._data[block]) for block in range(1, BLOCKS)]
        answers = self._stubs.blocks.PutBlocks(iter(requests), timeout=TIMEOUT_S)
        assert [answer.reason async for answer in answers] == [""] * BLOCKS
        self._arena.puts.release(slot)

    async def _read(self, name: str) -> None:
        fetch = block_pb2.GetBlocksRequest(attachment=name, blocks=range(BLOCKS))
        pieces = self._stubs.blocks.GetBlocks(fetch, timeout=TIMEOUT_S)
        assert [google_crc32c.value(piece.chunk) == piece.crc32c async for piece in pieces] == [True] * BLOCKS
        await self._call("GetSession", session_pb2.GetSessionRequest(name=name))
        await self._call("ListSessions", session_pb2.ListSessionsRequest(page_size=10))
        graph = self._stubs.graph
        whole = types_pb2.Range(first=0, count=STEPS * STEP_TOKENS)
        await graph.ListBookmarks(graph_pb2.ListBookmarksRequest(session=name, count=100), timeout=TIMEOUT_S)
        await graph.ReadTokens(graph_pb2.ReadTokensRequest(session=name, positions=whole), timeout=TIMEOUT_S)
        await graph.Explain(graph_pb2.ExplainRequest(session=name), timeout=TIMEOUT_S)

    async def _cut(self, name: str, epoch: int) -> None:
        """A tail, a snapshot of it, a view there and a fork, all gone again but for the tail."""
        tail = session_pb2.Tail(version=1, position=STEPS * STEP_TOKENS, last_id=1)
        await self._call("SaveTail", session_pb2.SaveTailRequest(attachment=name, epoch=epoch, tail=tail))
        snapshot, fork, view = f"{name}-cut", f"{name}-fork", f"{name}-view"
        await self._call("CreateSnapshot", session_pb2.CreateSnapshotRequest(session=name, name=snapshot))
        opened = await self._open(name, view, mode=session_pb2.OPEN_MODE_VIEW, snapshot=snapshot)
        assert opened.position == tail.position
        await self._call("ForkSession", session_pb2.ForkSessionRequest(parent=name, snapshot=snapshot, name=fork))
        await self._call("DeleteSnapshot", session_pb2.DeleteSnapshotRequest(session=name, name=snapshot))
        await self._call("CloseAttachment", session_pb2.CloseAttachmentRequest(attachment=view))
        await self._call("DeleteSession", session_pb2.DeleteSessionRequest(name=fork))

    async def _open(self, session: str, attachment: str, **changed: object) -> session_pb2.OpenSessionResponse:
        fields = {
            "session": session,
            "mode": session_pb2.OPEN_MODE_WRITER,
            "fingerprint": spec().fingerprint,
            "worker": self._worker,
            "attachment": attachment,
            **changed,
        }
        request = session_pb2.OpenSessionRequest(**fields)
        return await self._stubs.sessions.OpenSession(request, timeout=TIMEOUT_S)

    async def _call(self, method: str, request: object) -> None:
        await getattr(self._stubs.sessions, method)(request, timeout=TIMEOUT_S)


@asynccontextmanager
async def connected(address: str, client: int) -> AsyncIterator[SoakClient]:
    """A client on a channel, a stream and an arena of its own, all of which are gone afterwards."""
    arena = Arena(_ARENA_BYTES)
    try:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            stubs = AioStubs(channel, ())
            shared = memory_pb2.Arena(name=arena.name, size_bytes=arena.size_bytes, nonce=arena.nonce)
            stream = AioStream(stubs, f"soak-{client}", shared)
            assert (await stream.greet()).arena_accepted
            yield SoakClient(client, stubs, stream, arena)
            await stream.leave()
    finally:
        arena.close()
