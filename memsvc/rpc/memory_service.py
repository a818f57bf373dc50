"""MemoryService: the stream between a worker and the server.

    requests --> applied one after another, each on a thread --+--> outbox --> one writer --> responses
                        `--> recalls, waiting for blocks ------'

Invariants:
    Steps of one stream are applied in their order; an answer is sent as soon as it exists.
    A step that fails is one Fault, and the stream goes on.
    The outbox is bounded: a worker that does not read is not read from.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

import memsvc
from memsvc.auth.names import tenant_of
from memsvc.errors import (
    AttachmentNotFound,
    DeadlineExceeded,
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    ProtocolVersion,
)
from memsvc.metrics.base import RecallOutcome
from memsvc.rpc.arena import Arena
from memsvc.rpc.errors import known
from memsvc.rpc.node import Node
from memsvc.rpc.observing import apply_noted, note_refusal
from memsvc.rpc.workers import Worker
from memsvc.session import PendingRecall, Session
from memsvc.session.spec import check_id
from protos.memsvc.v1 import memory_pb2, memory_pb2_grpc

PROTOCOL_VERSION = 1
_METHOD = "MemoryService/Attach"

Requests = AsyncIterator[memory_pb2.AttachRequest]
Context = grpc.aio.ServicerContext[Any, Any]


class MemoryService(memory_pb2_grpc.MemoryServiceServicer):
    """Attach streams of all workers."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # A coroutine that writes, where the stub foresees a generator: its `finally` runs when the call ends.
    async def Attach(self, request_iterator: Requests, context: Context) -> None:  # type: ignore[override]
        """Serve one worker until it or the server leaves."""
        self._node.workers.refuse_when_draining()
        worker = _greeted(await anext(aiter(request_iterator), None))
        try:
            await self._node.workers.enter(worker)
        except BaseException:
            if worker.arena is not None:
                worker.arena.close()
            raise
        try:
            await AttachStream(self._node, worker).serve(request_iterator, context)
        except asyncio.CancelledError:
            if worker.ended_by is None:
                raise
            raise worker.ended_by from None
        finally:
            await self._node.workers.leave(worker)


def _greeted(request: memory_pb2.AttachRequest | None) -> Worker:
    """The worker that a stream's first request announces."""
    if request is None or request.WhichOneof("message") != "hello":
        came = "the end of the stream" if request is None else request.WhichOneof("message")
        raise InvalidRequest(f"first request: expected hello, got {came}")
    hello = request.hello
    if hello.protocol_version != PROTOCOL_VERSION:
        raise ProtocolVersion(f"hello: expected protocol version {PROTOCOL_VERSION}, got {hello.protocol_version}")
    check_id("hello.worker", hello.worker)
    return Worker(hello.worker, Arena.open(hello.arena) if hello.HasField("arena") else None)


@dataclass(frozen=True)
class Applied:
    """What came of a step: its acknowledgement, and the recall that it asked for, if any, or what that waits as."""

    session: Session
    ack: memory_pb2.Ack
    pending: PendingRecall | None
    recall: memory_pb2.Recall | None


class AttachStream:
    """One worker's stream at work."""

    def __init__(self, node: Node, worker: Worker) -> None:
        self._node = node
        self._worker = worker
        self._recalls_waiting = 0

    async def serve(self, requests: Requests, context: Context) -> None:
        """Answer until the worker has sent its last request and got its last answer."""
        # Awaited here, where no failed request cancels it: a stream's first write must not be cut off.
        await context.write(memory_pb2.AttachResponse(welcome=self._welcome()))
        self._worker.greeted()
        try:
            async with asyncio.TaskGroup() as whole:
                whole.create_task(self._write(context))
                async with asyncio.TaskGroup() as recalls:
                    async for request in requests:
                        await self._take(request, recalls)
                await self._worker.outbox.put(None)
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors

    def _welcome(self) -> memory_pb2.Welcome:
        limits = self._node.limits
        return memory_pb2.Welcome(
            protocol_version=PROTOCOL_VERSION,
            server_version=memsvc.__version__,
            arena_accepted=self._worker.arena is not None,
            credit_tokens=limits.credit_tokens,
            message_bytes_max=limits.message_bytes_max,
            step_tokens_max=limits.step_tokens_max,
        )

    async def _write(self, context: Context) -> None:
        while (response := await self._worker.outbox.get()) is not None:
            await context.write(response)

    async def _send(self, **message: Any) -> None:
        await self._worker.outbox.put(memory_pb2.AttachResponse(**message))

    async def _fault(self, step: memory_pb2.Step, error: Exception) -> None:
        told = known(error, "Attach")
        note_refusal(self._node, told, step.attachment, method=_METHOD, epoch=step.epoch, seq=step.seq)
        fault = memory_pb2.Fault(attachment=step.attachment, seq=step.seq, reason=told.reason, message=str(told))
        await self._send(fault=fault)

    async def _take(self, request: memory_pb2.AttachRequest, recalls: asyncio.TaskGroup) -> None:
        if request.WhichOneof("message") != "steps":
            raise InvalidRequest(f"request after hello: expected steps, got {request.WhichOneof('message')}")
        tokens = sum(step.count for step in request.steps.steps)
        for step in request.steps.steps:
            if tokens > self._node.limits.credit_tokens:
                message = f"batch: expected at most {self._node.limits.credit_tokens} tokens (credit), got {tokens}"
                await self._fault(step, MessageTooLarge(message))
            else:
                await self._step(step, recalls)

    async def _step(self, step: memory_pb2.Step, recalls: asyncio.TaskGroup) -> None:
        # Held back to its tenant's rate; too far past it, the stream ends, and what is not acknowledged comes again.
        if wait_s := self._node.quotas.pace(tenant_of(self._worker.name), step.count):
            await asyncio.sleep(wait_s)
        try:
            applied = await self._node.threads.steps.run(self._apply, step)
        except Exception as error:
            await self._fault(step, error)
            return
        await self._send(ack=applied.ack)
        self._node.progress.changed(applied.session.name)
        if applied.recall is not None:
            await self._send(recall=applied.recall)
        elif applied.pending is not None:
            await self._await_recall(step, applied.session, applied.pending, recalls)

    async def _await_recall(
        self, step: memory_pb2.Step, session: Session, pending: PendingRecall, recalls: asyncio.TaskGroup
    ) -> None:
        if self._recalls_waiting == self._node.limits.recalls_waiting_max:
            message = f"recalls waiting: expected at most {self._recalls_waiting}, got one more"
            await self._fault(step, LimitExceeded(message))
            self._node.metrics.recall_ended("refused", 0.0)
            return
        self._recalls_waiting += 1
        recalls.create_task(self._recall(step, session, pending))

    def _apply(self, step: memory_pb2.Step) -> Applied:
        attachment = self._node.sessions.attachment(step.attachment)
        if attachment.worker != self._worker.name:
            expected = f"one of worker {self._worker.name!r}"
            raise AttachmentNotFound(f"attachment {step.attachment}: expected {expected}, got another worker's")
        if not attachment.is_view:
            self._node.quotas.admit_bytes(tenant_of(self._worker.name), step.ByteSize())
        ack, pending = apply_noted(self._node.metrics, attachment, step)
        recall = None
        # Most recalls wait for nothing: another turn of the loop and a thread would take longer than they do. One that
        # fails is left to whoever awaits it, who tells so.
        if pending is not None and time.monotonic() < pending.deadline_s:
            started_s = time.perf_counter()
            with contextlib.suppress(Exception):
                recall = _recall_if_ready(attachment.session, pending)
            if recall is not None:
                self._node.metrics.recall_ended("answered", time.perf_counter() - started_s)
        return Applied(attachment.session, ack, pending, recall)

    async def _recall(self, step: memory_pb2.Step, session: Session, pending: PendingRecall) -> None:
        """Send the recall once the blocks that it waits for are there, or a Fault."""
        outcome: RecallOutcome = "abandoned"
        started_s = time.perf_counter()
        try:
            # The loop's clock is time.monotonic(), as the deadline's is.
            async with asyncio.timeout_at(pending.deadline_s):
                recall = await self._awaited(session, pending)
        except TimeoutError:
            outcome = "late"
            expected = f"blocks before {step.recall.blocks_through} put or declared as gaps"
            message = f"recall: expected {expected} within {step.recall.deadline_ms} ms, got fewer"
            await self._fault(step, DeadlineExceeded(message))
        except Exception as error:
            outcome = "failed"
            await self._fault(step, error)
        else:
            outcome = "answered"
            await self._send(recall=recall)
        finally:
            self._recalls_waiting -= 1
            self._node.metrics.recall_ended(outcome, time.perf_counter() - started_s)

    async def _awaited(self, session: Session, pending: PendingRecall) -> memory_pb2.Recall:
        while True:
            change = self._node.progress.next_change(session.name)
            recall = await self._node.threads.steps.run(_recall_if_ready, session, pending)
            if recall is not None:
                return recall
            await change.wait()


def _recall_if_ready(session: Session, pending: PendingRecall) -> memory_pb2.Recall | None:
    return session.recall(pending) if session.recall_ready(pending) else None


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single error in a group of groups: what ended the stream."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
