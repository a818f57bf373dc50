"""A real redis-server on a free loopback port, with an append-only file in a folder of its own."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

from memsvc.manifest.address import RedisAddress
from memsvc.manifest.redis_state import RedisState

PREFIX = "{memsvc:1}:"
TIMEOUT_S = 30

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs Debian's redis-server")


class RedisProcess:
    """A server that keeps its port and its folder from one start to the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        # Specs are bytes, which this encoding keeps as they are.
        self.client = redis.Redis(port=self.port, decode_responses=True, encoding="latin-1", protocol=2)
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers; each write is on the disk before it is answered."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        told = []
        for line in self._process.stdout:
            told.append(line)
            if "Ready to accept connections" in line:
                return
        raise AssertionError("".join(told))

    def kill(self) -> None:
        """Ends it as kill -9 does. A second call does nothing."""
        self._process.kill()
        self._process.wait(TIMEOUT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stop(self) -> None:
        """It answers nothing until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answers again, what came meanwhile first."""
        self._process.send_signal(signal.SIGCONT)

    def copy_to(self, folder: Path) -> None:
        """Keeps what it holds now: what a replica holds that hears nothing more from here on."""
        shutil.copytree(self._folder, folder)

    def fail_over_to(self, folder: Path) -> None:
        """Ends it, and starts one in its place that holds what was copied to that folder."""
        self.kill()
        shutil.rmtree(self._folder)
        shutil.copytree(folder, self._folder)
        self.start()

    def address(self, lease_ms: int) -> RedisAddress:
        """Where nodes find it."""
        return RedisAddress("127.0.0.1", self.port, lease_ms=lease_ms)

    def url(self, lease_ms: int) -> str:
        """The same, as `--manifest` takes it."""
        return f"redis://127.0.0.1:{self.port}/0?lease_ms={lease_ms}"

    def settle(self, lease_ms: int) -> None:
        """Spares nodes the wait for leases of an earlier Redis, where the test knows that there are none."""
        state = RedisState(self.address(lease_ms))
        state.join()
        state.close()
        self.client.delete(f"{PREFIX}settling")

    def lease_ended(self, name: str) -> None:
        """Waits until nobody has the lease of a session."""
        while (left_ms := self.client.pttl(f"{PREFIX}lease:{name}")) >= 0:
            time.sleep((left_ms + 1) / 1000)

    def manifest(self) -> dict[str, object]:
        """All that nodes told it: sessions, nodes, epochs, owners of leases; without who the server is."""
        held: dict[str, object] = {}
        for key in self.client.scan_iter():
            kind = self.client.type(key)
            if kind == "hash" and key != f"{PREFIX}server":
                held[key] = self.client.hgetall(key)
            elif kind == "set":
                held[key] = self.client.smembers(key)
            elif kind == "string" and key != f"{PREFIX}settling":
                held[key] = self.client.get(key)
        return held
