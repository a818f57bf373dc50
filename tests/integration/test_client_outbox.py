"""What the client hands over: credit, room, gaps, and what it refuses to send. Against a scripted scripted."""

import threading
import time

import numpy as np
import pytest

from attn_client.errors import MemoryUnavailable, UnsupportedCall
from attn_client.memory import MemoryClient, StepRecord
from protos import codec
from protos.memsvc.v1 import session_pb2, types_pb2
from tests.integration.client_records import (
    ASK,
    DIMS,
    LONG_S,
    STEP_TOKENS,
    THREE_STEPS_BYTES,
    block_of,
    record,
    settings,
    settle,
    until_empty,
    writer,
)
from tests.integration.scripted_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_no_more_tokens_are_sent_than_there_is_credit(scripted: ScriptedServer) -> None:
    """Proves that without acks exactly the credit goes out, and the rest once they come."""
    scripted.script.acking = False
    scripted.script.welcome.credit_tokens = 200
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        for first in range(0, 640, 64):
            assert session.append(record(first), wait=True) is not None
        scripted.wait_for(lambda: len(scripted.steps) == 3)
        scripted.release_acks()
        scripted.wait_for(lambda: len(scripted.steps) == 10)
        # Each step beyond the third needed the ack of one before it, or it would have come before the release.
        assert [step.seq for step in scripted.steps] == list(range(1, 11))
        settle(session, 640)
        assert session.degraded_reasons == ()


def test_decoding_drops_when_the_outbox_is_full_and_declares_the_gap(scripted: ScriptedServer) -> None:
    """Proves that append without wait never blocks, and that the next step says what is missing before it."""
    scripted.script.acking = False
    with MemoryClient(scripted.address, settings(outbox_bytes_max=THREE_STEPS_BYTES)) as client:
        session = writer(client)
        first, taken = 0, []
        while len(taken) < 12:
            taken.append(session.append(record(first, STEP_TOKENS), wait=False))
            first += STEP_TOKENS
        assert taken[:3] == [1, 2, 3]
        assert set(taken[3:]) == {None}
        assert 0 < session.stats.outbox_bytes <= THREE_STEPS_BYTES
        scripted.wait_for(lambda: len(scripted.steps) == 3)
        scripted.release_acks()
        assert session.append(record(first, STEP_TOKENS), wait=True) == 4
        scripted.wait_for(lambda: len(scripted.steps) == 4)
        dropped = 9 * STEP_TOKENS
        assert (scripted.steps[3].gap_tokens, scripted.steps[3].first_position) == (dropped, first)
        assert session.stats.token_gaps == ((3 * STEP_TOKENS, dropped),)
        assert f"{dropped} tokens" in session.degraded_reasons[0]


def test_reading_waits_for_room_and_drops_nothing(scripted: ScriptedServer) -> None:
    """Proves that append with wait blocks while the outbox is full, and goes on at the first ack."""
    scripted.script.acking = False
    with MemoryClient(scripted.address, settings(outbox_bytes_max=THREE_STEPS_BYTES)) as client:
        session = writer(client)
        done = threading.Event()

        def read() -> None:
            for first in range(0, 8 * STEP_TOKENS, STEP_TOKENS):
                session.append(record(first, STEP_TOKENS), wait=True)
            done.set()

        reader = threading.Thread(target=read)
        reader.start()
        scripted.wait_for(lambda: len(scripted.steps) == 3)
        assert not done.is_set()
        scripted.release_acks()
        assert done.wait(LONG_S)
        reader.join()
        scripted.wait_for(lambda: len(scripted.steps) == 8)
        assert session.stats.outbox_bytes_peak <= THREE_STEPS_BYTES
        assert session.stats.token_gaps == ()


def test_a_stalled_server_ends_the_wait_with_an_error(scripted: ScriptedServer) -> None:
    """Proves that reading is bounded too: nothing acknowledged for the stall timeout is MemoryUnavailable."""
    scripted.script.acking = False
    short = settings(outbox_bytes_max=THREE_STEPS_BYTES, stall_timeout_s=0.2)
    with MemoryClient(scripted.address, short) as client:
        session = writer(client)
        for first in range(0, 3 * STEP_TOKENS, STEP_TOKENS):
            session.append(record(first, STEP_TOKENS), wait=True)
        began = time.monotonic()
        with pytest.raises(MemoryUnavailable, match=r"no acknowledgement for 0\.2 s"):
            session.append(record(3 * STEP_TOKENS, STEP_TOKENS), wait=True)
        assert time.monotonic() - began >= 0.2


def test_blocks_of_dropped_tokens_never_keep_the_next_step_out(scripted: ScriptedServer) -> None:
    """Proves that an outbox full of blocks whose tokens were dropped empties by itself: the gap is declared."""
    scripted.script.acking = False
    with MemoryClient(scripted.address, settings(outbox_bytes_max=1 << 16)) as client:
        session = writer(client)
        first = 0
        while session.append(record(first, 256), wait=False) is not None:
            first += 256
        scripted.wait_for(lambda: len(scripted.steps) == first // 256)
        scripted.release_acks()
        until_empty(session)
        # Their tokens were dropped, and there is room for nothing but them.
        for block in range(first // 64, first // 64 + 4):
            session.put_block(block, block_of(block), wait=True)
        until_empty(session)
        assert session.append(record(first + 256), wait=False) is not None
        settle(session, first + 320)
        assert sum(step.gap_tokens for step in scripted.steps) == 256
        assert sorted(scripted.blocks) == list(range(first // 64, first // 64 + 4))


def test_long_records_are_split_to_what_the_server_takes(scripted: ScriptedServer) -> None:
    """Proves that parts follow each other, keep every row, and that only the last one asks."""
    scripted.script.welcome.step_tokens_max = 100
    # 4 bytes an id, 4 a signal, 4 a dimension: 72 a token; 50 of them and the overhead fit.
    scripted.script.welcome.message_bytes_max = 1024 + 50 * (8 + 4 * DIMS)
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        whole = record(0, 170, ASK)
        assert session.append(whole, wait=True) == 4
        assert session.recall(4, LONG_S) is not None
        assert [(step.first_position, step.count) for step in scripted.steps] == [
            (0, 50),
            (50, 50),
            (100, 50),
            (150, 20),
        ]
        assert [step.HasField("recall") for step in scripted.steps] == [False, False, False, True]
        assert b"".join(step.ids for step in scripted.steps) == whole.ids.tobytes()
        rows = np.concatenate([codec.decode(step.embeddings["probe"]) for step in scripted.steps])
        assert np.array_equal(rows, whole.embeddings["probe"])
        assert max(step.ByteSize() for step in scripted.steps) <= scripted.script.welcome.message_bytes_max


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (record(64), "position 0, got one at 64"),
        (record(0, 0), "1 or more tokens"),
        (
            StepRecord(0, np.zeros(2, np.uint32), {"probe": np.zeros((3, 4), np.float32)}, {}, (0, 0), None),
            "'probe': 3",
        ),
        (StepRecord(0, np.zeros(2, np.uint32), {"probe": np.zeros((2, 4))}, {}, (0, 0), None), "float64"),
    ],
)
def test_a_record_that_cannot_be_sent_is_refused_before_it_is(
    bad: StepRecord, says: str, scripted: ScriptedServer
) -> None:
    """Proves that a caller's mistake is told to the caller, and costs the session nothing."""
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        with pytest.raises(UnsupportedCall, match=says):
            session.append(bad, wait=True)
        assert session.append(record(0), wait=True) == 1
        assert session.degraded_reasons == ()


def test_a_view_neither_puts_nor_saves(scripted: ScriptedServer) -> None:
    """Proves that what a view may not do is refused on this side."""
    scripted.script.tail = session_pb2.Tail(version=1, position=0)
    with MemoryClient(scripted.address, settings()) as client:
        view = client.open_view("s", types_pb2.Fingerprint())
        assert view.read_only
        assert view.tail == scripted.script.tail
        with pytest.raises(UnsupportedCall, match="view"):
            view.put_block(0, block_of(0), wait=True)
        with pytest.raises(UnsupportedCall, match="view"):
            view.save_tail(0, None, None, None)


def test_closing_a_session_frees_its_room_and_tells_the_server(scripted: ScriptedServer) -> None:
    """Proves that what a closed session had on its way is given up, and that closing twice is closing once."""
    scripted.script.acking = False
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0), wait=True)
        scripted.wait_for(lambda: len(scripted.steps) == 1)
        session.close()
        session.close()
        assert session.stats.outbox_bytes == 0
        assert scripted.closed == [scripted.opened[0].attachment]
        assert session.recall(1, LONG_S) is None
        assert session.append(record(64), wait=True) is None
