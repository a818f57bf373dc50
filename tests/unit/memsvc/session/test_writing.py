"""Blocks and tails."""

from collections.abc import Callable

import pytest

from memsvc.errors import BlockNotFound, CorruptBlock, InvalidRequest, StaleEpoch, TailIncomplete
from protos import codec
from protos.memsvc.v1 import session_pb2, types_pb2
from tests.session_driver import BLOCK_BYTES, Node, Reader, Text, block_bytes

TEXT = Text(1200)
BUFFERED = types_pb2.DURABILITY_BUFFERED


def test_a_block_comes_back_as_it_was_put(node: Node) -> None:
    """Proves that bytes and checksum of a whole and of a partial block are returned, also after a restart."""
    writer = node.open()
    writer.read(TEXT, [130])
    writer.put_one(2, 2, block_bytes(2))
    again = node.crash().open(resume_epoch=1)
    for reader in (writer, again):
        assert reader.session.read_block(reader.attachment, 1)[0] == block_bytes(1)
        data, _, partial_tokens = reader.session.read_block(reader.attachment, 2)
        assert (data, partial_tokens) == (block_bytes(2), 2)


def test_the_same_bytes_again_are_fine_and_others_are_not(node: Node) -> None:
    """Proves that a stored block is not stored twice, and never changed."""
    writer = node.open()
    writer.read(TEXT, [130])
    size = writer.session.core.files.stored_bytes
    writer.put([0, 1])
    assert writer.session.core.files.stored_bytes == size
    for partial_tokens in (0, 5):
        with pytest.raises(InvalidRequest, match="as it is stored"):
            writer.put_one(0, partial_tokens, block_bytes(0, salt=1))
    assert writer.session.read_block(writer.attachment, 0)[0] == block_bytes(0)


def test_a_longer_part_takes_the_place_of_a_shorter_one(node: Node) -> None:
    """Proves that a partial block grows until it is whole, and never shrinks."""
    writer = node.open()
    writer.send(TEXT, 200)
    for partial_tokens in (3, 9):
        writer.put_one(2, partial_tokens, block_bytes(2, partial_tokens))
    writer.put_one(2, 9, block_bytes(2, 9))
    for partial_tokens, salt in ((3, 3), (9, 1)):
        with pytest.raises(InvalidRequest, match="first 9 tokens"):
            writer.put_one(2, partial_tokens, block_bytes(2, salt))
    writer.put([2])
    assert writer.session.read_block(writer.attachment, 2)[2] == 0


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda writer: writer.put_one(0, 64, block_bytes(0)), "partial_tokens"),
        (lambda writer: writer.put_one(0, 0, b"x" * (BLOCK_BYTES - 1)), f"expected {BLOCK_BYTES} bytes"),
        (lambda writer: writer.put_one(0, 0, b""), f"expected {BLOCK_BYTES} bytes"),
        (lambda writer: writer.put_one(10_000, 0, block_bytes(0)), "before position 100"),
        (lambda writer: writer.put_one(1 << 63, 0, block_bytes(0)), "before position 100"),
        (lambda writer: writer.put_one(3, 0, block_bytes(3)), "declared as a gap"),
    ],
)
def test_a_block_that_cannot_be_is_refused(node: Node, put: Callable[[Reader], object], said: str) -> None:
    """Proves that size, place and gaps are checked."""
    writer = node.open()
    step = writer.message(TEXT, 100)
    step.block_gaps.add(first=3, count=1)
    writer.session.apply(writer.attachment, step)
    with pytest.raises(InvalidRequest, match=said):
        put(writer)
    assert writer.session.info().blocks == 0


def test_a_block_with_another_checksum_is_refused(node: Node) -> None:
    """Proves that bytes damaged on their way are not stored."""
    writer = node.open()
    writer.send(TEXT, 100)
    with pytest.raises(CorruptBlock):
        writer.session.put_block(writer.attachment, 0, 0, block_bytes(0), 1, BUFFERED)
    with pytest.raises(BlockNotFound, match="never put"):
        writer.session.read_block(writer.attachment, 0)


def test_a_block_may_overtake_its_step(node: Node) -> None:
    """Proves that a block put before its tokens came is kept, and is no candidate until they are past."""
    writer = node.open()
    writer.put([0, 1, 2, 3])
    recall = writer.ask(TEXT, 200)
    assert recall.candidates == 1


def test_a_view_puts_nothing_and_a_stale_writer_neither(node: Node) -> None:
    """Proves that only the newest writer stores blocks and tails."""
    writer = node.open()
    writer.read(TEXT, [128])
    writer.save_tail()
    view = node.open("v", view=True)
    with pytest.raises(InvalidRequest, match="view v"):
        view.put([0])
    node.sessions.worker_gone("w-one")
    node.open("two")
    for work in (lambda: writer.put([1]), writer.save_tail, lambda: writer.send(TEXT, 200)):
        with pytest.raises(StaleEpoch):
            work()
    with pytest.raises(StaleEpoch):
        writer.session.read_block(writer.attachment, 0)


def test_a_view_reads_the_blocks_of_its_cut_only(node: Node) -> None:
    """Proves that it gets the part that the tail had, though the whole block is there now, and no later block."""
    writer = node.open()
    writer.read(TEXT, [100])
    writer.save_tail()
    view = node.open("v", view=True)
    writer.read(TEXT, [200])
    assert view.session.read_block(view.attachment, 1)[::2] == (block_bytes(1, 1036), 36)
    assert writer.session.read_block(writer.attachment, 1)[::2] == (block_bytes(1), 0)
    with pytest.raises(BlockNotFound):
        view.session.read_block(view.attachment, 2)


def test_a_tail_needs_every_step_and_block_before_it(node: Node) -> None:
    """Proves that it is refused while something is missing and taken once it is there or given up."""
    writer = node.open()
    writer.send(TEXT, 200)
    tail = session_pb2.Tail(version=1, position=201)

    def save() -> None:
        writer.session.save_tail(writer.attachment, 1, tail)

    with pytest.raises(TailIncomplete, match="up to 201"):
        save()
    tail.position = 200
    writer.put([0, 2])
    with pytest.raises(TailIncomplete, match="no block 1"):
        save()
    writer.put([1])
    with pytest.raises(TailIncomplete, match="first 8 tokens of block 3"):
        save()
    writer.put_one(3, 7, block_bytes(3))
    with pytest.raises(TailIncomplete, match="got its first 7"):
        save()
    writer.put_one(3, 8, block_bytes(3, 8))
    save()
    assert writer.session.info().tail_position == 200
    assert not writer.session.core.files.unsynced
    size = writer.session.core.files.stored_bytes
    save()
    assert writer.session.core.files.stored_bytes == size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "tail.version 1"),
        ({"position": 127}, "writer's position 128"),
        ({"logits": types_pb2.Tensor(dtype=1, shape=[3], data=b"1")}, "logits"),
    ],
)
def test_a_tail_of_another_format_or_place_is_refused(node: Node, change: dict[str, object], said: str) -> None:
    """Proves that what could not be gone on from is not stored."""
    writer = node.open()
    writer.read(TEXT, [128])
    with pytest.raises(InvalidRequest, match=said):
        writer.session.save_tail(writer.attachment, 1, session_pb2.Tail(**{"version": 1, "position": 128, **change}))


def test_a_tail_carries_logits_to_whoever_opens_next(node: Node) -> None:
    """Proves that logits and the last id come back from a restart bit for bit."""
    writer = node.open()
    writer.read(TEXT, [128])
    tail = session_pb2.Tail(version=1, position=128, last_id=0, logits=codec.encode(TEXT.surprisal))
    writer.session.save_tail(writer.attachment, 1, tail)
    assert node.crash().open("two").opened.tail == tail
