"""What is noted of calls, on a real server."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from memsvc.errors import CorruptBlock, StaleEpoch
from memsvc.lines import JsonLines, session_tag
from memsvc.metrics import Metrics
from memsvc.rpc.interceptor import ErrorInterceptor
from memsvc.rpc.observing import ObservingInterceptor
from protos.memsvc.v1 import session_pb2

NAME = "canary-name"


class Noted(Metrics):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.refusals: list[tuple[str, str]] = []

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """Keep it."""
        assert 0 < seconds < 60
        self.calls.append((method, code))

    def refused(self, reason: str, code: str) -> None:
        """Keep it."""
        self.refusals.append((reason, code))


async def _fine(request: Any, context: Any) -> bytes:
    return b""


async def _stale(request: Any, context: Any) -> bytes:
    raise StaleEpoch("expected epoch 2, got 1")


async def _broken(request: Any, context: Any) -> bytes:
    raise ZeroDivisionError(NAME)


async def _damaged(request: Any, context: Any) -> AsyncIterator[bytes]:
    yield b"first"
    raise CorruptBlock("expected 1, got 2")


async def _endless(request: Any, context: Any) -> AsyncIterator[bytes]:
    while True:
        yield b"again"
        await asyncio.sleep(0)


async def _left(request: Any, context: Any) -> bytes:
    # As gRPC does for what is written to a call that its caller has left.
    raise grpc.aio.InternalError("Failed grpc_call_start_batch")


_DECODE = session_pb2.OpenSessionRequest.FromString
_HANDLERS = {
    "Fine": grpc.unary_unary_rpc_method_handler(_fine, _DECODE),
    "Stale": grpc.unary_unary_rpc_method_handler(_stale, _DECODE),
    "Broken": grpc.unary_unary_rpc_method_handler(_broken, _DECODE),
    "Damaged": grpc.unary_stream_rpc_method_handler(_damaged, _DECODE),
    "Left": grpc.unary_unary_rpc_method_handler(_left, _DECODE),
    "Endless": grpc.unary_stream_rpc_method_handler(_endless, _DECODE),
}
_REQUEST = session_pb2.OpenSessionRequest(session=NAME, resume_epoch=7).SerializeToString()


async def _call(channel: grpc.aio.Channel, method: str, request_id: str) -> None:
    path, metadata = f"/test.Test/{method}", (("x-request-id", request_id),)
    if method == "Endless":
        call = channel.unary_stream(path)(_REQUEST, timeout=10, metadata=metadata)
        await call.read()
        call.cancel()
    elif method == "Damaged":
        async for _ in channel.unary_stream(path)(_REQUEST, timeout=10, metadata=metadata):
            pass
    else:
        await channel.unary_unary(path)(_REQUEST, timeout=10, metadata=metadata)


async def _served(folder: Path, method: str, request_id: str) -> Noted:
    """What is noted once one call has ended on both sides."""
    noted = Noted()
    server = grpc.aio.server(interceptors=[ObservingInterceptor(noted), ErrorInterceptor()])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", _HANDLERS)])
    server.add_insecure_port(f"unix://{folder}/socket")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix://{folder}/socket") as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await _call(channel, method, request_id)
    # Waits for handlers that are still ending.
    await server.stop(10)
    return noted


@pytest.mark.parametrize(
    ("method", "call", "refusals"),
    [
        ("Fine", ("Test/Fine", "OK"), []),
        ("Stale", ("Test/Stale", "ABORTED"), [("STALE_EPOCH", "ABORTED")]),
        ("Broken", ("Test/Broken", "INTERNAL"), [("INTERNAL", "INTERNAL")]),
        ("Damaged", ("Test/Damaged", "DATA_LOSS"), [("CORRUPT_BLOCK", "DATA_LOSS")]),
        ("Endless", ("Test/Endless", "CANCELLED"), []),
        ("Left", ("Test/Left", "CANCELLED"), []),
        ("Nobodys", ("other", "UNIMPLEMENTED"), []),
    ],
)
def test_each_call_is_noted_once_with_its_code(
    method: str, call: tuple[str, str], refusals: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Proves method, code and reason of calls that end well, with errors, by leaving, and of none that there is."""
    noted = asyncio.run(_served(tmp_path, method, "r-1"))
    assert (noted.calls, noted.refusals) == ([call], refusals)


def _line(method: str, request_id: str, folder: Path, caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    with caplog.at_level(logging.INFO, "memsvc.rpc.observing"):
        asyncio.run(_served(folder, method, request_id))
    (record,) = (one for one in caplog.records if one.name == "memsvc.rpc.observing")
    text = JsonLines().format(record)
    assert NAME not in text
    return dict(json.loads(text))


def test_a_call_is_one_line_with_the_callers_id_and_no_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Proves the fields of a line, that a session stands there by its tag, and that refusals are no alarm."""
    line = _line("Stale", "r-1", tmp_path, caplog)
    assert {key: line[key] for key in line.keys() - {"time", "seconds"}} == {
        "level": "info",
        "event": "call",
        "method": "Test/Stale",
        "code": "ABORTED",
        "reason": "STALE_EPOCH",
        "request": "r-1",
        "session": session_tag(NAME),
        "epoch": 7,
    }


def test_an_id_of_another_form_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Proves that what a caller sends as its id reaches the log only if it looks like one."""
    line = _line("Fine", "no id: a sentence", tmp_path, caplog)
    assert len(line["request"]) == 16
    assert int(line["request"], 16) >= 0


def test_a_bug_is_an_error_in_the_log_without_its_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Proves that a call that failed by our fault stands out, and that its exception's text stays out."""
    assert _line("Broken", "r-2", tmp_path, caplog)["level"] == "error"
