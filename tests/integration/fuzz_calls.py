"""Calls of every method with messages gone wrong, aimed at a session that such calls can do something to."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from attn_client.memory.arena import Arena
from protos.memsvc.v1 import admin_pb2, block_pb2, graph_pb2, memory_pb2, session_pb2, types_pb2
from tests.integration.fuzz_mutations import field_mutation, wire_mutation
from tests.integration.fuzz_node import AioStream, AioStubs, FuzzNode, GoodClient, delete_others, opened
from tests.integration.server_process import BLOCK_BYTES, TIMEOUT_S, block_data, put, recall, spec, step
from tests.unit.memsvc.auth.test_rules import services

S, W, A, V = "target", "target-worker", "target-attachment", "target-view"
SNAPSHOT, FORK = "kept", "target-fork"
WORDS = (S, W, A, V, SNAPSHOT, FORK, "probe", "surprisal")
METHODS = {method.name: method for service in services() for method in service.methods}
# A code says that the caller did something wrong; CANCELLED is what this caller does to a watch, which never ends.
_CODES = grpc.StatusCode
CALLERS_FAULT = frozenset(
    {
        _CODES.OK,
        _CODES.INVALID_ARGUMENT,
        _CODES.NOT_FOUND,
        _CODES.ALREADY_EXISTS,
        _CODES.FAILED_PRECONDITION,
        _CODES.OUT_OF_RANGE,
        _CODES.RESOURCE_EXHAUSTED,
        _CODES.ABORTED,
        _CODES.UNAUTHENTICATED,
        _CODES.PERMISSION_DENIED,
        _CODES.CANCELLED,
    }
)
# Reasons inside answers of streams that are no caller's fault.
OURS = frozenset({"INTERNAL", "STORAGE_FAILED", "DATA_LOSS", "CORRUPT_LOG", "MANIFEST_UNAVAILABLE"})
# What grpc.aio makes, on this side, of a stream that ended while a request was being written, in place of the code that
# it ended with. The node's own count of codes tells that one.
_CUT_OFF = "Internal error from Core"
_ARENA_BYTES = 4096 + 4 * BLOCK_BYTES
# Past this the session takes hardly any more steps.
_POSITION_MAX = 1 << 20


class Target:
    """A session with blocks, a tail, a snapshot and a recall, and its writer, who shares memory and stays attached."""

    def __init__(self, node: FuzzNode) -> None:
        self._stubs = AioStubs(node.channel, node.metadata)
        self._stream: AioStream | None = None
        self._reading: asyncio.Task[None] | None = None
        # The client's own: one without a lock is taken for abandoned by whoever starts a client meanwhile.
        self._arena = Arena(_ARENA_BYTES)
        self.epoch = self.seq = self.position = 0
        # What its stream ended with, and reasons in its answers, if they were not the caller's fault.
        self.failures: list[str] = []

    async def __aenter__(self) -> "Target":
        """Makes it."""
        await self.restore()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves; the session stays."""
        await self._hang_up()
        self._arena.close()

    async def restore(self) -> None:
        """Makes good what a call did: a stream ended, an attachment closed, a session deleted."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            if self._reading is not None and not self._reading.done():
                await self._open()
                if self.position < _POSITION_MAX:
                    return
        await self._hang_up()
        await delete_others(self._stubs, GoodClient.SESSION)
        await self._begin()

    async def step(self, request: bytes) -> None:
        """Sends a request on its stream, if that is still up."""
        assert self._stream is not None
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self._stream.call.write(request)

    async def _begin(self) -> None:
        stubs = self._stubs
        made = session_pb2.CreateSessionRequest(name=S, spec=spec())
        await stubs.sessions.CreateSession(made, timeout=TIMEOUT_S, metadata=stubs.metadata)
        self._stream = stream = await self._greeted()
        await self._open()
        for block in range(2):
            await stream.send(step(A, self.epoch, block + 1, 64 * block, recall=recall(block)))
            await self._put(block)
            assert [(await stream.receive()).WhichOneof("message") for _ in range(2)] == ["ack", "recall"]
        tail = session_pb2.Tail(version=1, position=128, last_id=1)
        saved = session_pb2.SaveTailRequest(attachment=A, epoch=self.epoch, tail=tail)
        await stubs.sessions.SaveTail(saved, timeout=TIMEOUT_S, metadata=stubs.metadata)
        named = session_pb2.CreateSnapshotRequest(session=S, name=SNAPSHOT)
        await stubs.sessions.CreateSnapshot(named, timeout=TIMEOUT_S, metadata=stubs.metadata)
        await self._open()
        self._reading = asyncio.create_task(self._read(stream))

    async def _greeted(self) -> AioStream:
        own = self._arena
        shared = memory_pb2.Arena(name=own.name, size_bytes=own.size_bytes, nonce=own.nonce)
        stream = AioStream(self._stubs, W, shared)
        assert (await stream.greet()).arena_accepted
        return stream

    async def _read(self, stream: AioStream) -> None:
        try:
            while (response := await stream.call.read()) is not grpc.aio.EOF:
                self.failures += _ours(response)
        except asyncio.CancelledError:
            return
        except grpc.aio.AioRpcError:
            pass
        code, details = await stream.call.code(), await stream.call.details()
        if code not in CALLERS_FAULT and details != _CUT_OFF:
            self.failures.append(f"Attach of {W}: {code}, {details}")

    async def _open(self) -> None:
        answer = await opened(self._stubs, S, W, A)
        self.epoch, self.seq, self.position = answer.epoch, answer.applied_seq, answer.position

    async def _put(self, block: int) -> None:
        requests = [put(A, self.epoch, block, block_data(block))]
        stubs = self._stubs
        answers = stubs.blocks.PutBlocks(iter(requests), timeout=TIMEOUT_S, metadata=stubs.metadata)
        assert [one.reason async for one in answers] == [""]

    async def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.call.cancel()
        if self._reading is not None:
            await asyncio.wait([self._reading])
        self._stream = self._reading = None


def valid_requests(target: Target) -> dict[str, list[Message]]:
    """Requests of every method that would do something to the target as it is now; of a stream, all of it."""
    tail = session_pb2.Tail(version=1, position=target.position, last_id=2)
    opening = session_pb2.OpenSessionRequest(
        session=S, mode=session_pb2.OPEN_MODE_VIEW, fingerprint=spec().fingerprint, worker=W, attachment=V
    )
    slot = block_pb2.ArenaSlot(offset=4096, size_bytes=BLOCK_BYTES)
    block = target.position // 64
    positions = types_pb2.Range(first=0, count=64)
    hello = memory_pb2.AttachRequest(hello=memory_pb2.Hello(protocol_version=1, worker="another"))
    return {
        "CreateSession": [session_pb2.CreateSessionRequest(name="made", spec=spec())],
        "GetSession": [session_pb2.GetSessionRequest(name=S)],
        "ListSessions": [session_pb2.ListSessionsRequest(page_size=10)],
        "DeleteSession": [session_pb2.DeleteSessionRequest(name=S)],
        "ForkSession": [session_pb2.ForkSessionRequest(parent=S, name=FORK, snapshot=SNAPSHOT)],
        "RenameSession": [session_pb2.RenameSessionRequest(name=FORK, new_name="renamed")],
        "CreateSnapshot": [session_pb2.CreateSnapshotRequest(session=S, name="new")],
        "ListSnapshots": [session_pb2.ListSnapshotsRequest(session=S)],
        "DeleteSnapshot": [session_pb2.DeleteSnapshotRequest(session=S, name="new")],
        "OpenSession": [opening],
        "SaveTail": [session_pb2.SaveTailRequest(attachment=A, epoch=target.epoch, tail=tail)],
        "CloseAttachment": [session_pb2.CloseAttachmentRequest(attachment=V)],
        "Attach": [hello, memory_pb2.AttachRequest(steps=memory_pb2.StepBatch(steps=[step(V, 0, 1, 128)]))],
        "PutBlocks": [
            put(A, target.epoch, block, block_data(0), slot=slot),
            put(A, target.epoch, block + 1, block_data(1)),
        ],
        "GetBlocks": [block_pb2.GetBlocksRequest(attachment=A, blocks=[0, 1], slots=[slot, slot])],
        "ListBookmarks": [graph_pb2.ListBookmarksRequest(session=S, first=3, count=10)],
        "GetGraph": [graph_pb2.GetGraphRequest(session=S, seeds=[0, 70], hops=2)],
        "ReadTokens": [graph_pb2.ReadTokensRequest(session=S, positions=positions)],
        "Explain": [graph_pb2.ExplainRequest(session=S, asked_at_position=127)],
        "VerifySession": [admin_pb2.VerifySessionRequest(session=S)],
        "ForgetBlocks": [admin_pb2.ForgetBlocksRequest(session=S, before_position=128)],
        "Check": [health_pb2.HealthCheckRequest(service="ready")],
        "List": [health_pb2.HealthListRequest()],
        "Watch": [health_pb2.HealthCheckRequest(service="ready")],
        "ServerReflectionInfo": [reflection_pb2.ServerReflectionRequest(list_services="")],
    }


def valid_steps(target: Target) -> memory_pb2.AttachRequest:
    """The next step of the target's writer, with all that a step can have."""
    asked = recall(0, deadline_ms=200)
    asked.hops.CopyFrom(memory_pb2.HopRequest(hops=1, blocks=1))
    own = step(A, target.epoch, target.seq + 1, target.position + 64, gap_tokens=64, recall=asked)
    own.block_gaps.add(first=target.position // 64, count=1)
    own.signals["surprisal"].CopyFrom(types_pb2.Tensor(dtype=1, shape=[64], data=bytes(256)))
    return memory_pb2.AttachRequest(steps=memory_pb2.StepBatch(steps=[own]))


@dataclass
class Fuzz:
    """Calls from a seed; `failures` says which of them ended in what is no caller's fault."""

    node: FuzzNode
    target: Target
    random: Random
    sent: int = 0
    failures: list[str] = field(default_factory=list)

    async def batch(self, calls: int) -> None:
        """So many calls side by side, half as many steps of the target's writer, and the target made good."""
        valid = valid_requests(self.target)
        others = [request.SerializeToString() for requests in valid.values() for request in requests]
        names = [self.random.choice(sorted(METHODS)) for _ in range(calls)]
        # Drawn before the first one is sent: what a seed stands for does not depend on who answers first.
        drawn = [(name, self._gone_wrong(valid[name], others)) for name in names]
        steps = self._gone_wrong([valid_steps(self.target)] * (calls // 2), others)
        await asyncio.gather(self._write(steps), *(self._call(METHODS[name], requests) for name, requests in drawn))
        self.failures += self.target.failures
        self.target.failures.clear()
        await self.target.restore()

    async def _write(self, steps: list[bytes]) -> None:
        for request in steps:
            await self.target.step(request)

    def _gone_wrong(self, requests: Sequence[Message], others: Sequence[bytes]) -> list[bytes]:
        """Each request changed, on the wire or in its fields; of a stream, the first is often left as it is."""
        first = len(requests) > 1 and self.random.random() < 0.6
        changed = [request.SerializeToString() for request in requests[:first]]
        for request in requests[first:]:
            if self.random.random() < 0.5:
                changed.append(wire_mutation(self.random, request.SerializeToString(), others))
            else:
                changed.append(field_mutation(self.random, request, WORDS).SerializeToString())
        self.sent += len(changed)
        return changed

    async def _call(self, method: MethodDescriptor, requests: list[bytes]) -> None:
        made = _multicallable(self.node.channel, method)
        argument = iter(requests) if method.client_streaming else requests[0]
        call = made(argument, metadata=self.node.metadata, timeout=TIMEOUT_S)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            if not method.server_streaming:
                await call
            else:
                async for answer in call:
                    self.failures += _ours(answer)
                    if method.name == "Watch":
                        call.cancel()
        code, details = await call.code(), await call.details()
        lacking = method.name == "List" and code is _CODES.UNIMPLEMENTED
        if code not in CALLERS_FAULT and not lacking and details != _CUT_OFF:
            sent = ", ".join(request[:400].hex() for request in requests)
            self.failures.append(f"{method.name}: {code.name}, {details}, of {sent}")


def _multicallable(channel: grpc.aio.Channel, method: MethodDescriptor) -> Any:
    """A method whose requests are bytes."""
    kind = "_".join("stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming))
    path = f"/{method.containing_service.full_name}/{method.name}"
    return getattr(channel, kind)(path, response_deserializer=GetMessageClass(method.output_type).FromString)


def _ours(answer: Message) -> list[str]:
    """What an answer of a stream says that is no caller's fault."""
    told = answer.fault if isinstance(answer, memory_pb2.AttachResponse) else answer
    reason = getattr(told, "reason", "")
    return [f"{type(answer).__name__}: {reason}, {getattr(told, 'message', '')}"] if reason in OURS else []
