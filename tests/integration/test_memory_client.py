"""The memory client and the real server, which is stopped, killed, restarted and lost under it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attn_client.embedded import EmbeddedServer
from attn_client.errors import MemoryRefused, MemoryUnavailable
from attn_client.memory import ClientSettings, MemoryClient, MemorySession, RecallAnswer, RecallAsk, StepRecord
from attn_client.memory.session import CLOSE_TIMEOUT_S
from protos import codec
from protos.memsvc.v1 import types_pb2
from tests.integration.server_process import BLOCK_BYTES, DIMS, served, spec

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

ASK = RecallAsk(top_blocks=2, neighbours=1, budget_blocks=4, deadline_ms=20_000)
LONG_S = 30.0
BLOCKS = 12
QUICK = ClientSettings(reconnect_max_s=0.1)
OWNER = """
import sys
from attn_client.memory import MemoryClient
client = MemoryClient(sys.argv[1])
print(client._link.arena.name, flush=True)
sys.stdin.read()
"""


def _record(first: int, tokens: int = 64, ask: RecallAsk | None = None) -> StepRecord:
    rows = np.random.default_rng(first // 64 % 5).standard_normal((tokens, DIMS)).astype(np.float32)
    window = max(0, (first + tokens - 64) // 64 * 64)
    ids = np.arange(first, first + tokens, dtype=np.uint32)
    return StepRecord(first, ids, {"probe": rows}, {}, (window, first + tokens - window), ask)


def _data(block: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.random.default_rng(block).integers(0, 256, BLOCK_BYTES, dtype=np.uint8)


def _writer(client: MemoryClient) -> MemorySession:
    client.create_session("notes", spec())
    return client.open_writer("notes", spec().fingerprint)


def _read(session: MemorySession, first_block: int, blocks: int, *, wait: bool = True) -> None:
    """Read whole blocks."""
    for block in range(first_block, first_block + blocks):
        session.append(_record(64 * block), wait=wait)
        session.put_block(block, _data(block), wait=wait)


def _asked(session: MemorySession, first: int) -> RecallAnswer:
    seq = session.append(_record(first, ask=ASK), wait=True)
    assert seq is not None
    answer = session.recall(seq, LONG_S)
    assert answer is not None
    return answer


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that the tests of this module share; each makes its sessions anew."""
    with EmbeddedServer(None) as server:
        yield server.address


@pytest.fixture
def clean(address: str) -> Iterator[str]:
    """The shared server, without the session afterwards."""
    yield address
    with MemoryClient(address, QUICK) as client:
        client.delete_session("notes")


@pytest.mark.parametrize("arena_bytes", [0, 1 << 20])
def test_what_a_writer_hands_over_comes_back_to_a_view(clean: str, arena_bytes: int) -> None:
    """Proves the whole way, blocks in messages and by shared memory: steps, tail, view, and the same recall twice."""
    with MemoryClient(clean, ClientSettings(arena_bytes=arena_bytes)) as client:
        assert client.shares_memory == bool(arena_bytes)
        session = _writer(client)
        assert (session.tail, session.position, session.read_only) == (None, 0, False)
        _read(session, 0, BLOCKS)
        session.append(_record(64 * BLOCKS, 10), wait=True)
        position = 64 * BLOCKS + 10
        logits = np.arange(7, dtype=np.float32)
        session.save_tail(position, logits, position - 1, _data(BLOCKS))
        assert session.stats.outbox_bytes == 0
        session.close()
        answers = []
        for _ in range(2):
            view = client.open_view("notes", spec().fingerprint)
            assert view.tail is not None
            assert (view.position, view.tail.last_id) == (position, position - 1)
            assert np.array_equal(codec.decode(view.tail.logits), logits)
            answers.append(_asked(view, position))
            blocks = view.fetch_blocks([one.block for one in answers[0].blocks] + [0, BLOCKS], LONG_S)
            assert all(np.array_equal(data, _data(block)) for block, data in blocks.items())
            view.close()
        assert answers[0].blocks
        assert answers[0] == answers[1]
        assert answers[0].asked_at == position + 63


def test_everything_a_person_can_ask_about_a_session(clean: str) -> None:
    """Proves the reading calls against a session whose tokens and bookmarks are known."""
    with MemoryClient(clean, QUICK) as client:
        session = _writer(client)
        _read(session, 0, 4)
        answer = _asked(session, 256)
        assert [info.name for info in client.list_sessions()] == ["notes"]
        assert client.get_session("notes").tokens == 320
        listed = client.list_bookmarks("notes", 10, 5)
        assert ([one.index for one in listed.bookmarks], listed.total) == ([10, 11, 12, 13, 14], 320)
        assert 0 in [one.index for one in client.graph("notes", [0], 1, 100)]
        positions, ids = client.read_tokens("notes", 60, 10)
        assert positions.tolist() == ids.tolist() == list(range(60, 70))
        explained = client.explain("notes")
        assert [one.block.block for one in explained.chosen] == [one.block for one in answer.blocks]
        assert client.explain("notes", answer.asked_at) == explained
        with pytest.raises(MemoryRefused) as refused:
            client.explain("notes", 1)
        assert refused.value.reason == "RECALL_NOT_FOUND"


def test_refusals_carry_the_servers_own_word(clean: str) -> None:
    """Proves that a second writer, another model and a missing session are told apart by a program."""
    with MemoryClient(clean, QUICK) as client:
        session = _writer(client)
        with MemoryClient(clean, QUICK) as other, pytest.raises(MemoryRefused, match="writer") as refused:
            other.open_writer("notes", spec().fingerprint)
        assert refused.value.reason == "SESSION_HAS_WRITER"
        another = types_pb2.Fingerprint()
        another.CopyFrom(spec().fingerprint)
        another.window_tokens = 128
        with pytest.raises(MemoryRefused, match="window_tokens") as refused:
            client.open_view("notes", another)
        assert refused.value.reason == "FINGERPRINT_MISMATCH"
        with pytest.raises(MemoryRefused) as refused:
            client.get_session("nowhere")
        assert refused.value.reason == "SESSION_NOT_FOUND"
        session.close()
        _writer(client).close()


def test_gaps_that_nothing_follows_still_allow_a_tail(clean: str) -> None:
    """Proves that tokens and a block dropped at the very end are declared, and that the tail holds without them."""
    with MemoryClient(clean, ClientSettings(outbox_bytes_max=1 << 16, arena_bytes=0)) as client:
        session = _writer(client)
        _read(session, 0, 2)
        session.save_tail(128, None, None, None)
        # Tokens that no outbox has room for beside anything else.
        with session._link.changed:
            assert session._link.outbox.admit(1 << 16)
        assert session.append(_record(128), wait=False) is None
        session.put_block(2, _data(2), wait=False)
        with session._link.changed:
            session._link.outbox.release(1 << 16)
        session.save_tail(192, None, None, None)
        info = client.get_session("notes")
        assert [(gap.first, gap.count) for gap in info.token_gaps] == [(128, 64)]
        assert [(gap.first, gap.count) for gap in info.block_gaps] == [(2, 1)]
        assert info.tail_position == 192
        _read(session, 3, 1)
        session.save_tail(256, None, None, None)
        assert len(session.degraded_reasons) == 2


def test_a_server_killed_while_reading_loses_nothing(tmp_path: Path) -> None:
    """Proves kill -9 and restart under a writer: it goes on in its epoch, and every token and block is there."""
    reading, killed = threading.Event(), threading.Event()
    with served(tmp_path) as first, MemoryClient(first.address, QUICK) as client:
        session = _writer(client)

        def kill() -> None:
            reading.wait()
            first.process.kill()
            killed.set()

        killer = threading.Thread(target=kill)
        killer.start()
        _read(session, 0, 8)
        reading.set()
        _read(session, 8, 16)
        killed.wait()
        killer.join()
        with served(tmp_path):
            _read(session, 24, 8)
            session.save_tail(64 * 32, None, None, None)
            info = client.get_session("notes")
            assert (info.tokens, info.tail_position, info.blocks) == (64 * 32, 64 * 32, 32)
            assert (list(info.token_gaps), list(info.block_gaps)) == ([], [])
            assert session.degraded_reasons == ()
            assert all(np.array_equal(data, _data(b)) for b, data in session.fetch_blocks(range(32), LONG_S).items())


def test_a_stopped_server_costs_one_timeout_and_comes_back(tmp_path: Path) -> None:
    """Proves for SIGSTOP that decoding waits once, then not at all, and that memory serves again after SIGCONT."""
    with served(tmp_path) as server, MemoryClient(server.address, QUICK) as client:
        session = _writer(client)
        _read(session, 0, BLOCKS)
        first = 64 * BLOCKS
        _asked(session, first)
        with _stopped(server.process.pid):
            began = time.monotonic()
            seqs = []
            for token in range(20):
                seqs.append(session.append(_record(first + 64 + token, 1, ASK), wait=False))
                seq = seqs[-1]
                assert seq is not None
                assert session.recall(seq, 0.2) is None
            # One wait of 0.2 s; each of the others would have been as long.
            assert time.monotonic() - began < 10 * 0.2
        session.put_block(BLOCKS, _data(BLOCKS), wait=True)
        session.save_tail(first + 84, None, None, _data(BLOCKS + 1))
        assert _asked(session, first + 84).blocks
        assert session.degraded_reasons == ()


@pytest.mark.parametrize("connected", [True, False])
def test_a_client_closes_beside_a_stopped_server(tmp_path: Path, connected: bool) -> None:
    """Proves that closing waits for nobody: neither while attached nor while coming back."""
    with served(tmp_path) as server:
        client = MemoryClient(server.address, QUICK)
        sessions = [_writer(client), *(client.open_view("notes", spec().fingerprint) for _ in range(3))]
        _read(sessions[0], 0, 4)
        with _stopped(server.process.pid):
            if not connected:
                with client._link.changed:
                    client._stream._connection.end()
                    client._link.changed.wait_for(lambda: not client._link.up, LONG_S)
            began = time.monotonic()
            client.close()
            # The courtesy of one close, once, and then the joins.
            assert time.monotonic() - began < 2 * CLOSE_TIMEOUT_S
            with pytest.raises(MemoryUnavailable, match="closed"):
                client.list_sessions()


@pytest.mark.parametrize("known_not_to_answer", [True, False])
def test_a_session_closed_beside_a_stopped_server_is_free_once_that_goes_on(
    tmp_path: Path, known_not_to_answer: bool
) -> None:
    """Proves that the server hears of the end when it can, so that others may write while the client is still there."""
    with served(tmp_path) as server, MemoryClient(server.address, QUICK) as client:
        session = _writer(client)
        with _stopped(server.process.pid):
            if known_not_to_answer:
                seq = session.append(_record(0, ask=ASK), wait=True)
                assert seq is not None
                assert session.recall(seq, 0.1) is None
            session.close()
        deadline = time.monotonic() + LONG_S
        while client.get_session("notes").writer and time.monotonic() < deadline:
            pass
        assert client.get_session("notes").writer == ""
        _writer(client).close()


def test_a_server_that_is_gone_for_good_never_stops_the_decode_loop(tmp_path: Path) -> None:
    """Proves that with the server dead and not coming back, steps drop, recalls are None at once, and both are told."""
    settings = ClientSettings(reconnect_max_s=0.1, outbox_bytes_max=1 << 16, arena_bytes=0, stall_timeout_s=0.3)
    with served(tmp_path) as server, MemoryClient(server.address, settings) as client:
        session = _writer(client)
        _read(session, 0, 4)
        session.save_tail(256, None, None, None)
        server.process.kill()
        server.process.wait()
        began = time.monotonic()
        for token in range(200):
            seq = session.append(_record(256 + token, 1, ASK), wait=False)
            if seq is not None:
                assert session.recall(seq, LONG_S) is None
        assert time.monotonic() - began < LONG_S / 2
        assert session.stats.outbox_bytes <= 1 << 16
        assert "tokens are missing" in " ".join(session.degraded_reasons)
        with pytest.raises(MemoryUnavailable):
            session.fetch_blocks([0], LONG_S)
        with pytest.raises(MemoryUnavailable, match=r"no acknowledgement for 0\.3 s"):
            session.save_tail(456, None, None, _data(7))


def test_a_server_that_drains_is_left_and_found_again(tmp_path: Path) -> None:
    """Proves SIGTERM and a restart under a writer: a clean end, nothing lost, the same epoch."""
    with served(tmp_path) as first, MemoryClient(first.address, QUICK) as client:
        session = _writer(client)
        _read(session, 0, 8)
        assert first.stop() == 0
        _read(session, 8, 8)
        with served(tmp_path):
            session.save_tail(64 * 16, None, None, None)
            assert client.get_session("notes").blocks == 16
            assert session.degraded_reasons == ()


def test_a_session_that_another_took_over_is_lost_and_says_so(tmp_path: Path) -> None:
    """Proves fencing: a writer that was away while another opened hears STALE_EPOCH and reads on without memory."""
    with served(tmp_path) as server, MemoryClient(server.address, QUICK) as client:
        session = _writer(client)
        _read(session, 0, 2)
        session.save_tail(128, None, None, None)
        # Away: the client's stream is gone, and it does not come back before the other has opened.
        with client._opening:
            session._link.changed.acquire()
            client._stream._connection.end()
            session._link.changed.release()
            with MemoryClient(server.address, QUICK) as other:
                _opened_at_last(other).close()
        assert session.append(_record(128), wait=True) in (3, None)
        with pytest.raises(MemoryRefused) as refused:
            session.save_tail(192, None, None, None)
        assert refused.value.reason == "STALE_EPOCH"
        assert session.append(_record(192), wait=True) is None


def _opened_at_last(client: MemoryClient) -> MemorySession:
    """The session for writing, once the server has noticed that its writer is away."""
    deadline = time.monotonic() + LONG_S
    while True:
        try:
            return client.open_writer("notes", spec().fingerprint)
        except MemoryRefused:
            assert time.monotonic() < deadline


def test_a_view_goes_on_after_its_server_was_killed(tmp_path: Path) -> None:
    """Proves that asking outlives a restart: the same tail, and recalls from the tokens read since."""
    with served(tmp_path) as first, MemoryClient(first.address, QUICK) as client:
        session = _writer(client)
        _read(session, 0, BLOCKS)
        session.save_tail(64 * BLOCKS, None, None, None)
        session.close()
        view = client.open_view("notes", spec().fingerprint)
        _asked(view, 64 * BLOCKS)
        first.process.kill()
        first.process.wait()
        with served(tmp_path):
            with client._link.changed:
                assert client._link.changed.wait_for(lambda: client._link.up and client._link.generation == 2, LONG_S)
            view.append(_record(64 * BLOCKS + 64), wait=True)
            answer = _asked(view, 64 * BLOCKS + 128)
            assert answer.blocks
            assert view.fetch_blocks([0], LONG_S)[0].tobytes() == _data(0).tobytes()
            assert "opened again" in " ".join(view.degraded_reasons)


def test_several_sessions_share_one_connection(clean: str) -> None:
    """Proves that rows of a batch, each with a session of its own, get their own answers over one stream."""
    with MemoryClient(clean, QUICK) as client:
        session = _writer(client)
        _read(session, 0, BLOCKS)
        session.save_tail(64 * BLOCKS, None, None, None)
        views = [client.open_view("notes", spec().fingerprint) for _ in range(4)]
        seqs = [view.append(_record(64 * BLOCKS, 16 + row, ASK), wait=False) for row, view in enumerate(views)]
        for row, (view, seq) in enumerate(zip(views, seqs, strict=True)):
            assert seq is not None
            answer = view.recall(seq, LONG_S)
            assert answer is not None
            assert answer.asked_at == 64 * BLOCKS + 15 + row


def test_the_arena_of_a_killed_client_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """Proves that shared memory does not pile up when clients die."""
    with served(tmp_path) as server:
        command = [sys.executable, "-c", OWNER, server.address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            name = child.stdout.readline().strip()
            assert name.startswith(f"attn-{child.pid}-")
            # Asked while its owner lives: after that any client on the machine may remove it.
            assert (Path("/dev/shm") / name).exists()
            child.kill()
        MemoryClient(server.address, QUICK).close()
        assert not (Path("/dev/shm") / name).exists()
