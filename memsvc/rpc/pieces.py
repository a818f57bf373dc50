"""Blocks that arrive in pieces, one block at a time.

Invariants:
    At most one block is being put together, and it holds at most the bytes of one block.
    Pieces of a block follow each other; pieces of another before its last are an error of the whole stream, because
    nothing after them can be told apart.
Must not know: sessions.
"""

from memsvc.errors import InvalidRequest
from protos.memsvc.v1 import block_pb2

_Key = tuple[str, int, int, int, int]


class BlockPieces:
    """The block that one PutBlocks stream is sending now."""

    def __init__(self) -> None:
        self._key: _Key | None = None
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._answered: _Key | None = None

    def add(self, piece: block_pb2.PutBlocksRequest, block_bytes: int) -> bytes | None:
        """The whole block if this was its last piece.

        Args:
            block_bytes: Size of the whole block.

        Raises:
            InvalidRequest: An empty piece, one of another block, or one too many bytes.
        """
        key = _key_of(piece)
        self.require_none_open(but=key)
        chunk = piece.chunk
        size_bytes = self._size_bytes + len(chunk)
        if not chunk or size_bytes > block_bytes:
            expected = f"1 to {block_bytes - self._size_bytes} more bytes"
            raise InvalidRequest(f"block {piece.block}: expected {expected}, got {len(chunk)}")
        if size_bytes < block_bytes:
            self._key, self._size_bytes = key, size_bytes
            self._chunks.append(chunk)
            return None
        whole = b"".join((*self._chunks, chunk)) if self._chunks else chunk
        self.drop()
        return whole

    def require_none_open(self, but: _Key | None = None) -> None:
        """Raises InvalidRequest if a block other than `but` lacks pieces."""
        if self._key is not None and self._key != but:
            raise InvalidRequest(
                f"block {self._key[2]}: expected its next piece, got {self._size_bytes} bytes and no more"
            )

    def drop(self) -> None:
        """Forget the block."""
        self._key, self._chunks, self._size_bytes, self._answered = None, [], 0, None

    def answer(self, piece: block_pb2.PutBlocksRequest) -> bool:
        """Drop the piece's block, whose size nobody knows; True for its first piece, which is to be answered.

        Raises:
            InvalidRequest: Another block lacks pieces.
        """
        key = _key_of(piece)
        self.require_none_open(but=key)
        first = key != self._answered
        self.drop()
        self._answered = key
        return first


def _key_of(piece: block_pb2.PutBlocksRequest) -> _Key:
    return (piece.attachment, piece.epoch, piece.block, piece.partial_tokens, piece.crc32c)
