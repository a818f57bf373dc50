"""Attach streams of one worker that come at the same time, on a real node."""

import asyncio
import contextlib
from pathlib import Path

import grpc

from protos.memsvc.v1 import memory_pb2
from tests.integration.fuzz_node import AioStream, FuzzNode, fuzz_node
from tests.integration.server_process import TIMEOUT_S

STREAMS, ROUNDS = 4, 25


async def _ending(stream: AioStream) -> grpc.StatusCode:
    """The code of a stream that is read to its end: before that there is none."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        while await stream.call.read() is not grpc.aio.EOF:
            pass
    return await stream.call.code()


async def _replaced(node: FuzzNode) -> list[grpc.StatusCode]:
    """Codes of all streams of one worker but the last to enter; each sends its first request and no more."""
    streams = [AioStream(node.stubs(), "same") for _ in range(STREAMS)]
    hello = memory_pb2.AttachRequest(hello=memory_pb2.Hello(protocol_version=1, worker="same")).SerializeToString()
    await asyncio.gather(*(stream.call.write(hello) for stream in streams))
    ended = asyncio.as_completed([_ending(stream) for stream in streams], timeout=TIMEOUT_S)
    codes = [await next(ended) for _ in range(STREAMS - 1)]
    for stream in streams:
        stream.call.cancel()
    return [*codes, await next(ended)]


def test_streams_of_one_worker_that_come_at_once_all_end_but_one(tmp_path: Path) -> None:
    """Proves that a stream that is replaced while its first answer is on its way ends with its error, and does not stay
    open without one: its worker would wait for ever."""

    async def rounds() -> list[list[grpc.StatusCode]]:
        async with fuzz_node(tmp_path) as node:
            return [await _replaced(node) for _ in range(ROUNDS)]

    replaced = [grpc.StatusCode.FAILED_PRECONDITION] * (STREAMS - 1)
    assert asyncio.run(rounds()) == [[*replaced, grpc.StatusCode.CANCELLED]] * ROUNDS
