"""Connections that break, drain, change or never were. Against a scripted scripted."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2

from attn_client.errors import MemoryProtocol, MemoryRefused, MemoryUnavailable
from attn_client.memory import MemoryClient
from attn_client.memory.tails import RETRY_PAUSE_S
from protos.memsvc.v1 import types_pb2
from tests.integration.client_records import (
    ASK,
    LONG_S,
    block_of,
    record,
    settings,
    settle,
    until_empty,
    until_lost,
    writer,
)
from tests.integration.scripted_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_a_broken_stream_sends_again_what_was_not_applied_and_nothing_else(scripted: ScriptedServer) -> None:
    """Proves that applied steps whose acks were lost are not sent twice, and the rest follow in order."""
    scripted.script.acking = False
    scripted.script.welcome.credit_tokens = 128
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        for first in range(0, 320, 64):
            session.append(record(first), wait=True)
        scripted.wait_for(lambda: len(scripted.steps) == 2)
        # Both are applied, and their acks never come.
        scripted.script.acking = True
        scripted.break_streams()
        settle(session, 320)
        assert [step.seq for step in scripted.steps] == [1, 2, 3, 4, 5]
        assert [one.resume_epoch for one in scripted.opened] == [0, 7]
        assert session.degraded_reasons == ()


def test_a_recall_that_a_broken_stream_took_along_is_not_waited_for(scripted: ScriptedServer) -> None:
    """Proves that an answer to an applied step, which nobody will send again, is given up with its connection."""
    scripted.script.recalling = False
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        seq = session.append(record(0, ask=ASK), wait=True)
        assert seq is not None
        until_empty(session)
        scripted.script.recalling = True
        scripted.break_streams()
        scripted.wait_for(lambda: len(scripted.opened) == 2)
        settle(session, 64)
        began = time.monotonic()
        assert session.recall(seq, LONG_S) is None
        assert time.monotonic() - began < LONG_S / 2
        second = session.append(record(64, ask=ASK), wait=True)
        assert second is not None
        assert session.recall(second, LONG_S) is not None


def test_a_server_that_is_away_loses_nothing_that_fits_the_outbox(scripted: ScriptedServer) -> None:
    """Proves that appends and puts go on while there is no server, and all of it arrives after its start."""
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0), wait=True)
        scripted.wait_for(lambda: len(scripted.steps) == 1)
        scripted.stop()
        for first in range(64, 320, 64):
            assert session.append(record(first), wait=False) is not None
            session.put_block(first // 64, block_of(first // 64), wait=False)
        assert session.recall(1, LONG_S) is None
        scripted.start()
        settle(session, 320)
        assert [step.seq for step in scripted.steps] == [1, 2, 3, 4, 5]
        assert scripted.blocks == {block: block_of(block).tobytes() for block in range(1, 5)}
        assert session.degraded_reasons == ()


def test_a_session_closed_while_it_is_resumed_does_not_stay_open(scripted: ScriptedServer) -> None:
    """Proves that a server that resumes a session after its close was told is told again."""
    scripted.script.replay_s = 0.2
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        scripted.break_streams()
        scripted.wait_for(lambda: len(scripted.opened) == 2)
        session.close()
        # Once by the close itself, which may have come too early, and once after the session was resumed.
        scripted.wait_for(lambda: len(scripted.closed) == 2)


def test_a_draining_server_gets_no_new_step_and_loses_none(scripted: ScriptedServer) -> None:
    """Proves that on Drain the client waits for what is in flight, leaves, comes back and goes on."""
    scripted.script.acking = False
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0, ask=ASK), wait=True)
        scripted.wait_for(lambda: len(scripted.steps) == 1)
        scripted.say(drain={"grace_ms": 60_000})
        # The step in flight is still awaited; its answers still come.
        assert scripted.half_closed == 0
        scripted.release_acks()
        assert session.recall(1, LONG_S) is not None
        scripted.wait_for(lambda: scripted.half_closed == 1)
        session.append(record(64), wait=True)
        settle(session, 128)
        assert [step.seq for step in scripted.steps] == [1, 2]
        assert len(scripted.opened) == 2


def test_a_tail_outlives_a_restart_whose_replay_takes_long(scripted: ScriptedServer) -> None:
    """Proves that a tail waits until its session is resumed: before that the restarted server does not know it."""
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0), wait=True)
        settle(session, 64)
        scripted.stop()
        scripted.script.replay_s = 2 * RETRY_PAUSE_S
        with ThreadPoolExecutor(1) as pool:
            saving = pool.submit(settle, session, 64)
            scripted.start()
            saving.result(LONG_S)
        assert [tail.position for tail in scripted.tails] == [64, 64]


def test_a_draining_server_still_gets_the_blocks_that_its_recalls_wait_for(scripted: ScriptedServer) -> None:
    """Proves that a recall is awaited before leaving: otherwise server and client wait for each other until the end."""
    scripted.script.recalling = False
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        seq = session.append(record(0, ask=ASK), wait=True)
        assert seq is not None
        until_empty(session)
        scripted.say(drain={"grace_ms": 60_000})
        with client._link.changed:
            assert client._link.changed.wait_for(lambda: client._link.draining or not client._link.up, LONG_S)
        session.put_block(0, block_of(0), wait=True)
        scripted.wait_for(lambda: 0 in scripted.blocks)
        assert scripted.half_closed == 0
        scripted.say(recall={"attachment": scripted.steps[0].attachment, "seq": 1, "asked_at_position": 63})
        assert session.recall(seq, LONG_S) is not None
        scripted.wait_for(lambda: scripted.half_closed == 1)


def test_a_writer_that_was_replaced_reads_on_without_memory(scripted: ScriptedServer) -> None:
    """Proves that a stale epoch at the reconnect loses the session in words, and never raises while reading."""
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0), wait=True)
        settle(session, 64)
        scripted.script.resume_refusal = (code_pb2.ABORTED, "STALE_EPOCH")
        scripted.break_streams()
        scripted.wait_for(lambda: len(scripted.opened) == 2)
        with pytest.raises(MemoryRefused) as refused:
            until_lost(session)
        assert refused.value.reason == "STALE_EPOCH"
        assert session.append(record(64), wait=True) is None
        session.put_block(0, block_of(0), wait=True)
        assert session.stats.outbox_bytes == 0


def test_a_view_is_opened_again_and_says_that_its_trail_began_anew(scripted: ScriptedServer) -> None:
    """Proves that a view outlives a broken stream, its private tokens declared as a gap under new numbers."""
    scripted.position = 640
    with MemoryClient(scripted.address, settings()) as client:
        view = client.open_view("s", types_pb2.Fingerprint())
        assert view.append(record(640, ask=ASK), wait=True) == 1
        assert view.recall(1, LONG_S) is not None
        assert scripted.steps[0].recall.blocks_through == 0
        scripted.applied_seq, scripted.position = 0, 640
        scripted.break_streams()
        scripted.wait_for(lambda: len(scripted.opened) == 2)
        seq = view.append(record(704, ask=ASK), wait=True)
        assert seq == 2
        scripted.wait_for(lambda: len(scripted.steps) == 2)
        assert (scripted.steps[1].seq, scripted.steps[1].gap_tokens) == (1, 64)
        assert view.recall(seq, LONG_S) is not None
        assert "opened again" in " ".join(view.degraded_reasons)


def test_a_view_of_a_session_that_went_on_is_over(scripted: ScriptedServer) -> None:
    """Proves that a view is not opened again on another cut than its own: what it read does not follow from there."""
    scripted.position = 640
    with MemoryClient(scripted.address, settings()) as client:
        view = client.open_view("s", types_pb2.Fingerprint())
        view.append(record(640), wait=True)
        scripted.wait_for(lambda: len(scripted.steps) == 1)
        scripted.applied_seq, scripted.position = 0, 660
        scripted.break_streams()
        scripted.wait_for(lambda: len(scripted.opened) == 2)
        with pytest.raises(MemoryUnavailable, match="newer tail at 660"):
            until_lost(view)


def test_a_client_closes_while_its_server_hangs(scripted: ScriptedServer) -> None:
    """Proves that closing waits for no answer that does not come."""
    scripted.script.acking = False
    scripted.script.welcome.arena_accepted = True
    client = MemoryClient(scripted.address, settings(arena_bytes=1 << 20))
    session = writer(client)
    session.append(record(0), wait=True)
    session.put_block(0, block_of(0), wait=True)
    scripted.wait_for(lambda: len(scripted.steps) == 1)
    client.close()
    client.close()


def test_nobody_there_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """Proves the error of a wrong address, within its timeout, and that threads and arena are gone after it."""
    began = time.monotonic()
    with pytest.raises(MemoryUnavailable, match=r"^[^\n]*nobody\.sock within 0\.3 s[^\n]*$"):
        MemoryClient(f"unix://{tmp_path}/nobody.sock", settings(connect_timeout_s=0.3, arena_bytes=1 << 20))
    assert time.monotonic() - began >= 0.3


def test_a_server_of_another_version_is_told_at_once(scripted: ScriptedServer) -> None:
    """Proves that another protocol version is no reason to wait or to try again."""
    scripted.script.welcome.protocol_version = 2
    with pytest.raises(MemoryProtocol, match=r"expected protocol version 1 .* got 2"):
        MemoryClient(scripted.address, settings(connect_timeout_s=LONG_S))
    assert scripted.opened == []


def test_a_grpc_server_of_another_kind_is_told_at_once(tmp_path: Path) -> None:
    """Proves that an address where somebody else answers is MemoryProtocol."""
    other = grpc.server(ThreadPoolExecutor(2))
    other.add_insecure_port(f"unix://{tmp_path}/other.sock")
    other.start()
    try:
        with pytest.raises(MemoryProtocol, match="does not know how"):
            MemoryClient(f"unix://{tmp_path}/other.sock", settings(connect_timeout_s=LONG_S))
    finally:
        other.stop(None).wait()


def test_a_server_of_another_version_after_a_restart_ends_the_sessions_in_words(scripted: ScriptedServer) -> None:
    """Proves that an upgrade under a running client is told, and stops the reconnecting."""
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        scripted.script.welcome.protocol_version = 2
        scripted.break_streams()
        with pytest.raises(MemoryProtocol, match="got 2"):
            until_lost(session)
        with pytest.raises(MemoryProtocol, match="got 2"):
            writer(client)
