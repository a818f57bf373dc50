"""Blocks over the wire: in pieces and through shared memory, both ways, each error in its place."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import grpc
import pytest

from protos.memsvc.v1 import block_pb2, memory_pb2, session_pb2
from tests.integration.server_process import (
    BLOCK_BYTES,
    TIMEOUT_S,
    Stubs,
    Worker,
    block_data,
    connected,
    created,
    put,
    reason_of,
    served,
    spec,
    step,
)

MIB = 1024 * 1024
# Two whole pieces and a third of another length.
LARGE_BYTES = 2 * MIB + 12345


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with served(tmp_path_factory.mktemp("node")) as server, connected(server.address) as stubs:
        yield stubs


def _writer(
    stubs: Stubs, name: str, blocks: int, block_bytes: int = BLOCK_BYTES, **hello: object
) -> tuple[Worker, int]:
    """A worker that has read so many blocks' tokens into a new session; the epoch. All carry the one name."""
    created(stubs, name, block_bytes)
    greeting = memory_pb2.Hello(protocol_version=1, worker=name, **hello)
    worker = Worker(stubs, name, memory_pb2.AttachRequest(hello=greeting))
    assert worker.receive().welcome.arena_accepted is bool(hello)
    epoch = worker.open(name, name, fingerprint=spec(block_bytes).fingerprint).epoch
    worker.steps(*(step(name, epoch, 1 + block, 64 * block) for block in range(blocks)))
    assert [worker.receive().ack.seq for _ in range(blocks)] == list(range(1, blocks + 1))
    return worker, epoch


def _answers(stubs: Stubs, *requests: block_pb2.PutBlocksRequest) -> list[block_pb2.PutBlocksResponse]:
    return list(stubs.blocks.PutBlocks(iter(requests), timeout=TIMEOUT_S))


def _fetched(stubs: Stubs, attachment: str, *blocks: int) -> dict[int, bytes]:
    request = block_pb2.GetBlocksRequest(attachment=attachment, blocks=blocks)
    found: dict[int, bytes] = {}
    checks: dict[int, int] = {}
    for piece in stubs.blocks.GetBlocks(request, timeout=TIMEOUT_S):
        found[piece.block] = found.get(piece.block, b"") + piece.chunk
        checks[piece.block] = piece.crc32c
    assert list(found) == list(blocks)
    assert all(google_crc32c.value(data) == checks[block] for block, data in found.items())
    return found


def test_a_block_in_pieces_comes_back_in_pieces(stubs: Stubs) -> None:
    """Proves that a block larger than a piece is put together and read back byte for byte, in the order asked."""
    worker, epoch = _writer(stubs, "pieces", 2, LARGE_BYTES)
    data = {block: block_data(block, LARGE_BYTES) for block in range(2)}
    requests = [
        put("pieces", epoch, block, data[block], chunk=data[block][first : first + MIB])
        for block in (0, 1)
        for first in range(0, LARGE_BYTES, MIB)
    ]
    for one in requests:
        one.crc32c = google_crc32c.value(data[one.block])
    assert [(one.block, one.reason) for one in _answers(stubs, *requests)] == [(0, ""), (1, "")]
    assert _fetched(stubs, "pieces", 1, 0) == data
    worker.leave()


@pytest.fixture
def shared() -> Iterator[tuple[memory_pb2.Arena, Path]]:
    """An arena of this process, as a worker would make it."""
    path = Path("/dev/shm") / f"attn-{uuid.uuid4()}"
    nonce = os.urandom(16)
    path.write_bytes(nonce + bytes(4096 - 16 + 4 * BLOCK_BYTES))
    yield memory_pb2.Arena(name=path.name, size_bytes=path.stat().st_size, nonce=nonce), path
    path.unlink()


def test_blocks_travel_through_shared_memory(stubs: Stubs, shared: tuple[memory_pb2.Arena, Path]) -> None:
    """Proves that slots are read on a put and filled on a fetch, and that the answer then carries no bytes."""
    arena, path = shared
    worker, epoch = _writer(stubs, "arena", 2, arena=arena)
    with path.open("r+b", buffering=0) as file:
        for block in range(2):
            os.pwrite(file.fileno(), block_data(block), 4096 + block * BLOCK_BYTES)
    slots = [block_pb2.ArenaSlot(offset=4096 + at * BLOCK_BYTES, size_bytes=BLOCK_BYTES) for at in range(4)]
    requests = (put("arena", epoch, block, block_data(block), slot=slots[block]) for block in range(2))
    assert [one.reason for one in _answers(stubs, *requests)] == ["", ""]
    request = block_pb2.GetBlocksRequest(attachment="arena", blocks=[1, 0], slots=slots[2:])
    assert [(one.block, one.chunk) for one in stubs.blocks.GetBlocks(request, timeout=TIMEOUT_S)] == [
        (1, b""),
        (0, b""),
    ]
    assert path.read_bytes()[4096 + 2 * BLOCK_BYTES :] == block_data(1) + block_data(0)
    assert _fetched(stubs, "arena", 0)[0] == block_data(0)
    worker.leave()


def test_a_slot_without_an_arena_is_refused(stubs: Stubs) -> None:
    """Proves that a put says so in its answer and a fetch in its status."""
    worker, epoch = _writer(stubs, "no-arena", 1)
    slot = block_pb2.ArenaSlot(offset=4096, size_bytes=BLOCK_BYTES)
    (answer,) = _answers(stubs, put("no-arena", epoch, 0, block_data(0), slot=slot))
    assert answer.reason == "ARENA_NOT_ACCEPTED"
    with pytest.raises(grpc.RpcError) as raised:
        list(stubs.blocks.GetBlocks(block_pb2.GetBlocksRequest(attachment="no-arena", blocks=[0], slots=[slot])))
    assert reason_of(raised.value) == "ARENA_NOT_ACCEPTED"
    worker.leave()


def test_a_block_that_fails_is_answered_and_the_next_one_stored(stubs: Stubs) -> None:
    """Proves that answers come in order, each with its own reason, and that the stream survives all of them."""
    worker, epoch = _writer(stubs, "each", 2)
    data = block_data(0)
    small = block_pb2.ArenaSlot(offset=4096, size_bytes=1)
    requests = [
        put("each", epoch, 0, data, crc32c=1),
        put("each", epoch + 1, 0, data),
        put("unknown", epoch, 0, data),
        put("each", epoch, 0, data, slot=small),
        put("each", epoch, 0, data, partial_tokens=64),
        put("each", epoch, 0, data),
        put("each", epoch, 0, data),
        put("each", epoch, 0, block_data(1)),
        put("each", epoch, 1, block_data(1)),
    ]
    reasons = [(one.block, one.reason) for one in _answers(stubs, *requests)]
    assert reasons == [
        (0, "CORRUPT_BLOCK"),
        (0, "STALE_EPOCH"),
        (0, "ATTACHMENT_NOT_FOUND"),
        (0, "ARENA_NOT_ACCEPTED"),
        (0, "INVALID_REQUEST"),
        (0, ""),
        (0, ""),
        (0, "INVALID_REQUEST"),
        (1, ""),
    ]
    assert _fetched(stubs, "each", 0, 1) == {0: data, 1: block_data(1)}
    worker.leave()


def test_pieces_of_an_unknown_attachment_are_answered_as_one_block(stubs: Stubs) -> None:
    """Proves that one answer a block holds even where its size is unknown."""
    pieces = [put("nobody", 1, block, b"12", crc32c=5) for block in (0, 0, 0, 1, 1)]
    assert [(one.block, one.reason) for one in _answers(stubs, *pieces)] == [
        (0, "ATTACHMENT_NOT_FOUND"),
        (1, "ATTACHMENT_NOT_FOUND"),
    ]


@pytest.mark.parametrize("second", ["another block", "a slot", "too long", "empty", "the end"])
def test_pieces_out_of_order_end_the_stream(stubs: Stubs, second: str) -> None:
    """Proves that a stream whose blocks cannot be told apart any more is INVALID_ARGUMENT, not a wrong block."""
    name = f"order-{second.replace(' ', '-')}"
    worker, epoch = _writer(stubs, name, 2)
    data = block_data(0)
    check = google_crc32c.value(data)
    requests = {
        "another block": [put(name, epoch, 1, data)],
        "a slot": [put(name, epoch, 0, data, slot=block_pb2.ArenaSlot(offset=4096, size_bytes=BLOCK_BYTES))],
        "too long": [put(name, epoch, 0, data)],
        "empty": [put(name, epoch, 0, b"", crc32c=check)],
        "the end": [],
    }[second]
    with pytest.raises(grpc.RpcError) as raised:
        _answers(stubs, put(name, epoch, 0, data[:100], crc32c=check), *requests)
    assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    worker.leave()


def test_a_fetch_names_what_it_misses(stubs: Stubs) -> None:
    """Proves the status of an unknown attachment, a missing block, too many blocks and too few slots."""
    worker, epoch = _writer(stubs, "misses", 1)
    _answers(stubs, put("misses", epoch, 0, block_data(0)))
    slot = block_pb2.ArenaSlot(offset=4096, size_bytes=BLOCK_BYTES)
    for fields, reason in (
        ({"attachment": "nobody", "blocks": [0]}, "ATTACHMENT_NOT_FOUND"),
        ({"attachment": "misses", "blocks": [0, 7]}, "BLOCK_NOT_FOUND"),
        ({"attachment": "misses", "blocks": [0] * 4097}, "LIMIT_EXCEEDED"),
        ({"attachment": "misses", "blocks": [0, 0], "slots": [slot]}, "INVALID_REQUEST"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            list(stubs.blocks.GetBlocks(block_pb2.GetBlocksRequest(**fields), timeout=TIMEOUT_S))
        assert reason_of(raised.value) == reason
    worker.leave()


def test_a_view_reads_blocks_and_puts_none(stubs: Stubs) -> None:
    """Proves that a view gets what the writer stored before the tail, and that its puts are refused."""
    worker, epoch = _writer(stubs, "viewed", 1)
    _answers(stubs, put("viewed", epoch, 0, block_data(0)))
    tail = session_pb2.Tail(version=1, position=64)
    stubs.sessions.SaveTail(session_pb2.SaveTailRequest(attachment="viewed", epoch=epoch, tail=tail), timeout=TIMEOUT_S)
    worker.open("viewed", "viewed-view", mode=session_pb2.OPEN_MODE_VIEW)
    assert _fetched(stubs, "viewed-view", 0) == {0: block_data(0)}
    (answer,) = _answers(stubs, put("viewed-view", 0, 0, block_data(0)))
    assert answer.reason != ""
    worker.leave()
