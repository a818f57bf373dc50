"""Blocks in pieces: one at a time, never more than one block of memory."""

import pytest

from memsvc.errors import InvalidRequest
from memsvc.rpc.pieces import BlockPieces
from protos.memsvc.v1 import block_pb2

BLOCK_BYTES = 10


def _piece(chunk: bytes, block: int = 3) -> block_pb2.PutBlocksRequest:
    return block_pb2.PutBlocksRequest(attachment="a", epoch=1, block=block, crc32c=7, chunk=chunk)


def test_pieces_become_the_block() -> None:
    """Proves that pieces are joined in order, and that the next block starts afresh."""
    pieces = BlockPieces()
    assert pieces.add(_piece(b"0123"), BLOCK_BYTES) is None
    assert pieces.add(_piece(b"4567"), BLOCK_BYTES) is None
    assert pieces.add(_piece(b"89"), BLOCK_BYTES) == b"0123456789"
    assert pieces.add(_piece(b"abcdefghij", block=4), BLOCK_BYTES) == b"abcdefghij"
    pieces.require_none_open()


def test_one_byte_too_many_is_refused() -> None:
    """Proves that no more than one block is ever held."""
    pieces = BlockPieces()
    pieces.add(_piece(b"01234567"), BLOCK_BYTES)
    with pytest.raises(InvalidRequest, match="expected 1 to 2 more bytes, got 3"):
        pieces.add(_piece(b"89a"), BLOCK_BYTES)
    with pytest.raises(InvalidRequest, match="expected 1 to 10 more bytes, got 11"):
        BlockPieces().add(_piece(b"0123456789a"), BLOCK_BYTES)


def test_an_empty_piece_is_refused() -> None:
    """Proves that a stream cannot go on for ever without sending anything."""
    with pytest.raises(InvalidRequest, match="got 0"):
        BlockPieces().add(_piece(b""), BLOCK_BYTES)


def test_another_block_before_the_last_piece_is_refused() -> None:
    """Proves that pieces of two blocks are never mixed, and that an unfinished block is noticed at the end."""
    pieces = BlockPieces()
    pieces.add(_piece(b"0123"), BLOCK_BYTES)
    with pytest.raises(InvalidRequest, match="block 3: expected its next piece"):
        pieces.add(_piece(b"4567", block=4), BLOCK_BYTES)
    with pytest.raises(InvalidRequest, match="block 3: expected its next piece"):
        pieces.answer(_piece(b"4567", block=4))
    with pytest.raises(InvalidRequest, match="block 3: expected its next piece"):
        pieces.require_none_open()


def test_a_block_of_unknown_size_is_answered_once() -> None:
    """Proves that the pieces of a refused block count as one block, and those of the next as another."""
    pieces = BlockPieces()
    assert [pieces.answer(_piece(b"01")), pieces.answer(_piece(b"23")), pieces.answer(_piece(b"4", block=4))] == [
        True,
        False,
        True,
    ]
    pieces.require_none_open()
