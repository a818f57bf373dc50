"""The server as a process: how it starts, refuses to start, drains, dies and comes back."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memsvc.cli import main
from protos.memsvc.v1 import session_pb2
from tests.integration.server_process import (
    TIMEOUT_S,
    ServerProcess,
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


def _written(stubs: Stubs, name: str) -> tuple[Worker, int]:
    """A session of 8 blocks, 4 of them stored, and one recall answered; its worker is still attached."""
    created(stubs, name)
    worker = Worker(stubs, name)
    worker.receive()
    epoch = worker.open(name, name).epoch
    blocks = (put(name, epoch, block, block_data(block)) for block in range(4))
    worker.steps(*(step(name, epoch, 1 + at, 64 * at) for at in range(7)))
    worker.steps(step(name, epoch, 8, 448, recall=recall(blocks_through=4)))
    assert [worker.receive().ack.seq for _ in range(8)] == list(range(1, 9))
    assert [one.reason for one in stubs.blocks.PutBlocks(blocks, timeout=TIMEOUT_S)] == [""] * 4
    assert worker.receive().recall.seq == 8
    return worker, epoch


def _errors_of(server: ServerProcess) -> list[str]:
    _, errors = server.process.communicate(timeout=TIMEOUT_S)
    return errors.splitlines()


def test_the_address_is_announced_in_one_line(tmp_path: Path) -> None:
    """Proves the line that scripts wait for, and that a stop right after it is clean and silent."""
    with served(tmp_path) as server:
        assert server.announced == f"memsvc: listening on {server.address}"
        assert server.stop() == 0
        assert _errors_of(server) == []


def test_a_port_of_zero_becomes_the_port_that_was_taken(tmp_path: Path) -> None:
    """Proves that a TCP address is announced so that a client can dial it."""
    with served(tmp_path, "--listen", "127.0.0.1:0") as server:
        address = server.announced.rpartition(" ")[2]
        assert not address.endswith(":0")
        with connected(address) as stubs:
            stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, number: int) -> None:
    """Proves the order: NOT_SERVING, Drain on the stream, new work refused, old work finished, exit 0."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        worker, epoch = _written(stubs, "drained")
        watch = health_pb2_grpc.HealthStub(stubs.channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(number)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert worker.receive().drain.grace_ms > 0
        with pytest.raises(grpc.RpcError) as raised:
            Worker(stubs, "late").receive()
        assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        worker.steps(step("drained", epoch, 9, 512))
        assert worker.receive().ack.seq == 9
        worker.leave()
        assert server.process.wait(TIMEOUT_S) == 0
        assert _errors_of(server) == []


def test_a_second_signal_cuts_the_drain_short(tmp_path: Path) -> None:
    """Proves that a worker that stays does not keep the server, and that what was acknowledged is kept."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        worker, _ = _written(stubs, "hurried")
        server.process.send_signal(signal.SIGTERM)
        assert worker.receive().HasField("drain")
        assert server.stop() == 0
    with served(tmp_path) as server, connected(server.address) as stubs:
        info = stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="hurried"), timeout=TIMEOUT_S).session
        assert (info.tokens, info.blocks) == (512, 4)


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """Proves that after kill -9 the writer resumes with its epoch where its last Ack was."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        _, epoch = _written(stubs, "killed")
        server.process.kill()
        server.process.wait(TIMEOUT_S)
    with served(tmp_path) as server, connected(server.address) as stubs:
        worker = Worker(stubs, "killed")
        worker.receive()
        opened = worker.open("killed", "killed", resume_epoch=epoch)
        assert (opened.epoch, opened.position, opened.applied_seq) == (epoch, 512, 8)
        assert [(one.first, one.count) for one in opened.stored_blocks] == [(0, 4)]
        worker.steps(step("killed", epoch, 9, 512))
        assert worker.receive().ack.seq == 9
        worker.leave()


def test_closing_standard_input_stops_it_when_asked_to(tmp_path: Path) -> None:
    """Proves that a child with --exit-with-stdin ends with its parent's pipe."""
    with served(tmp_path, "--exit-with-stdin") as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(TIMEOUT_S) == 0


def test_a_folder_has_one_node(tmp_path: Path) -> None:
    """Proves that a second server on the folder fails in one line that names the folder and the holder."""
    with served(tmp_path) as server:
        other = served(tmp_path, "--listen", f"unix://{tmp_path}/other")
        with other as second:
            assert (second.process.wait(TIMEOUT_S), second.announced) == (1, "")
            (line,) = _errors_of(second)
        assert str(tmp_path / "data") in line
        assert str(server.process.pid) in line


def test_an_address_has_one_node(tmp_path: Path) -> None:
    """Proves that a second server on a live socket or port fails in one line and leaves the first one its address."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with served(first) as server, served(second, "--listen", server.address) as other:
        assert other.process.wait(TIMEOUT_S) == 1
        (line,) = _errors_of(other)
        assert line.startswith(f"memsvc: listen: expected a free address, got {server.address}: ")
        with connected(server.address) as stubs:
            stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S)


def test_a_port_has_one_node(tmp_path: Path) -> None:
    """Proves that connections of one port are never shared by two servers."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with served(first, "--listen", "127.0.0.1:0") as server:
        address = server.announced.rpartition(" ")[2]
        with served(second, "--listen", address) as other:
            assert other.process.wait(TIMEOUT_S) == 1
            (line,) = _errors_of(other)
            assert line.startswith(f"memsvc: listen: expected a free address, got {address}: ")


def test_a_socket_left_by_a_dead_node_is_taken_over(tmp_path: Path) -> None:
    """Proves that a kill does not keep the next server from its address."""
    with served(tmp_path) as server:
        server.process.kill()
        server.process.wait(TIMEOUT_S)
        assert (tmp_path / "socket").exists()
    with served(tmp_path) as server:
        assert server.announced == f"memsvc: listening on {server.address}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["serve"],
        ["serve", "--data", "x", "--listen", "nowhere"],
        ["serve", "--data", "x", "--listen", "127.0.0.1:0", "--manifest", "redis://localhost"],
        ["sessions"],
        ["sessions", "--memory", "nowhere"],
        ["bookmarks", "--memory", "unix:///x"],
        ["bookmarks", "--memory", "unix:///x", "--session", "s", "--first", "-1"],
        ["explain", "--memory", "unix:///x", "--session", "s", "--asked-at", "first"],
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Proves that usage errors are told from failures, and that nothing else is printed."""
    assert main(arguments) == 2
    printed, errors = capfd.readouterr()
    assert (printed, errors.count("\n")) == ("", 1)
    assert errors.startswith("memsvc")


def test_a_failed_call_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """Proves that no server, and a session that is not there, each end in one line on standard error."""
    with served(tmp_path) as server:
        for address, session in ((f"unix://{tmp_path}/nobody", "any"), (server.address, "missing")):
            command = [sys.executable, "-m", "memsvc.cli", "bookmarks", "--memory", address, "--session", session]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
            assert session in done.stderr or address in done.stderr


def test_the_reading_commands_show_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that each command prints one JSON object, and a table with the same rows."""

    def shown(*arguments: str) -> str:
        assert main([*arguments, "--memory", server.address]) == 0
        return capsys.readouterr().out

    with served(tmp_path) as server, connected(server.address) as stubs:
        worker, _ = _written(stubs, "read")
        (session,) = json.loads(shown("sessions", "--json"))["sessions"]
        assert (session["name"], session["tokens"], session["blocks"], session["writer"]) == ("read", 512, 4, "read")
        assert json.loads(shown("sessions", "--session", "read", "--json"))["sessions"] == [session]
        listed = json.loads(shown("bookmarks", "--session", "read", "--count", "10", "--json"))
        assert (listed["total"], len(listed["bookmarks"])) == (session["bookmarks"], 10)
        assert [one["position"] for one in listed["bookmarks"]] == list(range(10))
        graph = json.loads(shown("graph", "--session", "read", "--seed", "5", "--hops", "1", "--json"))
        assert 5 in [one["index"] for one in graph["bookmarks"]]
        explained = json.loads(shown("explain", "--session", "read", "--json"))
        assert (explained["asked_at"], explained["candidates"]) == (511, 3)
        assert all(one["votes"] or one["reached"] != "trail" for one in explained["chosen"])
        places = [(one["block"], one["positions"]) for one in explained["chosen"]]
        assert places == [(block, [64 * block, 64 * block + 63]) for block, _ in places]
        assert len(shown("sessions").splitlines()) == 2
        assert len(shown("bookmarks", "--session", "read", "--count", "10").splitlines()) == 11
        rows = len(explained["chosen"]) + len(explained["below_cut"])
        # The recall, the heads, a line a block, the finder.
        assert len(shown("explain", "--session", "read").splitlines()) == 3 + rows
        worker.leave()
