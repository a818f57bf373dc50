"""A memory server as a person runs it: a process of its own, that can be killed, slowed down and started again."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class ServerProcess:
    """`memsvc serve` over one data folder and one Unix socket; the folder outlives it.

    `arguments` are more of its command line, and may change between two starts.
    """

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.arguments = arguments
        data.mkdir(parents=True, exist_ok=True)
        self.address = f"unix://{data.parent / 'server.sock'}"
        self._child: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Start, and return once it listens."""
        command = [sys.executable, "-m", "memsvc.cli", "serve", "--data", str(self.data), "--listen", self.address]
        self._child = subprocess.Popen([*command, *self.arguments], stdout=subprocess.PIPE, text=True)
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert "listening" in line, line

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self._child is None:
            return 0
        child, self._child = self._child, None
        os.kill(child.pid, signal.SIGCONT)
        child.send_signal(number)
        code = child.wait(timeout=30)
        assert child.stdout is not None
        child.stdout.close()
        return code

    def __enter__(self) -> "ServerProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def slowed(pid: int, share: float, period_s: float = 0.05) -> Iterator[None]:
    """Let a process run only this share of the time, by stopping and continuing it."""
    done = threading.Event()

    def throttle() -> None:
        while not done.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(period_s * (1 - share))
            os.kill(pid, signal.SIGCONT)
            time.sleep(period_s * share)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process not run at all."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
