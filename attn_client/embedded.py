"""A private memory server: a child process on a Unix socket in a temporary folder, for as long as a `with` block.

Invariants: the child dies with its parent, whatever ends the parent: it watches its standard input, whose other end
only the parent holds. A server that does not start is one line that carries its own last words. Nothing of it is left
behind but the data folder that was asked for; what a killed parent could not remove, the next private server does.
Must not know: the server's code; it is started as a program.
"""

import contextlib
import fcntl
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from attn_client.errors import MemoryUnavailable

# The first start of a Python process on a cold disk takes seconds; a server that replays a long log takes more.
START_TIMEOUT_S = 60.0
# A server that is asked to stop drains for up to 5 s, then syncs.
STOP_TIMEOUT_S = 15.0

READY = b"memsvc: listening on "
SOCKET = "memsvc.sock"
PREFIX = "attn-server-"
OWNER = "owner"


class EmbeddedServer:
    """A private server; use it as a context manager. `address` is there once it is entered.

    Args:
        data: Folder that its sessions live in, made if it is not there; None: a temporary one, removed at the end.
    """

    def __init__(self, data: Path | None) -> None:
        self._data = data
        self._undo = contextlib.ExitStack()
        self.address = ""
        self.pid = 0

    def __enter__(self) -> "EmbeddedServer":
        """Start it and wait until it listens. Raises MemoryUnavailable with its last words if it does not."""
        with contextlib.ExitStack() as undo:
            remove_abandoned(Path(tempfile.gettempdir()))
            folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            undo.callback(shutil.rmtree, folder)
            undo.callback(os.close, _locked(folder))
            data = self._data if self._data is not None else folder / "data"
            errors = undo.enter_context((folder / "stderr").open("w+b"))
            address = f"unix://{folder / SOCKET}"
            child = _start(data, address, errors)
            undo.callback(_stop, child)
            _await_ready(child, errors)
            self.address, self.pid = address, child.pid
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it: SIGTERM, and SIGKILL after a grace."""
        self._undo.close()


def remove_abandoned(folder: Path) -> int:
    """Delete what private servers left in `folder` whose parents were killed; how many they were."""
    removed = 0
    for owner in sorted(folder.glob(f"{PREFIX}*/{OWNER}")):
        try:
            descriptor = os.open(owner, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, PermissionError):
            # Gone meanwhile, or another user's.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner.parent, ignore_errors=True)
            removed += 1
        except BlockingIOError:
            # Its parent lives.
            continue
        finally:
            os.close(descriptor)
    return removed


def _locked(folder: Path) -> int:
    """A lock in `folder` that ends with this process; it is never seen unlocked."""
    unnamed = folder / "locking"
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unnamed.rename(folder / OWNER)
    return descriptor


def _start(data: Path, address: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "memsvc.cli", "serve", "--data", str(data), "--listen", address]
    return subprocess.Popen(
        [*command, "--exit-with-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        # Ctrl-C is the parent's to handle: it still has a tail to save.
        start_new_session=True,
    )


def _await_ready(child: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    assert child.stdout is not None
    deadline, line = time.monotonic() + START_TIMEOUT_S, b""
    while not line.endswith(b"\n"):
        if not select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise MemoryUnavailable(f"expected a private memory server within {START_TIMEOUT_S} s, got none")
        read = child.stdout.read1(4096)  # type: ignore[attr-defined]
        if not read:
            break
        line += read
    if not line.startswith(READY):
        raise MemoryUnavailable(f"expected a private memory server to start, got: {_last_line(errors, line)}")


def _last_line(errors: IO[bytes], otherwise: bytes) -> str:
    errors.seek(0)
    lines = (errors.read().strip() or otherwise.strip() or b"no word from it").splitlines()
    return lines[-1].decode(errors="replace")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    finally:
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
