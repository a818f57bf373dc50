"""Real servers on one real Redis: appends go on while Redis is in trouble, and a writer whose node hung writes nothing.

The many cycles of the long run are behind `make test-crash`.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from protos.memsvc.v1 import session_pb2
from tests.crash.volume import volume
from tests.integration.server_process import (
    TIMEOUT_S,
    ServerProcess,
    Stubs,
    Worker,
    connected,
    created,
    reason_of,
    served,
    step,
)
from tests.redis_process import PREFIX, RedisProcess, needs_redis

pytestmark = needs_redis

# Longer, with a third gone since the last renewal, than the stall and the call that waits at its end.
LEASE_MS = 8_000
STALL_S = 2.0
# What another node waits for before it takes over.
SHORT_LEASE_MS = 2_000
# Steps that must be acknowledged while Redis is in trouble, or the cycle shows nothing.
STEPS_MIN = 5


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis that is up when a test begins."""
    process = RedisProcess(tmp_path / "redis")
    yield process
    process.kill()


class _Writer:
    """Session `written` of a server, and the next step of its writer."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs
        created(stubs, "written")
        self._worker: Worker | None = None
        self._openings = 0
        self.epoch = 0

    def open(self) -> None:
        """Another writer after the last, on a stream of its own; there is no tail, so it begins at 0."""
        self.leave()
        self._worker = Worker(self._stubs, "writer")
        self._worker.receive()
        self._openings += 1
        opened = self._worker.open("written", f"at-{self._openings}")
        assert opened.epoch > self.epoch
        self.epoch = opened.epoch
        self._seq = 0

    def append(self) -> None:
        """One step, acknowledged."""
        assert self._worker is not None
        self._seq += 1
        self._worker.steps(step(f"at-{self._openings}", self.epoch, self._seq, 64 * (self._seq - 1)))
        response = self._worker.receive()
        assert response.ack.seq == self._seq, response

    def leave(self) -> None:
        """Ends the stream, if there is one."""
        if self._worker is not None:
            self._worker.leave()


def _refused_to_create(stubs: Stubs) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        created(stubs, "new")
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    return reason_of(raised.value)


# Each makes trouble, calls what is to go on meanwhile, and ends the trouble.
def _killed(redis: RedisProcess, keep: Path, meanwhile: Callable[[], None]) -> None:
    redis.kill()
    meanwhile()
    redis.start()


def _emptied(redis: RedisProcess, keep: Path, meanwhile: Callable[[], None]) -> None:
    redis.client.flushall()
    meanwhile()


def _stalled(redis: RedisProcess, keep: Path, meanwhile: Callable[[], None]) -> None:
    redis.stop()
    end_s = time.monotonic() + STALL_S
    while time.monotonic() < end_s:
        meanwhile()
    redis.go_on()


def _stale(redis: RedisProcess, keep: Path, meanwhile: Callable[[], None]) -> None:
    redis.fail_over_to(keep)
    meanwhile()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("trouble", [_killed, _emptied, _stalled, _stale])
def test_appends_go_on_and_the_manifest_comes_back(
    redis: RedisProcess, tmp_path: Path, trouble: Callable[[RedisProcess, Path, Callable[[], None]], None]
) -> None:
    """Proves, cycle by cycle, that a held lease writes on, that new sessions wait, and that Redis ends as it began."""
    redis.settle(LEASE_MS)
    with served(tmp_path, "--manifest", redis.url(LEASE_MS)) as server, connected(server.address) as stubs:
        writer = _Writer(stubs)
        for cycle in range(volume(3, 50)):
            keep = tmp_path / f"kept-{cycle}"
            redis.copy_to(keep)
            writer.open()
            for _ in range(STEPS_MIN):
                writer.append()
            before = redis.manifest()

            def meanwhile(writer: _Writer = writer) -> None:
                for _ in range(STEPS_MIN):
                    writer.append()
                assert _refused_to_create(stubs) == "MANIFEST_UNAVAILABLE"
                for _ in range(STEPS_MIN):
                    writer.append()

            trouble(redis, keep, meanwhile)
            shutil.rmtree(keep)
            end_s = time.monotonic() + TIMEOUT_S
            while redis.manifest() != before:
                assert time.monotonic() < end_s, (redis.manifest(), before)
                writer.append()
        # In a higher epoch, whatever Redis forgot.
        writer.open()
        writer.append()
        writer.leave()
        assert server.stop() == 0


def test_a_session_is_at_one_server_and_the_others_say_which(redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that opening, making and deleting a session at another server name the owner's address."""
    redis.settle(LEASE_MS)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    arguments = ("--manifest", redis.url(LEASE_MS))
    with (
        served(tmp_path / "a", *arguments) as owner,
        served(tmp_path / "b", *arguments, "--listen", "127.0.0.1:0") as other,
        connected(owner.address) as at_owner,
        connected(other.announced.rpartition(" ")[2]) as at_other,
    ):
        created(at_owner, "s")
        worker = Worker(at_other, "w")
        worker.receive()
        for call in (
            lambda: worker.open("s", "at"),
            lambda: created(at_other, "s"),
            lambda: at_other.sessions.GetSession(session_pb2.GetSessionRequest(name="s"), timeout=TIMEOUT_S),
            lambda: at_other.sessions.DeleteSession(session_pb2.DeleteSessionRequest(name="s"), timeout=TIMEOUT_S),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                call()
            assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert reason_of(raised.value) == "SESSION_ELSEWHERE"
            assert f"lives at {owner.address}" in raised.value.details()
        created(at_other, "t")
        with pytest.raises(grpc.RpcError) as raised:
            created(at_owner, "t")
        assert f"lives at {other.announced.rpartition(' ')[2]}" in raised.value.details()
        listed = at_other.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S).sessions
        assert [one.name for one in listed] == ["t"]
        worker.leave()
        assert (owner.stop(), other.stop()) == (0, 0)


def _log_records(folder: Path) -> list[bytes]:
    # Without the head, where it is noted how much of the file is durable.
    return [path.read_bytes()[44:] for path in sorted((folder / "data" / "sessions").glob("*/log"))]


def _opened(stubs: Stubs, attachment: str) -> tuple[Worker, int]:
    worker = Worker(stubs, attachment)
    worker.receive()
    epoch = worker.open("fenced", attachment).epoch
    worker.steps(step(attachment, epoch, 1, 0))
    assert worker.receive().ack.seq == 1
    return worker, epoch


def _taken_over(redis: RedisProcess, server: ServerProcess, folder: Path, taker: Path) -> None:
    """Stops a node, and copies its folder to another one once its lease ran out."""
    server.process.send_signal(signal.SIGSTOP)
    shutil.copytree(folder / "data", taker / "data")
    redis.lease_ended("fenced")


@pytest.mark.parametrize("redis_is", ["whole", "emptied"])
@pytest.mark.parametrize("cycle", range(volume(2, 100)))
def test_a_writer_whose_node_hung_past_its_lease_writes_nothing(
    redis: RedisProcess, tmp_path: Path, cycle: int, redis_is: str
) -> None:
    """Proves that what waits for a stopped node when another took over is refused, not logged, whatever Redis says."""
    redis.settle(SHORT_LEASE_MS)
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    arguments = ("--manifest", redis.url(SHORT_LEASE_MS))
    with served(first, *arguments) as former, connected(former.address) as stubs:
        created(stubs, "fenced")
        worker, epoch = _opened(stubs, "former")
        _taken_over(redis, former, first, second)
        with served(second, *arguments) as taker, connected(taker.address) as others:
            successor, later = _opened(others, "taker")
            assert later > epoch
            logged = _log_records(first)
            # They lie in its socket when it wakes up: it writes before anybody could tell it.
            stale = range(2, 10)
            worker.steps(*(step("former", epoch, seq, 64 * (seq - 1)) for seq in stale))
            if redis_is == "emptied":
                redis.client.flushall()
            former.process.send_signal(signal.SIGCONT)
            faults = [worker.receive().fault for _ in stale]
            assert {fault.reason for fault in faults} <= {"STALE_EPOCH", "MANIFEST_UNAVAILABLE"}
            assert [fault.seq for fault in faults] == [*stale]
            successor.steps(step("taker", later, 2, 64))
            assert successor.receive().ack.seq == 2
            # Once more, after its own clock and Redis told it.
            end_s = time.monotonic() + TIMEOUT_S
            while faults[-1].reason != "STALE_EPOCH":
                assert time.monotonic() < end_s
                worker.steps(step("former", epoch, 2, 64))
                faults.append(worker.receive().fault)
            assert _log_records(first) == logged
            assert redis.client.hget(f"{PREFIX}entry:fenced", "epoch") == str(later)
            successor.steps(step("taker", later, 3, 128))
            assert successor.receive().ack.seq == 3


def test_a_writer_resumes_after_its_node_was_killed(redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that a new process of the node waits for the earlier one's lease and takes its writer on where it was."""
    redis.settle(SHORT_LEASE_MS)
    arguments = ("--manifest", redis.url(SHORT_LEASE_MS))
    with served(tmp_path, *arguments) as server, connected(server.address) as stubs:
        created(stubs, "fenced")
        _, epoch = _opened(stubs, "writer")
        server.stop(signal.SIGKILL)
    with served(tmp_path, *arguments) as server, connected(server.address) as stubs:
        worker = Worker(stubs, "writer")
        worker.receive()
        opened = worker.open("fenced", "writer", resume_epoch=epoch)
        assert (opened.epoch, opened.applied_seq) == (epoch, 1)
        worker.steps(step("writer", epoch, 2, 64))
        assert worker.receive().ack.seq == 2
        worker.leave()
