"""Checks of a data folder, on real files."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memsvc.doctor import State, folder, folder_checks
from memsvc.folder_lock import FolderLock
from memsvc.manifest import SqliteManifest


def _tree(data: Path) -> set[Path]:
    return set(data.rglob("*"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that a node used, with one session's folder."""
    own = tmp_path / "data"
    (own / "sessions" / "s").mkdir(parents=True)
    own.chmod(0o700)
    lock = FolderLock(own)
    SqliteManifest(own / "manifest.sqlite").close()
    lock.close()
    return own


def test_a_folder_in_order_passes_and_stays_as_it_was(data: Path) -> None:
    """Proves that every check of a good folder passes, filesystem aside, and that nothing is left in it."""
    before = _tree(data)
    checks = {check.name: check for check in folder_checks(data)}
    assert set(checks) == {"permissions", "disk", "filesystem", "fsync", "node", "clock", "manifest"}
    states = {name: check.state for name, check in checks.items() if name not in ("filesystem", "disk", "fsync")}
    assert set(states.values()) == {State.OK}
    assert checks["manifest"].found.startswith("0 sessions in ")
    assert _tree(data) - {data / "manifest.sqlite-wal", data / "manifest.sqlite-shm"} == before


def test_a_folder_that_is_not_there_is_judged_by_where_it_would_be(tmp_path: Path) -> None:
    """Proves that a first start can be checked, and that the check makes nothing."""
    checks = {check.name: check for check in folder_checks(tmp_path / "a" / "b")}
    assert checks["permissions"].found.endswith(f"is not there yet, {tmp_path} can be written")
    assert (checks["node"].state, checks["manifest"].found) == (State.OK, "none yet")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_a_failure(tmp_path: Path) -> None:
    """Proves that what is no folder is refused."""
    (tmp_path / "data").write_text("")
    assert folder.permissions(tmp_path / "data").state is State.FAILED


def test_a_folder_that_others_may_look_into_is_a_warning(data: Path) -> None:
    """Proves that access of other users is told, with the command that ends it."""
    data.chmod(0o755)
    check = folder.permissions(data)
    assert (check.state, check.advice) == (State.WARNING, f"other users may look in: chmod 700 {data}")


def test_a_node_in_the_folder_is_named_and_not_disturbed(data: Path) -> None:
    """Proves that the process is told while it holds the folder, and that checking takes nothing from it."""
    lock = FolderLock(data)
    try:
        assert folder.node(data).found == f"process {os.getpid()} uses the folder"
    finally:
        lock.close()
    assert folder.node(data).found == "none uses the folder now"
    FolderLock(data).close()


def test_a_clock_behind_the_newest_file_is_a_failure(data: Path) -> None:
    """Proves that time which went back since the last write is noticed, and a small difference is not."""
    ahead_s = time.time() + 50
    os.utime(data / "sessions" / "s", (ahead_s, ahead_s))
    assert folder.clock(data).state is State.OK
    os.utime(data / "sessions" / "s", (ahead_s + 3600, ahead_s + 3600))
    assert folder.clock(data).state is State.FAILED


def _lost(path: Path) -> None:
    path.unlink()


def _garbled(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


@pytest.mark.parametrize("damage", [_lost, _garbled])
def test_a_manifest_that_is_lost_or_damaged_is_a_failure(damage: Callable[[Path], None], data: Path) -> None:
    """Proves that sessions without a manifest, and a file that is none, lead to `memsvc repair`."""
    damage(data / "manifest.sqlite")
    check = folder.table(data)
    assert (check.state, check.advice) == (State.FAILED, f"memsvc repair --data {data}")


def test_a_full_disk_is_a_failure_and_a_nearly_full_one_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves the two marks: 1 GiB, and a tenth of the disk."""

    def state(free: int, total: int) -> State:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(total, total - free, free))
        return folder.disk(tmp_path).state

    assert state((1 << 30) - 1, 1 << 40) is State.FAILED
    assert state(1 << 30, 1 << 40) is State.WARNING
    assert state(1 << 38, 1 << 40) is State.OK


@pytest.mark.parametrize(("kind", "state"), [("ext4", State.OK), ("tmpfs", State.WARNING), ("nfs4", State.WARNING)])
def test_the_filesystem_is_that_of_the_deepest_mount(kind: str, state: State, tmp_path: Path) -> None:
    """Proves which mount counts, and that memory and networks are warned about."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / xfs rw 0 0\nb {tmp_path} {kind} rw 0 0\nc {tmp_path}-other xfs rw 0 0\n")
    check = folder.filesystem(tmp_path / "data", mounts)
    assert (check.found, check.state) == (kind, state)


@pytest.mark.parametrize(("answer", "state"), [(b"+PONG\r\n", State.OK), (b"-NOAUTH\r\n", State.FAILED)])
def test_a_redis_server_passes_if_it_answers_a_ping(answer: bytes, state: State) -> None:
    """Proves what is sent, and that anything but PONG fails."""
    asked = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(64))
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        check = folder.redis(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        server.join(10)
    assert (asked, check.state) == ([b"PING\r\n"], state)


def test_no_redis_server_is_a_failure() -> None:
    """Proves that an address where nobody listens, and one that is none, fail."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert folder.redis(f"redis://127.0.0.1:{port}/0").state is State.FAILED
    assert folder.redis("redis://nowhere").state is State.FAILED
