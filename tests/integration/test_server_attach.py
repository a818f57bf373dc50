"""The Attach stream over the wire: greetings, steps and acknowledgements, recalls, faults."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from protos import codec
from protos.memsvc.v1 import block_pb2, memory_pb2, session_pb2, types_pb2
from tests.integration.server_process import (
    DIMS,
    TIMEOUT_S,
    Stubs,
    Worker,
    block_data,
    connected,
    created,
    put,
    reason_of,
    recall,
    served,
    step,
)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with served(tmp_path_factory.mktemp("node")) as server, connected(server.address) as stubs:
        yield stubs


def _writer(stubs: Stubs, name: str) -> tuple[Worker, int]:
    """A worker that writes a new session of its own name through an attachment of its own name; the epoch."""
    created(stubs, name)
    worker = Worker(stubs, name)
    assert worker.receive().WhichOneof("message") == "welcome"
    return worker, worker.open(name, name).epoch


def _put(stubs: Stubs, name: str, epoch: int, *blocks: int) -> None:
    requests = (put(name, epoch, block, block_data(block)) for block in blocks)
    for answer in stubs.blocks.PutBlocks(requests, timeout=TIMEOUT_S):
        assert answer.reason == "", answer.message


def test_a_greeting_is_answered_with_what_is_allowed(stubs: Stubs) -> None:
    """Proves that Welcome tells version and limits, and that no arena is accepted where none was offered."""
    worker = Worker(stubs, "greeting")
    welcome = worker.receive().welcome
    assert (welcome.protocol_version, welcome.arena_accepted) == (1, False)
    assert welcome.message_bytes_max == 8 * 1024 * 1024
    assert 0 < welcome.step_tokens_max <= welcome.credit_tokens
    worker.leave()


@pytest.mark.parametrize(
    ("first", "code", "reason"),
    [
        ({"hello": {"protocol_version": 2, "worker": "w"}}, "FAILED_PRECONDITION", "PROTOCOL_VERSION"),
        ({"hello": {"protocol_version": 1, "worker": ""}}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (
            {"hello": {"protocol_version": 1, "worker": "w", "arena": {"name": "../x"}}},
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        ({"steps": {}}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ({}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ],
)
def test_another_greeting_ends_the_stream(stubs: Stubs, first: dict[str, object], code: str, reason: str) -> None:
    """Proves that a wrong version, a nameless worker, a bad arena or no Hello at all is refused by its reason."""
    worker = Worker(stubs, "w", memory_pb2.AttachRequest(**first))
    with pytest.raises(grpc.RpcError) as raised:
        worker.receive()
    assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode[code], reason)


def test_a_second_greeting_ends_the_stream(stubs: Stubs) -> None:
    """Proves that a stream out of step ends with INVALID_ARGUMENT, even while its Welcome is being sent."""
    # The race that this once lost took about twenty tries to show.
    for _ in range(200):
        worker = Worker(stubs, "twice")
        worker.send(memory_pb2.AttachRequest(hello=memory_pb2.Hello(protocol_version=1, worker="twice")))
        assert worker.receive().WhichOneof("message") == "welcome"
        with pytest.raises(grpc.RpcError) as raised:
            worker.receive()
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        worker.hang_up()


def test_steps_are_acknowledged_in_order(stubs: Stubs) -> None:
    """Proves that each step of a batch gets its Ack, that SYNC is answered as SYNC, and that the session grew."""
    worker, epoch = _writer(stubs, "steps")
    durable = step("steps", epoch, 3, 128, durability=types_pb2.DURABILITY_SYNC)
    worker.steps(step("steps", epoch, 1, 0), step("steps", epoch, 2, 64))
    worker.steps(durable)
    acks = [worker.receive().ack for _ in range(3)]
    assert [ack.seq for ack in acks] == [1, 2, 3]
    assert acks[2].durability == types_pb2.DURABILITY_SYNC
    info = stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="steps"), timeout=TIMEOUT_S).session
    assert (info.tokens, info.writer, info.epoch) == (192, "steps", epoch)
    worker.leave()


def test_a_repeated_step_is_acknowledged_again_and_changes_nothing(stubs: Stubs) -> None:
    """Proves that resending after a reconnect is safe."""
    worker, epoch = _writer(stubs, "repeated")
    for _ in range(2):
        worker.steps(step("repeated", epoch, 1, 0))
        assert worker.receive().ack.seq == 1
    info = stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="repeated"), timeout=TIMEOUT_S).session
    assert info.tokens == 64
    worker.leave()


def test_a_step_that_fails_is_a_fault_and_the_stream_goes_on(stubs: Stubs) -> None:
    """Proves that each kind of bad step is one Fault by its reason, and that the right step after it is applied."""
    worker, epoch = _writer(stubs, "faults")
    rows = np.full((64, DIMS), np.nan, np.float32)
    bad = [
        (step("faults", epoch + 1, 1, 0), "STALE_EPOCH"),
        (step("faults", epoch, 1, 64), "POSITION_OUT_OF_ORDER"),
        (step("faults", epoch, 1, 0, embeddings={"probe": codec.encode(rows)}), "EMBEDDING_NOT_FINITE"),
        (step("unknown", epoch, 1, 0), "ATTACHMENT_NOT_FOUND"),
    ]
    worker.steps(*(one for one, _ in bad))
    faults = [worker.receive().fault for _ in bad]
    assert [fault.reason for fault in faults] == [reason for _, reason in bad]
    assert all(fault.seq == 1 and fault.message and "\n" not in fault.message for fault in faults)
    worker.steps(step("faults", epoch, 1, 0))
    assert worker.receive().ack.seq == 1
    worker.leave()


def test_a_step_one_token_too_long_is_refused(stubs: Stubs) -> None:
    """Proves the limit that Welcome tells."""
    created(stubs, "long")
    worker = Worker(stubs, "long")
    limit = worker.receive().welcome.step_tokens_max
    epoch = worker.open("long", "long").epoch
    worker.steps(step("long", epoch, 1, 0, count=limit + 1))
    assert worker.receive().fault.reason == "MESSAGE_TOO_LARGE"
    worker.steps(step("long", epoch, 1, 0, count=limit))
    assert worker.receive().ack.seq == 1
    worker.leave()


def test_a_batch_past_the_credit_is_refused_whole(stubs: Stubs) -> None:
    """Proves that credits bind: a batch of more tokens than may be on their way changes nothing."""
    created(stubs, "credit")
    worker = Worker(stubs, "credit")
    welcome = worker.receive().welcome
    epoch = worker.open("credit", "credit").epoch
    size = welcome.step_tokens_max
    count = welcome.credit_tokens // size + 1
    worker.steps(*(step("credit", epoch, 1 + at, at * size, count=size) for at in range(count)))
    assert [worker.receive().fault.reason for _ in range(count)] == ["MESSAGE_TOO_LARGE"] * count
    worker.steps(step("credit", epoch, 1, 0))
    assert worker.receive().ack.seq == 1
    worker.leave()


def test_a_recall_waits_for_its_blocks(stubs: Stubs) -> None:
    """Proves that the Ack comes at once, later steps are not held up, and the recall follows the last block's put."""
    worker, epoch = _writer(stubs, "waiting")
    worker.steps(*(step("waiting", epoch, 1 + at, 64 * at) for at in range(7)))
    worker.steps(step("waiting", epoch, 8, 448, recall=recall(blocks_through=4)))
    worker.steps(step("waiting", epoch, 9, 512))
    assert [worker.receive().ack.seq for _ in range(9)] == list(range(1, 10))
    _put(stubs, "waiting", epoch, 0, 2, 3)
    worker.steps(step("waiting", epoch, 10, 576))
    assert worker.receive().ack.seq == 10
    _put(stubs, "waiting", epoch, 1)
    answer = worker.receive().recall
    assert (answer.seq, answer.asked_at_position, answer.attachment) == (8, 511, "waiting")
    assert {one.block for one in answer.blocks} <= {1, 2, 3}
    assert answer.candidates == 3
    worker.leave()


def test_a_recall_waits_for_gaps_too(stubs: Stubs) -> None:
    """Proves that declaring the missing blocks as gaps in a later step releases the recall."""
    worker, epoch = _writer(stubs, "gaps")
    worker.steps(*(step("gaps", epoch, 1 + at, 64 * at) for at in range(3)))
    worker.steps(step("gaps", epoch, 4, 192, recall=recall(blocks_through=2)))
    worker.steps(step("gaps", epoch, 5, 256, block_gaps=[types_pb2.Range(first=0, count=2)]))
    kinds = [worker.receive() for _ in range(6)]
    assert [one.WhichOneof("message") for one in kinds] == ["ack"] * 5 + ["recall"]
    assert (kinds[5].recall.seq, kinds[5].recall.candidates) == (4, 0)
    worker.leave()


def test_a_recall_past_its_deadline_is_a_fault(stubs: Stubs) -> None:
    """Proves that a recall whose blocks never come is answered all the same, and that the stream goes on."""
    worker, epoch = _writer(stubs, "deadline")
    worker.steps(step("deadline", epoch, 1, 0), step("deadline", epoch, 2, 64, recall=recall(1, deadline_ms=50)))
    assert [worker.receive().ack.seq for _ in range(2)] == [1, 2]
    fault = worker.receive().fault
    assert (fault.seq, fault.reason) == (2, "DEADLINE_EXCEEDED")
    worker.steps(step("deadline", epoch, 3, 128))
    assert worker.receive().ack.seq == 3
    worker.leave()


def test_recalls_still_on_their_way_are_sent_before_the_stream_ends(stubs: Stubs) -> None:
    """Proves that a worker that has sent its last step still gets the recall that waits for a block."""
    worker, epoch = _writer(stubs, "last")
    worker.steps(step("last", epoch, 1, 0), step("last", epoch, 2, 64, recall=recall(1)))
    worker.hang_up()
    assert [worker.receive().ack.seq for _ in range(2)] == [1, 2]
    _put(stubs, "last", epoch, 0)
    assert [one.WhichOneof("message") for one in worker.responses] == ["recall"]


def test_a_session_opens_for_attached_workers_only(stubs: Stubs) -> None:
    """Proves that opening needs the worker's stream, before it came up and after it ended."""
    worker, _ = _writer(stubs, "attached")
    stranger = Worker(stubs, "attached-other")
    stranger.receive()
    stranger.leave()
    for name in ("attached-nobody", "attached-other"):
        with pytest.raises(grpc.RpcError) as raised:
            worker.open("attached", "another", worker=name, mode=session_pb2.OPEN_MODE_VIEW)
        assert (raised.value.code(), reason_of(raised.value)) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "WORKER_NOT_ATTACHED",
        )
    worker.leave()


def test_only_one_writer_at_a_time_and_the_next_after_it_left(stubs: Stubs) -> None:
    """Proves that a second writer is refused while the first one's stream is up, and taken with a new epoch after."""
    first, epoch = _writer(stubs, "single")
    second = Worker(stubs, "single-second")
    second.receive()
    with pytest.raises(grpc.RpcError) as raised:
        second.open("single", "single-second")
    assert reason_of(raised.value) == "SESSION_HAS_WRITER"
    first.leave()
    assert second.open("single", "single-second").epoch > epoch
    second.leave()


def test_a_writer_that_was_cut_off_resumes(stubs: Stubs) -> None:
    """Proves that after a reconnect with the same epoch everything acknowledged is still there."""
    worker, epoch = _writer(stubs, "resumed")
    worker.steps(step("resumed", epoch, 1, 0))
    worker.receive()
    worker.responses.cancel()
    again = Worker(stubs, "resumed")
    assert again.receive().WhichOneof("message") == "welcome"
    opened = again.open("resumed", "resumed", resume_epoch=epoch)
    assert (opened.epoch, opened.position, opened.applied_seq) == (epoch, 64, 1)
    again.steps(step("resumed", epoch, 2, 64))
    assert again.receive().ack.seq == 2
    again.leave()


def test_a_newer_stream_of_a_worker_ends_the_older_one(stubs: Stubs) -> None:
    """Proves that a reconnect does not wait for the server to notice that the old connection is dead."""
    older = Worker(stubs, "replaced")
    older.receive()
    newer = Worker(stubs, "replaced")
    assert newer.receive().WhichOneof("message") == "welcome"
    with pytest.raises(grpc.RpcError) as raised:
        older.receive()
    assert (raised.value.code(), reason_of(raised.value)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WORKER_REPLACED",
    )
    newer.leave()


def test_a_worker_cannot_write_through_anothers_attachment(stubs: Stubs) -> None:
    """Proves that an attachment belongs to the stream that opened it."""
    owner, epoch = _writer(stubs, "owner")
    thief = Worker(stubs, "thief")
    thief.receive()
    thief.steps(step("owner", epoch, 1, 0))
    assert thief.receive().fault.reason == "ATTACHMENT_NOT_FOUND"
    owner.leave()
    thief.leave()


def test_a_tail_is_saved_and_the_next_writer_starts_there(stubs: Stubs) -> None:
    """Proves that SaveTail refuses while a block is missing, and that a view and a new writer get the tail."""
    worker, epoch = _writer(stubs, "tail")
    worker.steps(step("tail", epoch, 1, 0))
    worker.receive()
    tail = session_pb2.Tail(version=1, position=64, last_id=63)
    request = session_pb2.SaveTailRequest(attachment="tail", epoch=epoch, tail=tail)
    with pytest.raises(grpc.RpcError) as raised:
        stubs.sessions.SaveTail(request, timeout=TIMEOUT_S)
    assert reason_of(raised.value) == "TAIL_INCOMPLETE"
    _put(stubs, "tail", epoch, 0)
    stubs.sessions.SaveTail(request, timeout=TIMEOUT_S)
    view = worker.open("tail", "tail-view", mode=session_pb2.OPEN_MODE_VIEW)
    assert (view.epoch, view.position, view.tail) == (0, 64, tail)
    stubs.sessions.CloseAttachment(session_pb2.CloseAttachmentRequest(attachment="tail-view"), timeout=TIMEOUT_S)
    stubs.sessions.CloseAttachment(session_pb2.CloseAttachmentRequest(attachment="tail"), timeout=TIMEOUT_S)
    assert worker.open("tail", "tail-next").tail == tail
    stubs.blocks.GetBlocks(block_pb2.GetBlocksRequest(attachment="tail-next", blocks=[0]), timeout=TIMEOUT_S)
    worker.leave()
