"""Clients that a server must not suffer from, in a process of their own: `python -m benchmarks.slow_clients ADDRESS`.

    idle        Attach streams that said Hello and say nothing more
    unread      streams whose answers nobody reads: steps sent again and again, each answered by a recall; a block put
                again and again; far more blocks fetched than any buffer holds
    half        blocks of which the first half was sent, streams that never say Hello, connections that broke off in the
                middle of HTTP/2's first bytes

Says "stuck" on standard output once every sender of `unread` is held up, and stays so until its standard input ends.
"""

import argparse
import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import grpc
import numpy as np

from protos import codec
from protos.memsvc.v1 import (
    block_pb2,
    block_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    types_pb2,
)

SESSION, DIMS, TOKENS, BLOCK_BYTES, FETCHED_BLOCKS = "slow", 8, 128, 64 * 1024, 4096
# A sender that gets nothing away for so long is held up.
HELD_UP_S = 1.0
TIMEOUT_S = 60.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True)
class Crowd:
    """How many there are of each kind; of `unread` and `half`, of each of the three in it."""

    idle: int = 256
    unread: int = 8
    half: int = 16


def main() -> None:
    """Be a crowd of slow clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    for name, count in vars(Crowd()).items():
        parser.add_argument(f"--{name}", type=int, default=count)
    chosen = parser.parse_args()
    asyncio.run(_crowd(chosen.address, Crowd(chosen.idle, chosen.unread, chosen.half)))


async def _crowd(address: str, crowd: Crowd) -> None:
    async with contextlib.AsyncExitStack() as stack:
        unread = [await stack.enter_async_context(_unread(address, at)) for at in range(crowd.unread)]
        stack.enter_context(_half_connections(address, crowd.half))
        channel = await stack.enter_async_context(_channel(address))
        half = [_half(channel, at) for at in range(crowd.half)]
        idle = [_idle(channel, at) for at in range(crowd.idle)]
        calls = [*await asyncio.gather(*half), *await asyncio.gather(*idle)]
        await asyncio.gather(*(one for own in unread for one in own.held_up))
        print("stuck", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for call in (*calls, *(call for own in unread for call in own.calls)):
            call.cancel()


@contextlib.asynccontextmanager
async def _channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    # Without probing, what this side takes in unread is HTTP/2's first window, 64 KiB, and senders are soon held up.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


def _attach(channel: grpc.aio.Channel) -> Any:
    # The types of the stubs are those of grpc without asyncio.
    stub: Any = memory_pb2_grpc.MemoryServiceStub(channel)
    return stub.Attach()


def _blocks(channel: grpc.aio.Channel) -> Any:
    stub: Any = block_pb2_grpc.BlockServiceStub(channel)
    return stub


def _hello(worker: str) -> memory_pb2.AttachRequest:
    return memory_pb2.AttachRequest(hello=memory_pb2.Hello(protocol_version=1, worker=worker))


async def _idle(channel: grpc.aio.Channel, at: int) -> Any:
    call = _attach(channel)
    await call.write(_hello(f"idle-{at}"))
    if not (await call.read()).HasField("welcome"):
        raise SystemExit(f"expected a welcome of worker idle-{at}, got none")
    return call


async def _half(channel: grpc.aio.Channel, at: int) -> Any:
    """The first half of a block, or of a stream that never says Hello nothing at all."""
    if at % 2:
        return _attach(channel)
    call = _blocks(channel).PutBlocks()
    await call.write(_put(f"{SESSION}-0", 1, bytes(BLOCK_BYTES // 2), 0))
    return call


@contextlib.contextmanager
def _half_connections(address: str, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for at in range(count):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(address.removeprefix("unix://"))
            one.sendall(_PREFACE[: 1 + at % len(_PREFACE)])
        yield


@dataclass(frozen=True)
class Unread:
    """Calls whose answers nobody reads, and what ends once each of their senders is held up."""

    calls: Sequence[Any]
    held_up: Sequence["asyncio.Task[None]"]


@contextlib.asynccontextmanager
async def _unread(address: str, at: int) -> AsyncIterator[Unread]:
    """On a channel of its own: what is held up here holds up nobody else."""
    name = f"{SESSION}-{at}"
    async with _channel(address) as channel:
        attached, blocks = _attach(channel), _blocks(channel)
        await attached.write(_hello(name))
        await attached.read()
        epoch = await _opened(channel, name)
        step = memory_pb2.AttachRequest(steps=memory_pb2.StepBatch(steps=[_step(name, epoch)]))
        await attached.write(step)
        await attached.read()
        puts = blocks.PutBlocks()
        whole = _put(name, epoch, bytes(BLOCK_BYTES), google_crc32c.value(bytes(BLOCK_BYTES)))
        await puts.write(whole)
        await puts.read()
        fetch = block_pb2.GetBlocksRequest(attachment=name, blocks=[0] * FETCHED_BLOCKS)
        fetched = blocks.GetBlocks(fetch)
        await fetched.read()
        senders = [asyncio.create_task(_until_held_up(call, one)) for call, one in ((attached, step), (puts, whole))]
        yield Unread([attached, puts, fetched], senders)


async def _until_held_up(call: Any, message: object) -> None:
    """Sends the same again and again."""
    while True:
        sending = asyncio.ensure_future(call.write(message))
        done, _ = await asyncio.wait([sending], timeout=HELD_UP_S)
        if not done:
            return
        sending.result()


async def _opened(channel: grpc.aio.Channel, name: str) -> int:
    """Makes the session and opens its writer, who has the session's name, as its worker has; the epoch."""
    sessions: Any = session_pb2_grpc.SessionServiceStub(channel)
    created = session_pb2.CreateSessionRequest(name=name, spec=_spec())
    await sessions.CreateSession(created, timeout=TIMEOUT_S)
    request = session_pb2.OpenSessionRequest(
        session=name,
        mode=session_pb2.OPEN_MODE_WRITER,
        fingerprint=_spec().fingerprint,
        worker=name,
        attachment=name,
    )
    opened = await sessions.OpenSession(request, timeout=TIMEOUT_S)
    return int(opened.epoch)


def _spec() -> types_pb2.SessionSpec:
    mark = types_pb2.Fingerprint(
        model="a" * 64,
        tokenizer="b" * 64,
        rope="c" * 64,
        dtype=types_pb2.ELEMENT_TYPE_BFLOAT16,
        sink_tokens=64,
        window_tokens=64,
        chunk_tokens=64,
        budget_blocks=4,
        streams=[types_pb2.StreamSpec(name="probe", dims=DIMS)],
        block_bytes=BLOCK_BYTES,
    )
    search = types_pb2.SearchSpec(
        finder=types_pb2.FINDER_KIND_FLAT,
        trail_blocks=4,
        trail_decay=0.95,
        trail_tokens=32,
        links_max=2,
        link_similarity_min=0.2,
        centring_tokens=64,
    )
    return types_pb2.SessionSpec(
        fingerprint=mark, policy=types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_EVERY), search=search
    )


def _step(name: str, epoch: int) -> memory_pb2.Step:
    rows = np.random.default_rng(0).standard_normal((TOKENS, DIMS)).astype(np.float32)
    return memory_pb2.Step(
        attachment=name,
        epoch=epoch,
        seq=1,
        count=TOKENS,
        embeddings={"probe": codec.encode(rows)},
        recall=memory_pb2.RecallRequest(top_blocks=2, budget_blocks=4, deadline_ms=1000),
    )


def _put(name: str, epoch: int, data: bytes, crc32c: int) -> block_pb2.PutBlocksRequest:
    return block_pb2.PutBlocksRequest(attachment=name, epoch=epoch, block=0, crc32c=crc32c, chunk=data)


if __name__ == "__main__":
    main()
