"""A memory server that does exactly what a test tells it: withholds acks, breaks streams, refuses, drains, forgets.

It keeps one session whose state outlives `stop` and `start`, as a folder would. What a step means is not its business.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from protos.memsvc.v1 import (
    block_pb2,
    block_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    types_pb2,
)

BLOCK_BYTES = 4096
FOLDER = Path("/dev/shm")

# Ends an Attach stream from the server's side: without and with an error.
END, BREAK = object(), object()


def refusal(code: int, reason: str, message: str) -> Any:
    """A status as the real server makes it."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="memsvc"))
    return rpc_status.to_status(status_pb2.Status(code=code, message=message, details=[detail]))


@dataclass
class Script:
    """What the server does. Tests set it before or between calls."""

    welcome: memory_pb2.Welcome = field(
        default_factory=lambda: memory_pb2.Welcome(
            protocol_version=1, credit_tokens=1000, message_bytes_max=1 << 20, step_tokens_max=256
        )
    )
    acking: bool = True
    recalling: bool = True
    # By seq: a fault instead of an ack, or after it where the recall fails.
    step_faults: dict[int, str] = field(default_factory=dict)
    recall_faults: dict[int, str] = field(default_factory=dict)
    # Reasons for the next puts; each is used once.
    put_refusals: list[str] = field(default_factory=list)
    # Blocks that are sent damaged, in slots and in pieces.
    damaged_slots: set[int] = field(default_factory=set)
    damaged_pieces: set[int] = field(default_factory=set)
    resume_refusal: tuple[int, str] | None = None
    # How long a resumed session takes to open: a long log is replayed.
    replay_s: float = 0.0
    # What it says that it has stored; what it has if None.
    stored: list[types_pb2.Range] | None = None
    # Blocks that it stores without a word.
    unanswered_puts: int = 0
    tail: session_pb2.Tail | None = None


class ScriptedServer(memory_pb2_grpc.MemoryServiceServicer, session_pb2_grpc.SessionServiceServicer):
    """One address, one session. `changed` is notified whenever anything was received."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder}/scripted.sock"
        self.script = Script()
        self.changed = threading.Condition()
        self.steps: list[memory_pb2.Step] = []
        self.puts: list[tuple[int, int, bytes]] = []
        self.tails: list[session_pb2.Tail] = []
        self.opened: list[session_pb2.OpenSessionRequest] = []
        self.closed: list[str] = []
        self.blocks: dict[int, bytes] = {}
        self.applied_seq = 0
        self.position = 0
        self.half_closed = 0
        # Attachments that were opened since the start.
        self._known: set[str] = set()
        self._held: list[memory_pb2.AttachResponse] = []
        self._outs: list[queue.Queue[Any]] = []
        self.arena: memory_pb2.Arena | None = None
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Listen."""
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        memory_pb2_grpc.add_MemoryServiceServicer_to_server(self, self._server)
        session_pb2_grpc.add_SessionServiceServicer_to_server(self, self._server)
        block_pb2_grpc.add_BlockServiceServicer_to_server(ScriptedBlocks(self), self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        """Vanish at once."""
        if self._server is not None:
            with self.changed:
                outs, self._outs = self._outs, []
                self._known.clear()
            for out in outs:
                out.put(BREAK)
            self._server.stop(None).wait()
            self._server = None

    def __enter__(self) -> "ScriptedServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Until something was received, 10 s at most."""
        with self.changed:
            assert self.changed.wait_for(holds, 10.0)

    def say(self, **message: Any) -> None:
        """Send a message on every stream that is open."""
        with self.changed:
            for out in self._outs:
                out.put(memory_pb2.AttachResponse(**message))

    def break_streams(self) -> None:
        """End every Attach stream with an error."""
        with self.changed:
            for out in self._outs:
                out.put(BREAK)

    def release_acks(self) -> None:
        """Send what was withheld, and acknowledge from now on."""
        with self.changed:
            self.script.acking = True
            for response in self._held:
                for out in self._outs:
                    out.put(response)
            self._held.clear()

    def Attach(self, request_iterator: Iterator[memory_pb2.AttachRequest], context: Any) -> Iterator[Any]:
        hello = next(request_iterator).hello
        self.arena = hello.arena if hello.HasField("arena") else None
        out: queue.Queue[Any] = queue.Queue()
        # Before the client hears of it: what a test then does to every stream is done to this one.
        with self.changed:
            self._outs.append(out)
            self._held.clear()
        yield memory_pb2.AttachResponse(welcome=self.script.welcome)
        threading.Thread(target=self._read, args=(request_iterator, out), daemon=True).start()
        while (response := out.get()) is not END:
            if response is BREAK:
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
            yield response

    def _read(self, requests: Iterator[memory_pb2.AttachRequest], out: "queue.Queue[Any]") -> None:
        try:
            for request in requests:
                for step in request.steps.steps:
                    self._take(step, out)
        except grpc.RpcError:
            pass
        with self.changed:
            if out in self._outs:
                self._outs.remove(out)
                self.half_closed += 1
            self.changed.notify_all()
        out.put(END)

    def _take(self, step: memory_pb2.Step, out: "queue.Queue[Any]") -> None:
        with self.changed:
            self.steps.append(step)
            for response in self._responses(step):
                if self.script.acking:
                    out.put(response)
                else:
                    self._held.append(response)
            self.changed.notify_all()

    def _responses(self, step: memory_pb2.Step) -> Iterator[memory_pb2.AttachResponse]:
        names: dict[str, Any] = {"attachment": step.attachment, "seq": step.seq}
        if step.seq in self.script.step_faults:
            fault = memory_pb2.Fault(reason=self.script.step_faults[step.seq], message="expected x, got y", **names)
            yield memory_pb2.AttachResponse(fault=fault)
            return
        self.applied_seq, self.position = step.seq, step.first_position + step.count
        yield memory_pb2.AttachResponse(ack=memory_pb2.Ack(bookmarks=step.seq, **names))
        if not step.HasField("recall"):
            return
        if step.seq in self.script.recall_faults:
            fault = memory_pb2.Fault(reason=self.script.recall_faults[step.seq], message="expected x, got y", **names)
            yield memory_pb2.AttachResponse(fault=fault)
        elif self.script.recalling:
            block = memory_pb2.RecalledBlock(block=3, score=2.0, z=1.5, reached=memory_pb2.REACHED_TRAIL, via_block=3)
            recall = memory_pb2.Recall(asked_at_position=self.position - 1, blocks=[block], candidates=9, **names)
            yield memory_pb2.AttachResponse(recall=recall)

    def OpenSession(self, request: session_pb2.OpenSessionRequest, context: Any) -> session_pb2.OpenSessionResponse:
        with self.changed:
            again = any(one.attachment == request.attachment for one in self.opened)
            self.opened.append(request)
            self.changed.notify_all()
        if again:
            time.sleep(self.script.replay_s)
        with self.changed:
            self._known.add(request.attachment)
        if again and self.script.resume_refusal is not None:
            context.abort_with_status(refusal(*self.script.resume_refusal, "expected x, got y"))
        info = types_pb2.SessionInfo(name=request.session)
        info.spec.fingerprint.block_bytes = BLOCK_BYTES
        held = [types_pb2.Range(first=block, count=1) for block in sorted(self.blocks)]
        stored = held if self.script.stored is None else self.script.stored
        return session_pb2.OpenSessionResponse(
            session=info,
            epoch=7,
            position=self.position,
            applied_seq=self.applied_seq,
            tail=self.script.tail,
            stored_blocks=stored,
        )

    def SaveTail(self, request: session_pb2.SaveTailRequest, context: Any) -> session_pb2.SaveTailResponse:
        with self.changed:
            if request.attachment not in self._known:
                unknown = refusal(code_pb2.NOT_FOUND, "ATTACHMENT_NOT_FOUND", "expected an attachment, got another")
                context.abort_with_status(unknown)
            self.tails.append(request.tail)
        return session_pb2.SaveTailResponse()

    def CloseAttachment(
        self, request: session_pb2.CloseAttachmentRequest, context: Any
    ) -> session_pb2.CloseAttachmentResponse:
        with self.changed:
            self.closed.append(request.attachment)
            self.changed.notify_all()
        return session_pb2.CloseAttachmentResponse()


class ScriptedBlocks(block_pb2_grpc.BlockServiceServicer):
    """The blocks of a scripted server."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def PutBlocks(
        self, request_iterator: Iterator[block_pb2.PutBlocksRequest], context: Any
    ) -> Iterator[block_pb2.PutBlocksResponse]:
        data = b""
        for request in request_iterator:
            data += self._slot(request.slot) if request.HasField("slot") else request.chunk
            if len(data) < BLOCK_BYTES:
                continue
            assert google_crc32c.value(data) == request.crc32c
            answer, data = self._stored(request, data), b""
            if self._server.script.unanswered_puts:
                self._server.script.unanswered_puts -= 1
            else:
                yield answer

    def _stored(self, request: block_pb2.PutBlocksRequest, data: bytes) -> block_pb2.PutBlocksResponse:
        with self._server.changed:
            self._server.puts.append((request.block, request.partial_tokens, data))
            reason = self._server.script.put_refusals.pop(0) if self._server.script.put_refusals else ""
            if not reason:
                self._server.blocks[request.block] = data
            self._server.changed.notify_all()
        return block_pb2.PutBlocksResponse(
            attachment=request.attachment,
            block=request.block,
            partial_tokens=request.partial_tokens,
            reason=reason,
            message="expected x, got y" if reason else "",
        )

    def GetBlocks(self, request: block_pb2.GetBlocksRequest, context: Any) -> Iterator[block_pb2.GetBlocksResponse]:
        damaged = self._server.script.damaged_slots if request.slots else self._server.script.damaged_pieces
        for index, block in enumerate(request.blocks):
            if block not in self._server.blocks:
                missing = refusal(code_pb2.NOT_FOUND, "BLOCK_NOT_FOUND", f"expected block {block}, got none")
                context.abort_with_status(missing)
            data = self._server.blocks[block]
            crc32c = google_crc32c.value(data)
            data = bytes(len(data)) if block in damaged else data
            if request.slots:
                self._fill(request.slots[index], data)
            for first in (0,) if request.slots else range(0, BLOCK_BYTES, 1000):
                chunk = b"" if request.slots else data[first : first + 1000]
                yield block_pb2.GetBlocksResponse(block=block, crc32c=crc32c, chunk=chunk)

    def _slot(self, slot: block_pb2.ArenaSlot) -> bytes:
        assert self._server.arena is not None
        with (FOLDER / self._server.arena.name).open("rb") as file:
            file.seek(slot.offset)
            return file.read(slot.size_bytes)

    def _fill(self, slot: block_pb2.ArenaSlot, data: bytes) -> None:
        assert self._server.arena is not None
        with (FOLDER / self._server.arena.name).open("r+b") as file:
            file.seek(slot.offset)
            file.write(data)
