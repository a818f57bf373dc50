"""The error interceptor, on a real server: one status for everything that a handler raises."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from memsvc.errors import StaleEpoch
from memsvc.rpc.interceptor import ErrorInterceptor
from protos.memsvc.v1 import session_pb2, session_pb2_grpc


async def _stale(request: Any, context: Any) -> Any:
    raise StaleEpoch("expected epoch 2, got 1")


async def _broken(request: Any, context: Any) -> Any:
    raise ZeroDivisionError("secret")


async def _unfinished(request: Any, context: Any) -> Any:
    raise NotImplementedError


async def _stale_midway(request: Any, context: Any) -> AsyncIterator[bytes]:
    yield b"first"
    raise StaleEpoch("expected epoch 2, got 1")


async def _stale_writer(request: Any, context: Any) -> None:
    await context.write(b"first")
    raise StaleEpoch("expected epoch 2, got 1")


async def _aborted(request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.OUT_OF_RANGE, "its own words")


_HANDLERS = {
    "Stale": grpc.unary_unary_rpc_method_handler(_stale),
    "Broken": grpc.unary_unary_rpc_method_handler(_broken),
    "StaleMidway": grpc.unary_stream_rpc_method_handler(_stale_midway),
    "StaleWriter": grpc.stream_stream_rpc_method_handler(_stale_writer),
    "Aborted": grpc.unary_unary_rpc_method_handler(_aborted),
}


async def _call(channel: grpc.aio.Channel, method: str, received: list[bytes]) -> None:
    if method == "StaleMidway":
        async for response in channel.unary_stream(f"/test.Test/{method}")(b"", timeout=10):
            received.append(response)
    elif method == "StaleWriter":
        async for response in channel.stream_stream(f"/test.Test/{method}")([b""], timeout=10):
            received.append(response)
    else:
        await channel.unary_unary(f"/test.Test/{method}")(b"", timeout=10)


async def _error(method: str, folder: Path) -> tuple[grpc.aio.AioRpcError, list[bytes]]:
    """The error that a call of a method ends with, and what came before it."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", _HANDLERS)])
    address = f"unix://{folder}/socket"
    server.add_insecure_port(address)
    await server.start()
    received: list[bytes] = []
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await _call(channel, method, received)
    finally:
        await server.stop(0)
    return raised.value, received


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    metadata = dict(error.trailing_metadata())
    (detail,) = rpc_status.status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    return info


@pytest.mark.parametrize(
    ("method", "before"), [("Stale", []), ("StaleMidway", [b"first"]), ("StaleWriter", [b"first"])]
)
def test_a_known_error_keeps_its_reason_and_words(method: str, before: list[bytes], tmp_path: Path) -> None:
    """Proves that single answers, generators and writers alike end with the error's own status."""
    error, received = asyncio.run(_error(method, tmp_path))
    assert (error.code(), error.details(), received) == (
        grpc.StatusCode.ABORTED,
        "expected epoch 2, got 1",
        before,
    )
    assert (_info(error).reason, _info(error).domain) == ("STALE_EPOCH", "memsvc")


def test_an_unknown_error_says_nothing_but_a_log_id(tmp_path: Path) -> None:
    """Proves that the text of a bug never reaches a caller."""
    error, _ = asyncio.run(_error("Broken", tmp_path))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert (error.details() or "").startswith("internal error, log id ")
    assert "secret" not in (error.details() or "")
    assert _info(error).reason == "INTERNAL"


def test_an_abort_and_an_unknown_method_are_grpcs_own(tmp_path: Path) -> None:
    """Proves that what gRPC raises passes untouched."""
    aborted, _ = asyncio.run(_error("Aborted", tmp_path))
    assert (aborted.code(), aborted.details()) == (grpc.StatusCode.OUT_OF_RANGE, "its own words")
    missing, _ = asyncio.run(_error("Missing", tmp_path))
    assert missing.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_method_that_its_servicer_lacks_is_unimplemented(tmp_path: Path) -> None:
    """Proves that a method of a .proto that nobody wrote is no internal error, and that a bug of that kind is one."""

    async def called() -> list[grpc.StatusCode]:
        server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        session_pb2_grpc.add_SessionServiceServicer_to_server(session_pb2_grpc.SessionServiceServicer(), server)
        broken = {"Broken": grpc.unary_unary_rpc_method_handler(_unfinished)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", broken)])
        server.add_insecure_port(f"unix://{tmp_path}/socket")
        await server.start()
        codes = []
        async with grpc.aio.insecure_channel(f"unix://{tmp_path}/socket") as channel:
            for method in ("protos.memsvc.v1.SessionService/GetSession", "test.Test/Broken"):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await channel.unary_unary(f"/{method}")(b"", timeout=10)
                codes.append(raised.value.code())
        await server.stop(0)
        return codes

    assert asyncio.run(called()) == [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL]


def test_a_real_service_is_guarded_by_its_generated_handlers(tmp_path: Path) -> None:
    """Proves that request and answer codecs of the generated code survive the wrapping."""

    class Sessions(session_pb2_grpc.SessionServiceServicer):
        async def GetSession(self, request: session_pb2.GetSessionRequest, context: Any) -> Any:
            return session_pb2.GetSessionResponse(session={"name": request.name})

    async def asked() -> str:
        server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        session_pb2_grpc.add_SessionServiceServicer_to_server(Sessions(), server)
        server.add_insecure_port(f"unix://{tmp_path}/socket")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix://{tmp_path}/socket") as channel:
            stub = session_pb2_grpc.SessionServiceStub(channel)
            answer = await stub.GetSession(session_pb2.GetSessionRequest(name="a"), timeout=10)
        await server.stop(0)
        return answer.session.name

    assert asyncio.run(asked()) == "a"
