"""A small HTTP server for what machines fetch: numbers, and whether the node lives and takes work.

    GET or HEAD, one request a connection; the answer says `Connection: close`.

It runs on the node's event loop, so that an answer shows that the loop turns.

Invariants:
    A request ends within `_REQUEST_TIMEOUT_S`, and takes at most `_HEAD_BYTES_MAX`; its body is not read.
Must not know: what the pages say.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from memsvc.lines import emit
from memsvc.listening import require_free, unavailable

_REQUEST_TIMEOUT_S = 10.0
_HEAD_BYTES_MAX = 16 * 1024
_CONNECTIONS_MAX = 64
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    """One answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Awaitable[Page]]]


class HttpServer:
    """Serves the pages by their paths; made by `start`.

    Attributes:
        address: HOST:PORT, with the port that was taken.
    """

    def __init__(self, pages: Pages) -> None:
        self.address = ""
        self._pages = pages
        self._open = 0
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(cls, address: str, pages: Pages) -> "HttpServer":
        """A server that listens on HOST:PORT. Raises WrongState (ADDRESS_UNAVAILABLE)."""
        require_free(address)
        host, _, port = address.rpartition(":")
        own = cls(pages)
        try:
            own._server = await asyncio.start_server(own._serve, host.strip("[]"), int(port), limit=_HEAD_BYTES_MAX)
        except OSError as error:
            raise unavailable(address, error.strerror or str(error)) from error
        own.address = f"{host}:{own._server.sockets[0].getsockname()[1]}"
        return own

    async def stop(self) -> None:
        """Listen no more; answers that are being written are cut off."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            # The peer may leave or dawdle whenever it likes; that is no event.
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                    if self._open <= _CONNECTIONS_MAX:
                        await self._answer(reader, writer)
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = b""
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        page = await self._page(method, rest)
        lines = (
            f"HTTP/1.1 {page.status} {_REASONS[page.status]}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(page.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        )
        writer.write("\r\n".join((*lines, "", "")).encode() + (b"" if method == b"HEAD" else page.body))
        await writer.drain()

    async def _page(self, method: bytes, rest: bytes) -> Page:
        target, _, version = rest.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return Page(400, b"expected an HTTP/1 request\n")
        if method not in (b"GET", b"HEAD"):
            return Page(405, b"expected GET or HEAD\n")
        make = self._pages.get(target.partition(b"?")[0].decode("latin-1"))
        if make is None:
            return Page(404, f"expected one of {', '.join(self._pages)}\n".encode())
        try:
            return await make()
        except Exception as error:
            emit(_LOGGER, logging.ERROR, "http_failed", error)
            return Page(500, b"the page could not be made; the log says why\n")
