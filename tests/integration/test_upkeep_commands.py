"""Looking after a running server's sessions: `memsvc verify --memory`, `memsvc forget`, and what its rounds find."""

import json
from pathlib import Path

import grpc
import pytest

from memsvc.cli import main
from protos.memsvc.v1 import admin_pb2, admin_pb2_grpc, session_pb2
from tests.integration.server_process import (
    TIMEOUT_S,
    Stubs,
    Worker,
    block_data,
    connected,
    created,
    put,
    reason_of,
    served,
    step,
)

BLOCKS = 12


def _fill(stubs: Stubs, name: str) -> None:
    """A session of whole blocks with a tail at its end, which nobody has open."""
    created(stubs, name)
    worker = Worker(stubs, f"w-{name}")
    assert worker.receive().HasField("welcome")
    epoch = worker.open(name, f"a-{name}").epoch
    for block in range(BLOCKS):
        worker.steps(step(f"a-{name}", epoch, block + 1, 64 * block))
        assert worker.receive().WhichOneof("message")
    puts = [put(f"a-{name}", epoch, block, block_data(block)) for block in range(BLOCKS)]
    assert len(list(stubs.blocks.PutBlocks(iter(puts), timeout=TIMEOUT_S))) == BLOCKS
    tail = session_pb2.Tail(version=1, position=64 * BLOCKS)
    stubs.sessions.SaveTail(
        session_pb2.SaveTailRequest(attachment=f"a-{name}", epoch=epoch, tail=tail), timeout=TIMEOUT_S
    )
    stubs.sessions.CloseAttachment(session_pb2.CloseAttachmentRequest(attachment=f"a-{name}"), timeout=TIMEOUT_S)
    worker.leave()


def _segment_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("sessions/*/blocks-*.seg"))


def test_a_server_verifies_forgets_and_gives_room_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that a running server verifies its sessions whole, lets blocks go, and that the disk shrinks."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        _fill(stubs, "book")
        assert main(["verify", "--memory", server.address, "--json"]) == 0
        (session,) = json.loads(capsys.readouterr().out)["sessions"]
        assert (session["name"], session["blocks"], session["findings"]) == ("book", BLOCKS, [])
        before = _segment_bytes(tmp_path / "data")
        call = ["forget", "--memory", server.address, "--session", "book", "--before", str(64 * 8), "--json"]
        assert main(call) == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["blocks"], record["compacted"]) == ([[1, 7]], True)
        assert _segment_bytes(tmp_path / "data") <= before - record["block_bytes"]
        assert main(call) == 0
        assert json.loads(capsys.readouterr().out)["blocks"] == []
        assert main(["verify", "--memory", server.address, "--session", "book"]) == 0
        info = stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="book"), timeout=TIMEOUT_S).session
        assert (info.blocks, [(own.first, own.count) for own in info.block_gaps]) == (BLOCKS - 7, [(1, 7)])
    assert main(["verify", "--data", str(tmp_path / "data")]) == 0


def test_a_server_names_damage_of_a_session_it_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that damage under a running server is found by verify, and by the scrubber, with file and place."""
    flags = ("--upkeep-interval", "1", "--scrub", "1000000000")
    with served(tmp_path, *flags) as server, connected(server.address) as stubs:
        _fill(stubs, "book")
        (segment,) = (tmp_path / "data").glob("sessions/*/blocks-*.seg")
        content = bytearray(segment.read_bytes())
        content[12 + 28 + 10] ^= 1
        segment.write_bytes(content)
        assert main(["verify", "--memory", server.address]) == 1
        assert f"{segment.name}, offset 40" in capsys.readouterr().out
        assert server.process.stderr is not None
        assert "block_damaged" in server.process.stderr.readline()
        server.stop()


def test_a_session_that_is_not_there_is_not_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that verifying and forgetting a missing session are typed errors, and exit codes 2 and 1."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        admin = admin_pb2_grpc.AdminServiceStub(stubs.channel)
        for call in (
            lambda: admin.VerifySession(admin_pb2.VerifySessionRequest(session="none"), timeout=TIMEOUT_S),
            lambda: admin.ForgetBlocks(admin_pb2.ForgetBlocksRequest(session="none"), timeout=TIMEOUT_S),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                call()
            assert reason_of(raised.value) == "SESSION_NOT_FOUND"
        assert main(["verify", "--memory", server.address, "--session", "none"]) == 2
        assert main(["forget", "--memory", server.address, "--session", "none", "--before", "5"]) == 1
        assert main(["verify", "--data", str(tmp_path / "data")]) == 2
        assert "NOT_FOUND" in capsys.readouterr().err
