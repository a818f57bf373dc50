"""Blocks in and out, on a channel of their own: by reference into the arena where the server shares it, else in
pieces.

One thread receives put acks; gRPC's own thread draws requests from `_requests` and so is the sender. Fetches run in
the caller's thread.

Invariants: a block is copied once on its way out (into the arena, or into bytes of its own) and once on its way in;
bytes are checked against their checksum after the copy; puts of one connection end with it and go out again on the
next.
"""

import threading
import time
from collections.abc import Iterator, Sequence

import google_crc32c
import grpc
import numpy as np
import numpy.typing as npt

from attn_client.errors import MemoryFailure, MemoryRefused, MemoryUnavailable
from attn_client.memory.arena import Arena, Slot
from attn_client.memory.attachment import Attachment
from attn_client.memory.calls import Calls
from attn_client.memory.connection import Connection
from attn_client.memory.link import Link
from attn_client.memory.outbox import PendingBlock
from attn_client.memory.settings import ClientSettings
from attn_client.memory.statuses import failure_of
from protos.memsvc.v1 import block_pb2, types_pb2

Bytes = npt.NDArray[np.uint8]

# Measured best on one stream: 1 to 2 MiB a message.
CHUNK_BYTES = 1 << 20

# Blocks of one GetBlocks call; more are fetched in several.
FETCH_BLOCKS_MAX = 1024

# How often a block is sent again after a refusal that may pass: the server lost sight of the attachment because the
# connection is just ending, or the bytes were damaged on the way.
_REFUSALS_MAX = {"ATTACHMENT_NOT_FOUND": 10, "ARENA_NOT_ACCEPTED": 10, "WORKER_NOT_ATTACHED": 10, "CORRUPT_BLOCK": 1}
_CORRUPT = "CORRUPT_BLOCK"

# Refusals after which no block of the attachment will be taken.
_SESSION_OVER = frozenset({"ATTACHMENT_NOT_FOUND", "ARENA_NOT_ACCEPTED", "WORKER_NOT_ATTACHED", "STALE_EPOCH"})


def pending_block(arena: Arena | None, block: int, partial_tokens: int, end_position: int, data: Bytes) -> PendingBlock:
    """A block to put: copied, with its checksum."""
    slot = arena.puts.lease(data.nbytes) if arena is not None else None
    if arena is not None and slot is not None:
        copy = arena.view(slot)
        np.copyto(copy, data)
    else:
        copy = data.copy()
    return PendingBlock(block, partial_tokens, end_position, google_crc32c.value(copy), copy, slot)


class BlockTransfer:
    """Moves blocks of all sessions of one client."""

    def __init__(self, link: Link, calls: Calls, settings: ClientSettings) -> None:
        self._link, self._calls, self._settings = link, calls, settings
        self._connection = Connection()
        # When a block was last sent, or answered for.
        self._moved_at = 0.0
        self._thread = threading.Thread(target=self._run, name="attn-blocks", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End the puts and their threads.

        Raises:
            MemoryUnavailable: A thread is still there after `timeout_s`.
        """
        with self._link.changed:
            self._link.close()
            self._connection.end()
        self._connection.join(self._thread, timeout_s)

    def fetch(self, attachment: str, blocks: Sequence[int], block_bytes: int, timeout_s: float) -> dict[int, Bytes]:
        """Bytes of blocks, each `block_bytes` long and the caller's to keep.

        Raises:
            MemoryRefused: A block is not there (BLOCK_NOT_FOUND) or is damaged (CORRUPT_BLOCK).
            MemoryUnavailable: Not all came within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        lacking = list(dict.fromkeys(blocks))
        fetched: dict[int, Bytes] = {}
        with self._link.changed:
            arena = self._link.shared
        while lacking:
            some = lacking[:FETCH_BLOCKS_MAX]
            slots = _leased(arena, len(some), block_bytes)
            try:
                request = _get_request(attachment, some, slots)
                damaged = self._get(request, arena, block_bytes, deadline - time.monotonic(), fetched)
            finally:
                if arena is not None:
                    arena.fetches.release_all(slots)
            if damaged and arena is None:
                raise MemoryRefused(_CORRUPT, f"block {damaged[0]}: expected bytes of its checksum, got others")
            if damaged:
                # A server that answered an earlier fetch late may have written over these; pieces cannot be.
                arena = None
            lacking = [block for block in lacking if block not in fetched]
        return fetched

    def _get(
        self,
        request: block_pb2.GetBlocksRequest,
        arena: Arena | None,
        block_bytes: int,
        timeout_s: float,
        fetched: dict[int, Bytes],
    ) -> list[int]:
        """Add what one call gives to `fetched`; blocks whose bytes do not match their checksum."""
        doing = f"fetch {len(request.blocks)} blocks"
        if timeout_s <= 0:
            raise MemoryUnavailable(f"expected to {doing} from {self._calls.address} in time, got none of them")
        damaged = []
        with self._calls.failing(doing):
            responses = iter(self._calls.blocks.GetBlocks(request, timeout=timeout_s))
            for index, block in enumerate(request.blocks):
                slot = request.slots[index] if request.slots else None
                data, crc32c = _received(responses, block, block_bytes, arena, slot)
                if google_crc32c.value(data) == crc32c:
                    fetched[block] = data
                else:
                    damaged.append(block)
        return damaged

    def _run(self) -> None:
        link = self._link
        while True:
            with link.changed:
                link.changed.wait_for(lambda: link.closing or (link.up and link.has_block()))
                if link.closing:
                    return
                self._connection = connection = Connection()
                connection.call = call = self._calls.blocks.PutBlocks(self._requests(connection, link.generation))
            failure: MemoryFailure | None = None
            try:
                for response in call:
                    with link.changed:
                        self._answered(response)
            except grpc.RpcError as error:
                failure = failure_of(error, "put blocks", self._calls.address)
            with link.changed:
                connection.ended = True
                for attachment in link.attachments.values():
                    attachment.blocks.resend()
                    if isinstance(failure, MemoryRefused):
                        attachment.note(f"blocks were sent again: {failure}")
                link.changed.notify_all()
                least_s = failure.retry_s if isinstance(failure, MemoryRefused) else 0.0
                link.changed.wait_for(lambda: link.closing, max(self._settings.reconnect_first_s, least_s))

    def _requests(self, connection: Connection, generation: int) -> Iterator[block_pb2.PutBlocksRequest]:
        try:
            while (taken := self._next_block(connection, generation)) is not None:
                yield from self._pieces(*taken)
        finally:
            connection.sender_left.set()

    def _next_block(self, connection: Connection, generation: int) -> tuple[Attachment, PendingBlock] | None:
        """The next block, awaited; None when the connection it belongs to is over."""
        link = self._link
        with link.changed:
            while not connection.ended and link.up and link.generation == generation:
                taken = link.take_block()
                if taken is not None:
                    self._moved_at = time.monotonic()
                    return taken
                if link.draining:
                    break
                waiting = any(one.blocks.in_flight for one in link.attachments.values())
                left_s = self._moved_at + self._settings.call_timeout_s - time.monotonic()
                if waiting and left_s <= 0:
                    # An answer is overdue: what was sent goes out again on another call.
                    break
                link.changed.wait(left_s if waiting else None)
            # Half-closing is enough for a server that lives; one that hangs must not keep the thread.
            if not link.draining and not connection.ended:
                connection.end()
        return None

    def _pieces(self, attachment: Attachment, block: PendingBlock) -> Iterator[block_pb2.PutBlocksRequest]:
        request = block_pb2.PutBlocksRequest(
            attachment=attachment.opening.attachment,
            epoch=attachment.epoch,
            block=block.block,
            crc32c=block.crc32c,
            partial_tokens=block.partial_tokens,
            durability=types_pb2.DURABILITY_BUFFERED,
        )
        if block.slot is not None and self._link.shared is not None:
            request.slot.offset, request.slot.size_bytes = block.slot.offset, block.slot.size_bytes
            yield request
            return
        for first in range(0, block.data.nbytes, CHUNK_BYTES):
            request.chunk = block.data[first : first + CHUNK_BYTES].tobytes()
            yield request

    def _answered(self, response: block_pb2.PutBlocksResponse) -> None:
        link = self._link
        attachment = link.attachments.get(response.attachment)
        block = attachment.blocks.answered(response.block, response.partial_tokens) if attachment is not None else None
        if attachment is None or block is None:
            # Closed meanwhile.
            return
        self._moved_at = time.monotonic()
        if not response.reason:
            attachment.blocks.stored(block)
            link.free_block(block)
        elif block.refusals < _REFUSALS_MAX.get(response.reason, 0):
            block.refusals += 1
            attachment.blocks.again(block)
            # What is sent again goes out on a new call, after the pause before it.
            self._connection.ended = True
        else:
            self._refused(attachment, block, MemoryRefused(response.reason, f"block {block.block}: {response.message}"))
        link.changed.notify_all()

    def _refused(self, attachment: Attachment, block: PendingBlock, why: MemoryRefused) -> None:
        self._link.free_block(block)
        if why.reason in _SESSION_OVER:
            self._link.lose(attachment, why)
        else:
            attachment.note(str(why))
            attachment.blocks.drop(block.block)


def _leased(arena: Arena | None, count: int, block_bytes: int) -> list[Slot]:
    slots: list[Slot] = []
    while arena is not None and len(slots) < count and (slot := arena.fetches.lease(block_bytes)) is not None:
        slots.append(slot)
    return slots


def _get_request(attachment: str, blocks: Sequence[int], slots: Sequence[Slot]) -> block_pb2.GetBlocksRequest:
    """As many blocks as there are slots; without any, all of them in pieces."""
    return block_pb2.GetBlocksRequest(
        attachment=attachment,
        blocks=blocks[: len(slots)] if slots else blocks,
        slots=[block_pb2.ArenaSlot(offset=slot.offset, size_bytes=slot.size_bytes) for slot in slots],
    )


def _received(
    responses: Iterator[block_pb2.GetBlocksResponse],
    block: int,
    block_bytes: int,
    arena: Arena | None,
    slot: block_pb2.ArenaSlot | None,
) -> tuple[Bytes, int]:
    """One block's bytes, copied out of its slot or put together from pieces, and what their checksum should be."""
    if slot is not None and arena is not None:
        response = _next_of(responses, block)
        return arena.view(Slot(slot.offset, slot.size_bytes)).copy(), response.crc32c
    data = np.empty(block_bytes, np.uint8)
    filled, crc32c = 0, 0
    while filled < block_bytes:
        response = _next_of(responses, block)
        piece = np.frombuffer(response.chunk, np.uint8)
        if not piece.size or filled + piece.size > block_bytes:
            raise MemoryRefused(_CORRUPT, f"block {block}: expected {block_bytes} bytes, got {filled} and {piece.size}")
        data[filled : filled + piece.size] = piece
        filled, crc32c = filled + piece.size, response.crc32c
    return data, crc32c


def _next_of(responses: Iterator[block_pb2.GetBlocksResponse], block: int) -> block_pb2.GetBlocksResponse:
    response = next(responses, None)
    if response is None or response.block != block:
        came = "the end" if response is None else f"block {response.block}"
        raise MemoryRefused(_CORRUPT, f"expected block {block}, got {came}")
    return response
