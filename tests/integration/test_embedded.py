"""The private server: how it starts, what it leaves, and that it never outlives its parent."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attn_client import embedded
from attn_client.embedded import EmbeddedServer
from attn_client.errors import MemoryUnavailable
from attn_client.memory import MemoryClient
from tests.integration.server_process import spec

PARENT = """
import sys
from attn_client.embedded import EmbeddedServer
with EmbeddedServer(None) as server:
    print(server.address, server.pid, flush=True)
    sys.stdin.read()
"""


def _folder(server: EmbeddedServer) -> Path:
    return Path(server.address.removeprefix("unix://")).parent


def _is_running(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_private_server_serves_and_leaves_nothing() -> None:
    """Proves that it answers while the block lasts, and that process, socket and folder are gone after it."""
    with EmbeddedServer(None) as server:
        folder = _folder(server)
        with MemoryClient(server.address) as client:
            client.create_session("notes", spec())
            assert [one.name for one in client.list_sessions()] == ["notes"]
        assert _is_running(server.pid)
    assert not _is_running(server.pid)
    assert not folder.exists()


def test_a_data_folder_outlives_its_server(tmp_path: Path) -> None:
    """Proves that sessions in a named folder are there for the next server on it."""
    data = tmp_path / "deep" / "data"
    with EmbeddedServer(data) as server, MemoryClient(server.address) as client:
        client.create_session("notes", spec())
    with EmbeddedServer(data) as server, MemoryClient(server.address) as client:
        assert [one.name for one in client.list_sessions()] == ["notes"]


@pytest.mark.usefixtures("own_folder")
def test_a_server_that_does_not_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Proves that a folder in use is one line with the server's last words, and that nothing is left behind."""
    with EmbeddedServer(tmp_path / "data") as server:
        before = set(_folder(server).parent.glob("attn-server-*"))
        with pytest.raises(
            MemoryUnavailable, match=r"^expected a private memory server to start, got: [^\n]*memsvc: [^\n]+$"
        ):
            EmbeddedServer(tmp_path / "data").__enter__()
        assert set(_folder(server).parent.glob("attn-server-*")) <= before


def test_a_server_that_never_says_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that the start has an end, and that the child has one with it."""
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.0)
    with pytest.raises(MemoryUnavailable, match=r"within 0\.0 s"):
        EmbeddedServer(None).__enter__()


def test_a_server_that_hangs_is_killed_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that leaving the block ends a stopped server too."""
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 0.1)
    with EmbeddedServer(None) as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert not _is_running(server.pid)


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that no other test's servers tidy up; short, since a socket's path is limited."""
    with tempfile.TemporaryDirectory(prefix="own-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.mark.usefixtures("own_folder")
def test_a_private_server_dies_with_its_parent() -> None:
    """Proves for kill -9 of the parent that the server leaves by itself: its socket stops answering."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        address, pid = parent.stdout.readline().split()
        parent.kill()
    path = address.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(20)
            connection.connect(path)
            # Ends when the server does.
            while connection.recv(4096):
                pass
        except (ConnectionError, FileNotFoundError):
            # It was quicker.
            pass
    while _is_running(int(pid)):
        pass
    # What its parent could not remove, the next one does.
    assert Path(path).parent.exists()
    with EmbeddedServer(None) as server:
        assert not Path(path).parent.exists()
        assert embedded.remove_abandoned(_folder(server).parent) == 0
        assert _folder(server).exists()
