"""The small HTTP server, over real sockets."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

import pytest

from memsvc.errors import WrongState
from memsvc.metrics.http import HttpServer, Page


async def _fine() -> Page:
    return Page(200, b"fine\n")


async def _broken() -> Page:
    raise ZeroDivisionError("secret")


PAGES = {"/fine": _fine, "/broken": _broken}


async def _sent(address: str, data: bytes) -> bytes:
    """All that a server answers to these bytes."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    await writer.drain()
    try:
        return await reader.read()
    finally:
        writer.close()


def _served(work: Callable[[HttpServer], Awaitable[None]]) -> None:
    async def whole() -> None:
        server = await HttpServer.start("127.0.0.1:0", PAGES)
        try:
            await work(server)
        finally:
            await server.stop()

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /fine HTTP/1.1", "200 OK", "fine\n"),
        ("GET /fine?verbose=1 HTTP/1.0", "200 OK", "fine\n"),
        ("HEAD /fine HTTP/1.1", "200 OK", ""),
        ("GET /missing HTTP/1.1", "404 Not Found", "expected one of /fine, /broken\n"),
        ("POST /fine HTTP/1.1", "405 Method Not Allowed", "expected GET or HEAD\n"),
        ("GET /fine", "400 Bad Request", "expected an HTTP/1 request\n"),
        ("\x00\xff", "400 Bad Request", "expected an HTTP/1 request\n"),
    ],
)
def test_a_request_gets_its_page_or_says_what_is_wrong(request_line: str, status: str, body: str) -> None:
    """Proves status and body of each kind of request, and that HEAD gets the same head without the body."""

    async def work(server: HttpServer) -> None:
        answer = (await _sent(server.address, f"{request_line}\r\nHost: x\r\n\r\n".encode("latin-1"))).decode()
        head, _, rest = answer.partition("\r\n\r\n")
        assert (head.splitlines()[0], rest) == (f"HTTP/1.1 {status}", body)
        length = 5 if request_line.startswith("HEAD") else len(body)
        assert f"Content-Length: {length}" in head

    _served(work)


def test_a_page_that_fails_tells_the_log_and_not_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    """Proves that a bug is answered with 500 without its text, and that the server goes on."""

    async def work(server: HttpServer) -> None:
        answer = await _sent(server.address, b"GET /broken HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in answer
        assert (await _sent(server.address, b"GET /fine HTTP/1.1\r\n\r\n")).endswith(b"fine\n")

    with caplog.at_level(logging.ERROR):
        _served(work)
    assert [record.getMessage() for record in caplog.records] == ["http_failed"]


def test_a_head_without_an_end_is_refused() -> None:
    """Proves that a request takes a bounded amount of memory: one past the limit is answered and cut off."""

    async def work(server: HttpServer) -> None:
        answer = await _sent(server.address, b"GET /fine HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert answer.startswith(b"HTTP/1.1 400 ")

    _served(work)


def test_an_address_that_is_taken_is_refused_by_name() -> None:
    """Proves that a port somebody listens on is a typed error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WrongState, match=f"expected a free address, got {address}") as raised:
            asyncio.run(HttpServer.start(address, PAGES))
    assert raised.value.reason == "ADDRESS_UNAVAILABLE"
