"""BlockService: blocks in bulk, by shared memory or in pieces.

Invariants:
    One answer a block, in order; what is wrong with one block is in its answer and the stream goes on.
    A stream holds at most one block in memory.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from memsvc.auth.names import tenant_of
from memsvc.errors import AttachmentNotFound, InvalidRequest, LimitExceeded, StaleEpoch
from memsvc.rpc.errors import known
from memsvc.rpc.node import Node
from memsvc.rpc.observing import note_refusal
from memsvc.rpc.pieces import BlockPieces
from memsvc.session import Attachment
from protos.memsvc.v1 import block_pb2, block_pb2_grpc

# Measured best on one stream: 1 to 2 MiB a message.
CHUNK_BYTES = 1024 * 1024

Context = grpc.aio.ServicerContext[Any, Any]
Puts = AsyncIterator[block_pb2.PutBlocksRequest]


class BlockService(block_pb2_grpc.BlockServiceServicer):
    """Stores and reads blocks of all sessions."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def PutBlocks(self, request_iterator: Puts, context: Context) -> AsyncIterator[block_pb2.PutBlocksResponse]:
        """Answer each block once it is stored with the durability asked for."""
        pieces = BlockPieces()
        async for piece in request_iterator:
            response = await self._put(piece, pieces)
            if response is not None:
                yield response
        pieces.require_none_open()

    async def GetBlocks(
        self, request: block_pb2.GetBlocksRequest, context: Context
    ) -> AsyncIterator[block_pb2.GetBlocksResponse]:
        """Send each block, or fill its slot, in the order asked."""
        blocks, slots = request.blocks, request.slots
        limit = self._node.limits.fetch_blocks_max
        if len(blocks) > limit:
            raise LimitExceeded(f"blocks: expected at most {limit}, got {len(blocks)}")
        if slots and len(slots) != len(blocks):
            raise InvalidRequest(f"slots: expected none or one a block ({len(blocks)}), got {len(slots)}")
        run = self._node.threads.blocks.run
        attachment = await run(self._node.sessions.attachment, request.attachment)
        arena = self._node.workers.arena(attachment.worker) if slots else None
        for at, block in enumerate(blocks):
            data, crc32c, partial_tokens = await run(attachment.session.read_block, attachment, block)
            if arena is not None:
                await run(arena.write, slots[at], data)
            self._node.metrics.bytes_fetched("grpc" if arena is None else "arena", len(data))
            for first in (0,) if arena is not None else range(0, len(data), CHUNK_BYTES):
                chunk = b"" if arena is not None else data[first : first + CHUNK_BYTES]
                yield block_pb2.GetBlocksResponse(
                    block=block, crc32c=crc32c, partial_tokens=partial_tokens, chunk=chunk
                )

    async def _put(self, piece: block_pb2.PutBlocksRequest, pieces: BlockPieces) -> block_pb2.PutBlocksResponse | None:
        """The answer to a block, or None if it lacks pieces. Raises InvalidRequest for a stream that lost its order."""
        run = self._node.threads.blocks.run
        try:
            attachment = await run(self._node.sessions.attachment, piece.attachment)
        except AttachmentNotFound as error:
            # How long its blocks are is unknown: pieces are let by as long as they are of the same block.
            return self._refusal(piece, error) if pieces.answer(piece) or piece.HasField("slot") else None
        data: bytes | None = None
        if piece.HasField("slot"):
            pieces.require_none_open()
        else:
            data = pieces.add(piece, attachment.session.spec.fingerprint.block_bytes)
            if data is None:
                return None
        try:
            await run(self._store, attachment, piece, data)
        except Exception as error:
            return self._refusal(piece, error)
        self._node.progress.changed(attachment.session.name)
        return _answer(piece)

    def _refusal(self, piece: block_pb2.PutBlocksRequest, error: Exception) -> block_pb2.PutBlocksResponse:
        told = known(error, "PutBlocks")
        note_refusal(self._node, told, piece.attachment, method="BlockService/PutBlocks", epoch=piece.epoch)
        response = _answer(piece)
        response.reason, response.message = told.reason, str(told)
        return response

    def _store(self, attachment: Attachment, piece: block_pb2.PutBlocksRequest, data: bytes | None) -> None:
        if piece.epoch != attachment.epoch:
            raise StaleEpoch(f"block {piece.block}: expected epoch {attachment.epoch}, got {piece.epoch}")
        if data is None:
            data = self._node.workers.arena(attachment.worker).read(piece.slot)
        expected = attachment.session.spec.fingerprint.block_bytes
        if len(data) != expected:
            raise InvalidRequest(f"block {piece.block}: expected {expected} bytes, got {len(data)}")
        self._node.quotas.admit_bytes(tenant_of(attachment.worker), expected)
        attachment.session.put_block(
            attachment, piece.block, piece.partial_tokens, data, piece.crc32c, piece.durability
        )
        self._node.metrics.bytes_put("arena" if piece.HasField("slot") else "grpc", len(data))


def _answer(piece: block_pb2.PutBlocksRequest) -> block_pb2.PutBlocksResponse:
    return block_pb2.PutBlocksResponse(
        attachment=piece.attachment, block=piece.block, partial_tokens=piece.partial_tokens
    )
