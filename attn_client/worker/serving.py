"""A worker's HTTP server: its socket, its one line once it listens, and its end on a signal."""

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from attn_client.errors import InvalidSettings

# What answers that are under way get to finish after a signal.
STOP_GRACE_S = 5


@contextlib.contextmanager
def bound(address: str) -> Iterator[socket.socket]:
    """A socket at HOST:PORT (port 0: any), not listening yet.

    Raises:
        InvalidSettings: Not such an address, or not to be had, as when its port is in use.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidSettings(f"--http: expected HOST:PORT, got {address!r}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, int(port)))
        except OSError as error:
            raise InvalidSettings(f"--http: expected an address to listen at, got {address!r}: {error}") from error
        yield listener


class _Announced(uvicorn.Server):
    """Says on standard output when it listens."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._line, flush=True)


def serve(app: FastAPI, listener: socket.socket, model: str) -> None:
    """Serve until SIGTERM (returns) or SIGINT (KeyboardInterrupt)."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_GRACE_S,
        # Of a request's line and headers together.
        h11_max_incomplete_event_size=64 << 10,
    )

    def end(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    # The server stops in order at a signal, then raises it again: it is to end the process by unwinding it.
    before = signal.signal(signal.SIGTERM, end)
    try:
        server = _Announced(config, f"attn-client: serving {model} on http://{shown}:{port}")
        with contextlib.suppress(SystemExit):
            server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
