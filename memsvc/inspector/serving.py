"""The inspector beside the pages for machines, on the node's event loop.

Must not know: what pages show.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import cast

import uvicorn

from memsvc.inspector.door import Door
from memsvc.inspector.entrance import Application
from memsvc.inspector.pages import make_app
from memsvc.listening import require_free, unavailable
from memsvc.metrics.http import Pages

_CONNECTIONS_MAX = 256
_HEAD_BYTES_MAX = 16 * 1024
_IDLE_S = 10
_STOP_S = 1


class _Uvicorn(uvicorn.Server):
    """Signals are the node's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


class InspectorServer:
    """Serves the inspector; made by `start`.

    Attributes:
        address: HOST:PORT, with the port that was taken.
    """

    def __init__(self, address: str, application: Application) -> None:
        self.address = address
        config = uvicorn.Config(
            cast("uvicorn._types.ASGIApplication", application),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            http="h11",
            loop="none",
            server_header=False,
            limit_concurrency=_CONNECTIONS_MAX,
            h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=_STOP_S,
        )
        self._server = _Uvicorn(config)
        self._serving: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, address: str, pages: Pages, door: Door) -> "InspectorServer":
        """A server that listens on HOST:PORT. Raises WrongState (ADDRESS_UNAVAILABLE)."""
        require_free(address)
        host, _, port = address.rpartition(":")
        name = host.strip("[]")
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        try:
            listener = socket.create_server((name, int(port)), family=family, backlog=_CONNECTIONS_MAX)
        except OSError as error:
            raise unavailable(address, error.strerror or str(error)) from error
        taken = f"{host}:{listener.getsockname()[1]}"
        own = cls(taken, make_app(door, pages, taken))
        own._serving = asyncio.create_task(own._server.serve(sockets=[listener]))
        return own

    async def stop(self) -> None:
        """Listen no more; answers that are being written get a moment."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._serving = None
