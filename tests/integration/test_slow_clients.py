"""Clients that are idle, do not read or stop half-way: what a server holds for them, and that others are served.

SLOW_SECONDS    how long they stay; a sample in an ordinary run
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.slow_clients import BLOCK_BYTES as SLOW_BLOCK_BYTES
from benchmarks.slow_clients import SESSION, Crowd
from protos.memsvc.v1 import block_pb2, session_pb2
from tests.integration.process_reading import MIB, descriptors, resident_bytes, threads, until
from tests.integration.server_process import (
    TIMEOUT_S,
    Stubs,
    block_data,
    connected,
    created,
    put,
    recall,
    served,
    spec,
    step,
)
from tests.integration.tenants import Stream

SECONDS = float(os.environ.get("SLOW_SECONDS", "5"))
WHOLE_S = 60
CROWD = Crowd(unread=8 if SECONDS >= WHOLE_S else 2)

# HTTP/2's first window, which the server leaves as it is: what it takes in of a stream that it does not read.
WINDOW_BYTES = 64 * 1024
# A stream's tasks, objects and HTTP/2 state; half of that was measured.
STREAM_BYTES = 72 * 1024
# Answers that wait for a worker (`_OUTBOX_MAX`), each an object in memory.
OUTBOX_BYTES = 1024 * 1024
# What the C library takes from the system at a time, for each thread that allocates (mallopt(3): M_TOP_PAD).
ARENA_STEP_BYTES = 132 * 1024


def bound_bytes(crowd: Crowd) -> int:
    """What a server may hold for a crowd, from the limits that it keeps to.

    Each stream: its objects and one window. One that is not read from, too: an answer on its way, a message that is
    being read and the same one parsed, at most a block each, and of Attach the outbox. Half a block: that half.
    """
    streams = crowd.idle + 3 * crowd.unread + 2 * crowd.half
    unread = crowd.unread * (OUTBOX_BYTES + 3 * 3 * SLOW_BLOCK_BYTES)
    # Steps of 128 tokens that a session took, its log's and its segment's buffers, four threads' arenas.
    sessions = crowd.unread * MIB
    return streams * (STREAM_BYTES + WINDOW_BYTES) + unread + crowd.half * SLOW_BLOCK_BYTES + sessions


@contextlib.contextmanager
def _crowd(address: str) -> Iterator[subprocess.Popen[str]]:
    """A crowd that is stuck by now, and gone afterwards."""
    counts = [f"--{name}={count}" for name, count in vars(CROWD).items()]
    command = [sys.executable, "-m", "benchmarks.slow_clients", address, *counts]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "stuck\n"
            yield process
        finally:
            process.kill()


class Good:
    """A writer whose one step is sent again and again, and whose block is read: nothing that grows."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs, self._health = stubs, health_pb2_grpc.HealthStub(stubs.channel)
        created(stubs, "good")
        self._stream = Stream(stubs, "good")
        opening = session_pb2.OpenSessionRequest(
            session="good",
            mode=session_pb2.OPEN_MODE_WRITER,
            fingerprint=spec().fingerprint,
            worker="good",
            attachment="good",
        )
        self._epoch = stubs.sessions.OpenSession(opening, timeout=TIMEOUT_S).epoch
        # A repeated step is answered within the deadline that it had when it came first.
        self._step = step("good", self._epoch, 1, 0, 64, recall=recall(0, deadline_ms=600_000))
        self._send()
        (answer,) = stubs.blocks.PutBlocks(iter([put("good", self._epoch, 0, block_data(0))]), timeout=TIMEOUT_S)
        assert answer.reason == ""

    def work(self) -> None:
        """A step with its recall, a block, a session, the health."""
        self._send()
        fetch = block_pb2.GetBlocksRequest(attachment="good", blocks=[0])
        assert [one.chunk for one in self._stubs.blocks.GetBlocks(fetch, timeout=TIMEOUT_S)] == [block_data(0)]
        asked = session_pb2.GetSessionRequest(name="good")
        assert self._stubs.sessions.GetSession(asked, timeout=TIMEOUT_S).session.tokens == 64
        health = self._health.Check(health_pb2.HealthCheckRequest(service="ready"), timeout=TIMEOUT_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING

    def leave(self) -> None:
        """Ends its stream."""
        self._stream.end()

    def _send(self) -> None:
        self._stream.send(self._step)
        assert self._stream.receive().ack.seq == 1
        assert self._stream.receive().recall.asked_at_position == 63


@pytest.mark.timeout(300 + 4 * SECONDS)
def test_what_is_held_for_slow_clients_is_bounded_and_others_are_served(tmp_path: Path) -> None:
    """Proves that 256 idle streams, clients that never read and clients that stopped half-way cost the server no more
    than its limits say, and nothing more as time goes on; that another client gets right answers all the while; and
    that nothing of them is left once they are gone."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        good, pid = Good(stubs), server.process.pid
        good.work()
        before, files = resident_bytes(pid), descriptors(pid)
        with _crowd(server.address):
            stuck, begun = resident_bytes(pid), time.monotonic()
            assert stuck - before <= bound_bytes(CROWD)
            while time.monotonic() < begun + SECONDS:
                good.work()
            assert resident_bytes(pid) - stuck <= threads(pid) * ARENA_STEP_BYTES
        _forget(stubs)
        # The channels of the crowd are gone, and their sessions.
        until(lambda: descriptors(pid) <= files, TIMEOUT_S)
        good.work()
        good.leave()


def _forget(stubs: Stubs) -> None:
    """Deletes the crowd's sessions, which is possible as soon as their writers' streams have ended."""

    def deleted(name: str) -> bool:
        try:
            stubs.sessions.DeleteSession(session_pb2.DeleteSessionRequest(name=name), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return False
        return True

    for at in range(CROWD.unread):
        until(lambda name=f"{SESSION}-{at}": deleted(name), TIMEOUT_S)  # type: ignore[misc]
