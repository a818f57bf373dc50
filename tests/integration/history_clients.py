"""A client that calls a real server, one call after the other, and writes down each call and what it was told.

Moments are numbered by one count for all clients, so that it is known which calls overlapped.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import grpc
import numpy as np

from memsvc.geometry import BLOCK_TOKENS
from protos import codec
from protos.memsvc.v1 import block_pb2, memory_pb2, session_pb2, types_pb2
from tests.integration.fuzz_node import AioStream, AioStubs
from tests.integration.history_attached import (
    Append,
    Displace,
    Fetch,
    Leave,
    OpenView,
    OpenWriter,
    Put,
    Recalled,
    SaveTail,
)
from tests.integration.history_callers import BLOCK_BYTES, NameCaller, Notebook, history_spec, reason_of
from tests.integration.history_model import (
    Stored,
)
from tests.integration.server_process import DIMS, TIMEOUT_S, recall


@dataclass
class Held:
    """An attachment as its client knows it; a view's epoch is 0.

    Args:
        put: Whole blocks that it knows to be stored.
        partial: Where it was when it last put the first tokens of a block.
        asked: Whether the newest step asked for a recall; sent again, it is answered by the recall again.
    """

    name: str
    attachment: str
    epoch: int
    position: int
    seq: int = 0
    put: set[int] = field(default_factory=set)
    partial: int = 0
    asked: bool = False


class Caller(NameCaller):
    """One client's calls, those from its attachments too."""

    def __init__(self, client: int, stubs: AioStubs, notebook: Notebook) -> None:
        super().__init__(client, stubs, notebook)
        self._stream = AioStream(stubs, self.worker)

    async def start(self) -> None:
        """Says Hello."""
        await self._stream.greet()

    async def leave(self, held: Iterable[Held]) -> None:
        """Ends the stream, and with it every attachment."""
        start = self.notebook.moment()
        await self._stream.leave()
        for own in held:
            self._note(start, own.name, Leave(own.attachment, lost=True))

    async def attach(self) -> None:
        """Comes back on a new stream."""
        self._stream = AioStream(self._stubs, self.worker)
        await self._stream.greet()

    async def open_writer(self, name: str, resumes: Held | None = None) -> Held | None:
        """Opens a writer, or goes on as the one that was."""
        start = self.notebook.moment()
        attachment = resumes.attachment if resumes else f"writer-{next(self.notebook.numbers)}"
        epoch = resumes.epoch if resumes else 0
        request = self._opening(name, attachment, session_pb2.OPEN_MODE_WRITER)
        request.resume_epoch = epoch
        answer, reason = await self._told(self._stubs.sessions.OpenSession, request)
        told: tuple[int, int, int, frozenset[int]] = (0, 0, 0, frozenset())
        if answer is not None:
            told = (answer.epoch, answer.position, answer.applied_seq, _blocks(answer))
        began = OpenWriter(name, attachment, self.worker, reason, *told, resumes=epoch)
        self._note(start, name, *([Displace(name)] if answer is not None and not epoch else []), began)
        if answer is None:
            return None
        asked = resumes is not None and resumes.asked
        put, applied = set(_blocks(answer)), answer.applied_seq
        return Held(name, attachment, answer.epoch, answer.position, applied, put, asked=asked)

    async def open_view(self, name: str, snapshot: str) -> Held | None:
        """Opens a view."""
        start, attachment = self.notebook.moment(), f"view-{next(self.notebook.numbers)}"
        request = self._opening(name, attachment, session_pb2.OPEN_MODE_VIEW)
        request.snapshot = snapshot
        answer, reason = await self._told(self._stubs.sessions.OpenSession, request)
        told: tuple[int, frozenset[int]] = (0, frozenset())
        if answer is not None:
            told = (answer.position, _blocks(answer))
        self._note(start, name, OpenView(name, attachment, snapshot, reason, *told))
        return Held(name, attachment, 0, answer.position) if answer is not None else None

    async def close(self, held: Held) -> None:
        """Ends an attachment."""
        start = self.notebook.moment()
        request = session_pb2.CloseAttachmentRequest(attachment=held.attachment)
        _, reason = await self._told(self._stubs.sessions.CloseAttachment, request)
        assert not reason, reason
        self._note(start, held.name, Leave(held.attachment))

    async def append(self, held: Held, seq: int, first: int, count: int, ask: bool) -> str:
        """Sends a step, of a writer or a view; the reason that it was refused with."""
        start, number = self.notebook.moment(), next(self.notebook.numbers)
        rows = np.random.default_rng(number).standard_normal((count, DIMS)).astype(np.float32)
        own = memory_pb2.Step(
            attachment=held.attachment,
            epoch=held.epoch,
            seq=seq,
            first_position=first,
            count=count,
            ids=np.full(count, number, dtype="<u4").tobytes(),
            embeddings={"probe": codec.encode(rows)},
            durability=types_pb2.DURABILITY_BUFFERED,
            recall=recall(0) if ask else None,
        )
        await self._stream.send(own)
        answer = await self._stream.receive()
        reason = answer.fault.reason
        if held.epoch:
            told = Append(held.attachment, seq, first, count, number, reason, answer.ack.bookmarks)
            self._note(start, held.name, told)
        if ask and not reason:
            told_of = await self._stream.receive()
            recalled = told_of.recall
            assert recalled.asked_at_position == first + count - 1, told_of
            self._note(start, held.name, Recalled(held.attachment, first + count - 1, recalled.candidates))
        return reason

    async def put(self, held: Held, block: int, partial: int, salt: int) -> str:
        """Puts a block; the reason that it was refused with."""
        start, stored = self.notebook.moment(), (partial, salt)
        data = bytes_of(block, stored)
        request = block_pb2.PutBlocksRequest(
            attachment=held.attachment,
            epoch=held.epoch,
            block=block,
            partial_tokens=partial,
            crc32c=google_crc32c.value(data),
            chunk=data,
            durability=types_pb2.DURABILITY_BUFFERED,
        )
        answers = self._stubs.blocks.PutBlocks(iter([request]), timeout=TIMEOUT_S, metadata=self._stubs.metadata)
        (reason,) = [answer.reason async for answer in answers]
        self._note(start, held.name, Put(held.attachment, block, stored, reason))
        return str(reason)

    async def fetch(self, held: Held, block: int) -> str:
        """Reads a block; the reason that it was refused with."""
        start, reason, stored = self.notebook.moment(), "", None
        request = block_pb2.GetBlocksRequest(attachment=held.attachment, blocks=[block])
        pieces = self._stubs.blocks.GetBlocks(request, timeout=TIMEOUT_S, metadata=self._stubs.metadata)
        try:
            (data,) = [piece.chunk async for piece in pieces]
            stored = stored_of(block, data)
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
        self._note(start, held.name, Fetch(held.attachment, block, reason, stored))
        return reason

    async def save_tail(self, held: Held, position: int) -> str:
        """Cuts a tail; the reason that it was refused with."""
        start = self.notebook.moment()
        tail = session_pb2.Tail(version=1, position=position, last_id=1)
        request = session_pb2.SaveTailRequest(attachment=held.attachment, epoch=held.epoch, tail=tail)
        _, reason = await self._told(self._stubs.sessions.SaveTail, request)
        self._note(start, held.name, SaveTail(held.attachment, position, reason))
        return reason

    def _opening(self, name: str, attachment: str, mode: Any) -> session_pb2.OpenSessionRequest:
        return session_pb2.OpenSessionRequest(
            session=name,
            mode=mode,
            fingerprint=history_spec().fingerprint,
            worker=self.worker,
            attachment=attachment,
        )


def bytes_of(block: int, stored: Stored) -> bytes:
    """Bytes of a block, which say what it is."""
    return f"{block} {stored[0]} {stored[1]} ".encode().ljust(BLOCK_BYTES, b".")


def stored_of(block: int, data: bytes) -> Stored:
    """What the bytes of a block say; those of another one fail."""
    own, partial, salt, _ = data.split(b" ")
    assert (int(own), len(data)) == (block, BLOCK_BYTES), data
    return int(partial), int(salt)


def _blocks(answer: session_pb2.OpenSessionResponse) -> frozenset[int]:
    return frozenset(block for own in answer.stored_blocks for block in range(own.first, own.first + own.count))


def block_of(position: int) -> tuple[int, int]:
    """Block of a position, and how many tokens of it come before."""
    return divmod(position, BLOCK_TOKENS)
