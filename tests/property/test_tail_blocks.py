"""Whoever opens at a tail finds the tail's own part of the block that it ends in, or the tail was refused."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.errors import TailIncomplete
from memsvc.geometry import BLOCK_TOKENS
from protos.memsvc.v1 import session_pb2
from tests.session_driver import Node, Text, block_bytes

TEXT = Text(400)


@settings(max_examples=15, deadline=None)
@given(position=st.integers(1, 3 * BLOCK_TOKENS), ahead=st.sets(st.integers(0, 4)), part=st.booleans())
def test_a_tail_never_rests_on_a_block_put_ahead_of_its_tokens(position: int, ahead: set[int], part: bool) -> None:
    """Proves that a tail inside a block needs that block's part, even where all of the block overtook its tokens."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder) / "node")
        node.create()
        writer = node.open()
        block, filled = divmod(position, BLOCK_TOKENS)
        writer.read(TEXT, [position])
        if part and filled:
            writer.put_one(block, filled, block_bytes(block, 7))
        writer.put(sorted(own for own in ahead if own >= block))
        tail = session_pb2.Tail(version=1, position=position)
        try:
            writer.session.save_tail(writer.attachment, writer.attachment.epoch, tail)
        except TailIncomplete:
            assert filled
            assert not part or block in ahead
            node.close()
            return
        node.sessions.worker_gone("w-one")
        for reader in (node.open("view", view=True), node.open("later")):
            assert reader.position == position
            if filled:
                got = reader.session.read_block(reader.attachment, block)
                assert (got[0], got[2]) == (block_bytes(block, 7), filled)
        node.close()
