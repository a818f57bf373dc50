"""Faults on purpose, in a real server process and in the client: what callers see, and that nobody waits for ever."""

import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attn_client.errors import InvalidSettings, MemoryFailure, MemoryRefused, MemoryUnavailable
from attn_client.memory import ClientSettings, MemoryClient
from protos.faults import PLACES, FaultPlan, Faults
from protos.memsvc.v1 import block_pb2, session_pb2
from tests.integration.client_records import ASK, LONG_S, block_of, record, settings, writer
from tests.integration.scripted_server import ScriptedServer
from tests.integration.server_process import (
    TIMEOUT_S,
    ServerProcess,
    Stubs,
    Worker,
    block_data,
    connected,
    created,
    put,
    recall,
    served,
    step,
)


def _at(place: str, kind: str, **more: object) -> dict[str, Any]:
    return {"place": place, "kind": kind, **more}


def _written(folder: Path, *rules: dict[str, Any]) -> str:
    file = folder / "faults.json"
    file.write_text(json.dumps({"seed": 9, "rules": list(rules)}))
    return str(file)


def _sessions(stubs: Stubs, timeout_s: float = TIMEOUT_S) -> session_pb2.ListSessionsResponse:
    return stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=timeout_s)


def test_a_server_with_faults_says_so_where_it_says_that_it_is_ready(tmp_path: Path) -> None:
    """Proves that nobody runs with faults unawares: the line after the address, and a warning in the log."""
    file = _written(tmp_path)
    with served(tmp_path, "--faults", file, "--log-format", "json") as server:
        assert server.announced == f"memsvc: listening on {server.address}"
        assert server.process.stdout is not None
        assert (
            server.process.stdout.readline() == f"memsvc: FAULTS ARE ON, by the rules in {file}: this is a rehearsal\n"
        )
        server.stop()
        assert server.process.stderr is not None
        events = [json.loads(line) for line in server.process.stderr.read().splitlines()]
        assert [(one["event"], one["level"]) for one in events] == [("faults_on", "warning")]


@pytest.mark.parametrize(
    ("text", "says"), [("{", "expected JSON"), ('{"rules": [{"place": "here"}]}', "place and kind")]
)
def test_a_server_with_rules_that_do_not_hold_does_not_start(tmp_path: Path, text: str, says: str) -> None:
    """Proves that a mistake in the file is one line, and not a server without the faults that were wanted."""
    (tmp_path / "faults.json").write_text(text)
    with served(tmp_path, "--faults", str(tmp_path / "faults.json")) as server:
        assert server.process.wait(TIMEOUT_S) == 1
        assert server.process.stderr is not None
        (line,) = server.process.stderr.read().splitlines()
        assert line.startswith("memsvc: faults: ")
        assert says in line


def test_calls_fail_are_lost_and_come_late_as_the_rules_say_and_health_goes_on(tmp_path: Path) -> None:
    """Proves the kinds of faults of a call, in order of arrival, and that the health of the node is not touched."""
    rules = (
        _at("ListSessions", "error", code="ABORTED", count=1),
        _at("ListSessions", "drop", after=1, count=1),
        _at("call", "delay", ms=50, after=2, count=1),
    )
    file = _written(tmp_path, *rules)
    with served(tmp_path, "--faults", file, "--log-level", "info", "--log-format", "json") as server:
        with connected(server.address) as stubs:
            with pytest.raises(grpc.RpcError, match="fault on purpose at ListSessions") as failed:
                _sessions(stubs)
            assert failed.value.code() is grpc.StatusCode.ABORTED
            with pytest.raises(grpc.RpcError) as lost:
                _sessions(stubs, 0.1)
            assert lost.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            began = time.monotonic()
            assert not _sessions(stubs).sessions
            assert time.monotonic() - began >= 0.05
            health = health_pb2_grpc.HealthStub(stubs.channel)
            status = health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        server.stop()
        assert server.process.stderr is not None
        lines = [json.loads(line) for line in server.process.stderr.read().splitlines()]
        told = [(one["method"], one["problem"]) for one in lines if one["event"] == "fault"]
        assert told == [("ListSessions", "error"), ("ListSessions", "drop")]


def _opened(stubs: Stubs) -> tuple[Worker, int]:
    created(stubs, "book")
    worker = Worker(stubs, "w")
    assert worker.receive().HasField("welcome")
    return worker, worker.open("book", "one").epoch


def test_messages_of_the_attach_stream_are_lost_changed_and_cut_off(tmp_path: Path) -> None:
    """Proves that rules reach each direction of a stream, and leave what they do not name."""
    rules = (
        _at("attach.ack", "drop", count=1),
        _at("attach.ack", "corrupt", field="seq", after=1, count=1),
        _at("attach.step", "error", after=2),
    )
    with served(tmp_path, "--faults", _written(tmp_path, *rules)) as server, connected(server.address) as stubs:
        worker, epoch = _opened(stubs)
        worker.steps(step("one", epoch, 1, 0))
        worker.steps(step("one", epoch, 2, 64))
        ack = worker.receive().ack
        assert ack.attachment == "one"
        assert ack.seq not in (1, 2)
        worker.steps(step("one", epoch, 3, 128))
        with pytest.raises(grpc.RpcError, match=r"fault on purpose at attach\.step") as broken:
            worker.receive()
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE


def test_blocks_on_their_way_in_and_out_are_damaged_where_their_checksum_tells(tmp_path: Path) -> None:
    """Proves that a server that damages bytes is caught on both ways: by itself, and by whoever reads."""
    rules = (
        _at("put_blocks.piece", "corrupt", field="crc32c", count=1),
        _at("get_blocks.block", "corrupt", field="chunk", count=1),
    )
    with served(tmp_path, "--faults", _written(tmp_path, *rules)) as server, connected(server.address) as stubs:
        worker, epoch = _opened(stubs)
        worker.steps(step("one", epoch, 1, 0))
        assert worker.receive().ack.seq == 1
        puts = [put("one", epoch, 0, block_data(0)) for _ in range(2)]
        answers = list(stubs.blocks.PutBlocks(iter(puts), timeout=TIMEOUT_S))
        assert [one.reason for one in answers] == ["CORRUPT_BLOCK", ""]
        request = block_pb2.GetBlocksRequest(attachment="one", blocks=[0])
        first, second = (
            b"".join(one.chunk for one in stubs.blocks.GetBlocks(request, timeout=TIMEOUT_S)) for _ in range(2)
        )
        assert first != block_data(0)
        assert second == block_data(0)


def test_a_late_recall_holds_up_its_own_stream_alone(tmp_path: Path) -> None:
    """Proves that a server's delay is one stream's: other calls are answered while it lasts."""
    rule = _at("attach.recall", "delay", ms=3_000_000, count=1)
    with served(tmp_path, "--faults", _written(tmp_path, rule)) as server, connected(server.address) as stubs:
        worker, epoch = _opened(stubs)
        worker.steps(step("one", epoch, 1, 0, recall=recall(0)))
        assert worker.receive().ack.seq == 1
        assert [one.name for one in _sessions(stubs).sessions] == ["book"]
        worker.responses.cancel()
        assert _stops(server)


def _stops(server: ServerProcess) -> bool:
    return server.stop() == 0


def _client(scripted: ScriptedServer, *rules: dict[str, Any], **changes: object) -> tuple[MemoryClient, Faults]:
    faults = Faults(FaultPlan.parse(json.dumps({"rules": list(rules)}), PLACES))
    faults.switch(False)
    return MemoryClient(scripted.address, settings(**changes), faults=faults), faults


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize(
    "rule", [_at("SaveTail", "drop"), _at("SaveTail", "delay", ms=3_000_000), _at("call", "stall", ms=3_000_000)]
)
def test_a_call_never_takes_longer_than_its_deadline(rule: dict[str, Any], scripted: ScriptedServer) -> None:
    """Proves that whatever is lost or late ends as it would without a client that makes it so."""
    client, faults = _client(scripted, rule, call_timeout_s=0.1, stall_timeout_s=0.05)
    with client:
        session = writer(client)
        faults.switch(True)
        with pytest.raises(MemoryUnavailable, match="DEADLINE_EXCEEDED"):
            session.save_tail(0, None, None, None)
        faults.switch(False)
        session.save_tail(0, None, None, None)


@pytest.mark.usefixtures("nothing_left_behind")
def test_an_error_on_purpose_is_the_error_of_its_code(scripted: ScriptedServer) -> None:
    """Proves that a client treats what it did to itself as what a server did."""
    for code, kind in (("UNAVAILABLE", MemoryUnavailable), ("PERMISSION_DENIED", MemoryRefused)):
        client, faults = _client(scripted, _at("OpenSession", "error", code=code))
        with client:
            faults.switch(True)
            with pytest.raises(kind, match=f"got {code}"):
                writer(client)


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize("place", ["attach.recall", "attach.ack", "attach.step", "put_blocks.piece"])
def test_a_client_closes_while_a_message_is_held_up(place: str, scripted: ScriptedServer) -> None:
    """Proves that nothing that is held up on purpose holds up the end, and that no thread is left."""
    client, faults = _client(scripted, _at(place, "delay", ms=3_000_000))
    with client:
        session = writer(client)
        faults.switch(True)
        session.append(record(0, ask=ASK), wait=True)
        session.put_block(0, block_of(0), wait=True)
        scripted.wait_for(lambda: len(scripted.steps) == 1 or bool(faults.made))


@pytest.mark.usefixtures("nothing_left_behind")
def test_fetched_bytes_that_are_not_those_that_were_put_are_never_given(scripted: ScriptedServer) -> None:
    """Proves for many ways to change an answer that a fetch gives the right bytes or raises."""
    scripted.blocks = {block: block_of(block).tobytes() for block in range(3)}
    for field in ("block", "crc32c", "chunk", ""):
        for seed in range(6):
            plan = {
                "seed": seed,
                "rules": [_at("get_blocks.block", "corrupt", **({"field": field} if field else {}))],
            }
            faults = Faults(FaultPlan.parse(json.dumps(plan), PLACES))
            with MemoryClient(scripted.address, settings(), faults=faults) as client:
                session = writer(client)
                with pytest.raises(MemoryFailure):
                    session.fetch_blocks([0, 1, 2], LONG_S)
                faults.switch(False)
                fetched = session.fetch_blocks([0, 1, 2], LONG_S)
                assert {block: data.tobytes() for block, data in fetched.items()} == scripted.blocks


def test_a_client_takes_its_rules_from_a_file_and_says_so(
    scripted: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Proves the setting: what it does, that it is told, and that a file that does not hold is one line."""
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({"rules": [_at("OpenSession", "error")]}))
    with MemoryClient(scripted.address, settings(faults=file)) as client, pytest.raises(MemoryUnavailable):
        writer(client)
    assert "FAULTS ARE ON" in caplog.text
    for text, says in (("{", "expected JSON"), ('{"rules": [{"place": "disk.read", "kind": "error"}]}', "place")):
        file.write_text(text)
        with pytest.raises(InvalidSettings, match=rf"^client\.faults: [^\n]*{says}[^\n]*$"):
            MemoryClient(scripted.address, ClientSettings(faults=file))
    with pytest.raises(InvalidSettings, match=r"^client\.faults: [^\n]*No such file"):
        MemoryClient(scripted.address, ClientSettings(faults=tmp_path / "none"))
