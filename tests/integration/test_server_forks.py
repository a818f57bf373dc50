"""Forks, names and snapshots over the wire and from the command line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from attn_client.errors import MemoryRefused
from attn_client.memory import MemoryClient
from memsvc.cli import main
from protos.memsvc.v1 import block_pb2, session_pb2, types_pb2
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
    served,
    spec,
    step,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with served(tmp_path_factory.mktemp("node")) as server:
        yield server


@pytest.fixture(scope="module")
def stubs(server: ServerProcess) -> Iterator[Stubs]:
    with connected(server.address) as stubs:
        yield stubs


def _written(stubs: Stubs, name: str, blocks: int = 4) -> tuple[Worker, int]:
    """A session of so many blocks with a tail behind them; its writer is still attached."""
    created(stubs, name)
    worker = Worker(stubs, name)
    worker.receive()
    epoch = worker.open(name, name).epoch
    _go_on(stubs, worker, name, epoch, range(blocks))
    return worker, epoch


def _go_on(stubs: Stubs, worker: Worker, attachment: str, epoch: int, blocks: range) -> None:
    worker.steps(*(step(attachment, epoch, 1 + at, 64 * at) for at in blocks))
    for _ in blocks:
        assert worker.receive().WhichOneof("message") == "ack"
    puts = (put(attachment, epoch, block, block_data(block)) for block in blocks)
    assert all(one.reason == "" for one in stubs.blocks.PutBlocks(puts, timeout=TIMEOUT_S))
    tail = session_pb2.Tail(version=1, position=64 * blocks.stop, last_id=7)
    request = session_pb2.SaveTailRequest(attachment=attachment, epoch=epoch, tail=tail)
    stubs.sessions.SaveTail(request, timeout=TIMEOUT_S)


def _fork(stubs: Stubs, parent: str, name: str, snapshot: str = "") -> session_pb2.ForkSessionResponse:
    request = session_pb2.ForkSessionRequest(parent=parent, name=name, snapshot=snapshot)
    return stubs.sessions.ForkSession(request, timeout=TIMEOUT_S)


def _snapshot(stubs: Stubs, session: str, name: str) -> session_pb2.CreateSnapshotResponse:
    request = session_pb2.CreateSnapshotRequest(session=session, name=name)
    return stubs.sessions.CreateSnapshot(request, timeout=TIMEOUT_S)


def test_a_fork_of_a_snapshot_is_opened_like_any_session(stubs: Stubs) -> None:
    """Proves that a fork begins at the snapshot, reads the shared blocks, and is written apart from its parent."""
    worker, epoch = _written(stubs, "parent")
    assert _snapshot(stubs, "parent", "then").snapshot.position == 256
    _go_on(stubs, worker, "parent", epoch, range(4, 6))
    answer = _fork(stubs, "parent", "child", "then")
    assert (answer.created, answer.session.fork_position, answer.session.tokens) == (True, 256, 256)
    assert _fork(stubs, "parent", "child", "then").created is False
    opened = worker.open("child", "child-1")
    assert (opened.position, opened.tail.position, opened.epoch) == (256, 256, 1)
    request = block_pb2.GetBlocksRequest(attachment="child-1", blocks=[0, 3])
    chunks = stubs.blocks.GetBlocks(request, timeout=TIMEOUT_S)
    assert b"".join(one.chunk for one in chunks) == block_data(0) + block_data(3)
    assert stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="parent")).session.tokens == 384
    worker.leave()


def test_a_view_opens_at_a_snapshot(stubs: Stubs) -> None:
    """Proves that a view begins where it is told, and that the others begin at the newest tail."""
    worker, epoch = _written(stubs, "viewed")
    _snapshot(stubs, "viewed", "then")
    _go_on(stubs, worker, "viewed", epoch, range(4, 6))
    views = {
        snapshot: worker.open("viewed", f"view-{snapshot}", mode=session_pb2.OPEN_MODE_VIEW, snapshot=snapshot)
        for snapshot in ("", "then")
    }
    assert {snapshot: view.position for snapshot, view in views.items()} == {"": 384, "then": 256}
    listed = stubs.sessions.ListSnapshots(session_pb2.ListSnapshotsRequest(session="viewed"), timeout=TIMEOUT_S)
    assert [(own.name, own.position) for own in listed.snapshots] == [("then", 256)]
    worker.leave()


def test_a_client_reads_on_from_a_snapshot(server: ServerProcess, stubs: Stubs) -> None:
    """Proves that the memory client opens views where it is told, and says that a snapshot is missing."""
    worker, epoch = _written(stubs, "read")
    _snapshot(stubs, "read", "then")
    _go_on(stubs, worker, "read", epoch, range(4, 6))
    with MemoryClient(server.address) as client:
        positions = [client.open_view("read", spec().fingerprint, snapshot).position for snapshot in ("", "then")]
        assert positions == [384, 256]
        with pytest.raises(MemoryRefused, match="'never'"):
            client.open_view("read", spec().fingerprint, "never")
    worker.leave()


def test_each_refusal_has_its_code_and_reason(stubs: Stubs) -> None:
    """Proves the errors that the calls' comments name, and that their message names what stands in the way."""
    worker, epoch = _written(stubs, "busy")
    _snapshot(stubs, "busy", "mark")
    _go_on(stubs, worker, "busy", epoch, range(4, 5))
    _fork(stubs, "busy", "busy-fork")
    created(stubs, "idle")
    _snapshot(stubs, "idle", "kept")
    sessions = stubs.sessions
    missing, exists = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS
    invalid, state = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
    pb = session_pb2
    calls: list[tuple[Callable[..., Any], Any, grpc.StatusCode, str, str]] = [
        (sessions.ForkSession, pb.ForkSessionRequest(parent="none", name="f"), missing, "SESSION_NOT_FOUND", "none"),
        (
            sessions.ForkSession,
            pb.ForkSessionRequest(parent="busy", name="f", snapshot="no"),
            missing,
            "SNAPSHOT_NOT_FOUND",
            "no",
        ),
        (sessions.ForkSession, pb.ForkSessionRequest(parent="busy", name="idle"), exists, "SESSION_EXISTS", "idle"),
        (sessions.ForkSession, pb.ForkSessionRequest(parent="busy", name="a/b"), invalid, "INVALID_REQUEST", "a/b"),
        (
            sessions.RenameSession,
            pb.RenameSessionRequest(name="none", new_name="x"),
            missing,
            "SESSION_NOT_FOUND",
            "none",
        ),
        (
            sessions.RenameSession,
            pb.RenameSessionRequest(name="busy", new_name="x"),
            state,
            "SESSION_HAS_WRITER",
            "busy",
        ),
        (
            sessions.RenameSession,
            pb.RenameSessionRequest(name="idle", new_name="busy"),
            exists,
            "SESSION_EXISTS",
            "busy",
        ),
        (
            sessions.CreateSnapshot,
            pb.CreateSnapshotRequest(session="busy", name="mark"),
            exists,
            "SNAPSHOT_EXISTS",
            "mark",
        ),
        (sessions.CreateSnapshot, pb.CreateSnapshotRequest(session="busy", name="-"), invalid, "INVALID_REQUEST", "-"),
        (sessions.ListSnapshots, pb.ListSnapshotsRequest(session="none"), missing, "SESSION_NOT_FOUND", "none"),
        (
            sessions.DeleteSnapshot,
            pb.DeleteSnapshotRequest(session="busy", name="no"),
            missing,
            "SNAPSHOT_NOT_FOUND",
            "no",
        ),
        (sessions.DeleteSession, pb.DeleteSessionRequest(name="busy"), state, "SESSION_HAS_FORKS", "busy-fork"),
        (sessions.DeleteSession, pb.DeleteSessionRequest(name="idle"), state, "SESSION_HAS_SNAPSHOTS", "kept"),
    ]
    for call, request, code, reason, named in calls:
        with pytest.raises(grpc.RpcError) as raised:
            call(request, timeout=TIMEOUT_S)
        assert (raised.value.code(), reason_of(raised.value)) == (code, reason)
        assert named in raised.value.details()
    worker.leave()


def test_forks_names_and_snapshots_survive_a_kill(tmp_path: Path) -> None:
    """Proves that what was answered before a kill -9 is there after it, and what was deleted is not."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        worker, _ = _written(stubs, "parent")
        _snapshot(stubs, "parent", "then")
        fork = _fork(stubs, "parent", "child").session
        _fork(stubs, "parent", "gone")
        stubs.sessions.DeleteSession(session_pb2.DeleteSessionRequest(name="gone"), timeout=TIMEOUT_S)
        rename = session_pb2.RenameSessionRequest(name="child", new_name="grown")
        renamed = stubs.sessions.RenameSession(rename, timeout=TIMEOUT_S).session
        assert (renamed.id, renamed.name) == (fork.id, "grown")
        server.process.kill()
        server.process.wait(TIMEOUT_S)
        del worker
    (tmp_path / "socket").unlink()
    with served(tmp_path) as server, connected(server.address) as stubs:
        listed = stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S).sessions
        assert [own.name for own in listed] == ["grown", "parent"]
        assert listed[0] == renamed
        found = stubs.sessions.ListSnapshots(session_pb2.ListSnapshotsRequest(session="parent"), timeout=TIMEOUT_S)
        assert [own.name for own in found.snapshots] == ["then"]


def _run(capsys: pytest.CaptureFixture[str], server: ServerProcess, *arguments: str) -> tuple[int, Any, str]:
    code = main([*arguments, "--memory", server.address, "--json"])
    out, error = capsys.readouterr()
    return code, json.loads(out) if out else None, error


def test_the_commands_do_what_they_say(server: ServerProcess, stubs: Stubs, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves the records that snapshot, fork, restore, rename and delete print, and that they did it."""
    worker, epoch = _written(stubs, "cli")
    code, record, _ = _run(capsys, server, "snapshot", "--session", "cli", "--name", "then")
    (snapshot,) = record["snapshots"]
    assert (code, record["created"], snapshot["name"], snapshot["position"]) == (0, True, "then", 256)
    _go_on(stubs, worker, "cli", epoch, range(4, 6))
    worker.leave()
    assert _run(capsys, server, "snapshot", "--session", "cli")[1]["snapshots"] == [snapshot]
    forked = _run(capsys, server, "fork", "--session", "cli", "--to", "cli-fork")[1]
    assert (forked["created"], forked["session"]["fork_position"]) == (True, 384)
    restored = _run(capsys, server, "restore", "--session", "cli", "--snapshot", "then", "--to", "cli-then")[1]
    assert (restored["session"]["fork_position"], restored["session"]["blocks"]) == (256, 4)
    assert (
        restored["session"]["parent_id"] == _run(capsys, server, "sessions", "--session", "cli")[1]["sessions"][0]["id"]
    )
    renamed = _run(capsys, server, "rename", "--session", "cli-then", "--to", "cli-old")[1]
    assert renamed["session"]["name"] == "cli-old"
    code, record, error = _run(capsys, server, "delete", "--session", "cli")
    assert (code, record) == (1, None)
    assert error.count("\n") == 1
    assert "'cli-fork', 'cli-old'" in error
    for name in ("cli-fork", "cli-old"):
        assert _run(capsys, server, "delete", "--session", name)[1] == {"deleted": name}
    dropped = _run(capsys, server, "snapshot", "--session", "cli", "--drop", "then")[1]
    assert dropped == {"session": "cli", "dropped": "then"}
    assert _run(capsys, server, "delete", "--session", "cli")[0] == 0


def test_the_commands_speak_to_people_too(
    server: ServerProcess, stubs: Stubs, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that without --json each command says in a line or a table what it did."""
    worker, _ = _written(stubs, "told")
    worker.leave()
    for arguments, said in (
        (["snapshot", "--session", "told", "--name", "then"], "then"),
        (["fork", "--session", "told", "--to", "told-fork"], "session told-fork began at position 256 with 4 blocks"),
        (["fork", "--session", "told", "--to", "told-fork"], "was there already"),
        (["rename", "--session", "told-fork", "--to", "told-2"], "called told-2 now"),
        (["snapshot", "--session", "told", "--drop", "then"], "dropped then"),
        (["delete", "--session", "told-2"], "deleted told-2"),
    ):
        assert main([*arguments, "--memory", server.address]) == 0
        assert said in capsys.readouterr().out


def test_a_listing_says_whence_and_how_many(stubs: Stubs) -> None:
    """Proves that a session's figures tell its id, its parent's, and its snapshots."""
    worker, _ = _written(stubs, "told-of")
    worker.leave()
    _snapshot(stubs, "told-of", "then")
    _fork(stubs, "told-of", "told-of-fork")
    infos: dict[str, types_pb2.SessionInfo] = {
        own.name: own for own in stubs.sessions.ListSessions(session_pb2.ListSessionsRequest()).sessions
    }
    assert infos["told-of-fork"].parent_id == infos["told-of"].id != ""
    assert (infos["told-of"].snapshots, infos["told-of"].parent_id, infos["told-of-fork"].snapshots) == (1, "", 0)
