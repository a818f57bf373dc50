"""The gate before every handler, on a real server over real sessions: rates, quotas, and credentials that change."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from memsvc.auth.caller import Caller, Scope, anyone
from memsvc.auth.quotas import Quotas, no_quotas
from memsvc.auth.token_file import LOOK_EVERY_S, TokenFile
from memsvc.rpc.block_service import BlockService
from memsvc.rpc.gate import Gate
from memsvc.rpc.interceptor import ErrorInterceptor
from memsvc.rpc.memory_service import MemoryService
from memsvc.rpc.node import Node
from memsvc.rpc.progress import Progress
from memsvc.rpc.session_service import SessionService
from memsvc.rpc.threads import Threads
from memsvc.rpc.workers import Workers
from memsvc.settings import LimitSettings, ThreadSettings
from memsvc.usage import usage_of
from protos.memsvc.v1 import (
    block_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from tests import session_driver
from tests.credential_book import CredentialBook, HandClock, authorization
from tests.integration.server_process import BLOCK_BYTES, TIMEOUT_S, block_data, put, spec, step

EXHAUSTED, UNAUTHENTICATED = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED


class Place:
    """A node behind a gate: its token file, its clock, and calls that bear a secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = HandClock()
        self.book = CredentialBook(folder / "tokens.toml")
        self.stored = session_driver.Node(folder / "data")

    def served(self, work: Callable[["Calls"], Awaitable[None]]) -> None:
        """Does work beside the server."""
        asyncio.run(self._served(work))

    async def _served(self, work: Callable[["Calls"], Awaitable[None]]) -> None:
        threads = Threads(ThreadSettings())

        async def gone(worker: str) -> None:
            await threads.calls.run(self.stored.sessions.worker_gone, worker)

        file = TokenFile(self.book.path, self.clock)
        quotas = Quotas(file.quota, lambda tenant: usage_of(self.stored.data, self.stored.manifest, tenant), self.clock)
        node = Node(self.stored.sessions, Workers(gone), threads, Progress(), LimitSettings(), quotas)
        server = grpc.aio.server(interceptors=[ErrorInterceptor(), Gate(file.caller, quotas, threads.calls)])
        session_pb2_grpc.add_SessionServiceServicer_to_server(SessionService(node), server)
        memory_pb2_grpc.add_MemoryServiceServicer_to_server(MemoryService(node), server)
        block_pb2_grpc.add_BlockServiceServicer_to_server(BlockService(node), server)
        address = f"unix://{self.folder}/socket"
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await work(Calls(channel))
        finally:
            await server.stop(0)
            threads.close()


class Calls:
    """Calls of whoever holds a secret."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.sessions: Any = session_pb2_grpc.SessionServiceStub(channel)
        self.memory: Any = memory_pb2_grpc.MemoryServiceStub(channel)
        self.blocks: Any = block_pb2_grpc.BlockServiceStub(channel)

    async def create(self, secret: str, name: str) -> None:
        """Makes a session."""
        request = session_pb2.CreateSessionRequest(name=name, spec=spec())
        await self.sessions.CreateSession(request, timeout=TIMEOUT_S, metadata=authorization(secret))

    async def attached(self, secret: str, name: str) -> Any:
        """An Attach stream of worker `w` that writes a session through an attachment of its name."""
        await self.create(secret, name)
        call = self.memory.Attach(timeout=TIMEOUT_S, metadata=authorization(secret))
        await call.write(memory_pb2.AttachRequest(hello=memory_pb2.Hello(protocol_version=1, worker="w")))
        assert (await call.read()).HasField("welcome")
        request = session_pb2.OpenSessionRequest(
            session=name,
            mode=session_pb2.OPEN_MODE_WRITER,
            fingerprint=spec().fingerprint,
            worker="w",
            attachment=name,
        )
        await self.sessions.OpenSession(request, timeout=TIMEOUT_S, metadata=authorization(secret))
        return call


async def _sent(call: Any, name: str, seq: int) -> memory_pb2.AttachResponse:
    """What a step of 64 tokens is answered with."""
    own = step(name, 1, seq, 64 * (seq - 1))
    await call.write(memory_pb2.AttachRequest(steps=memory_pb2.StepBatch(steps=[own])))
    answer: memory_pb2.AttachResponse = await call.read()
    return answer


async def _ended(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, float]:
    """Code, reason and the seconds to wait, of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    metadata = dict(raised.value.trailing_metadata() or ())
    info, again = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in rpc_status.status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details:
        assert detail.Unpack(info) or detail.Unpack(again)
    return raised.value.code(), info.reason, again.retry_delay.ToMilliseconds() / 1000


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A node that nobody may call yet."""
    place = Place(tmp_path)
    yield place
    place.stored.close()


def test_calls_past_the_rate_are_refused_until_the_time_that_is_told(place: Place) -> None:
    """Proves RESOURCE_EXHAUSTED with RetryInfo, that another tenant is not held up, and that waiting helps."""
    place.book.write("[quota.acme]\ncalls_per_s = 4\n")
    acme, globex = place.book.bearer("acme"), place.book.bearer("globex")

    async def work(calls: Calls) -> None:
        for at in range(4):
            await calls.create(acme, f"s{at}")
        assert await _ended(calls.create(acme, "late")) == (EXHAUSTED, "RATE_EXCEEDED", 0.25)
        await calls.create(globex, "s0")
        place.clock.now_s += 0.25
        await calls.create(acme, "late")

    place.served(work)


def test_of_sessions_made_at_once_as_many_are_made_as_fit(place: Place) -> None:
    """Proves that a quota of sessions is not passed by calls side by side, that one that is there may be made again,
    and that another tenant's sessions do not count."""
    place.book.write("[quota.acme]\nsessions_max = 3\n")
    acme, globex = place.book.bearer("acme"), place.book.bearer("globex")

    async def work(calls: Calls) -> None:
        await calls.create(globex, "other")
        made = await asyncio.gather(*(calls.create(acme, f"s{at}") for at in range(8)), return_exceptions=True)
        assert sum(one is None for one in made) == 3
        assert {one.code() for one in made if isinstance(one, grpc.aio.AioRpcError)} == {EXHAUSTED}
        await calls.create(acme, f"s{made.index(None)}")
        code, reason, retry_s = await _ended(calls.create(acme, "more"))
        assert (code, reason) == (EXHAUSTED, "QUOTA_EXCEEDED")
        assert retry_s > 0

    place.served(work)


def test_a_stream_too_far_past_its_rate_ends_and_nothing_of_the_step_is_kept(place: Place) -> None:
    """Proves that the stream ends with the time to wait, and that the step is taken once it comes again."""
    place.book.write("[quota.acme]\ntokens_per_s = 8\n")
    secret = place.book.bearer("acme")

    async def work(calls: Calls) -> None:
        call = await calls.attached(secret, "paced")
        assert (await _sent(call, "paced", 1)).ack.seq == 1
        # 64 tokens at 8 a second: 8 s until the bucket is full again, 7 of them below empty.
        assert await _ended(_sent(call, "paced", 2)) == (EXHAUSTED, "RATE_EXCEEDED", 8.0)
        request = session_pb2.GetSessionRequest(name="paced")
        answer = await calls.sessions.GetSession(request, timeout=TIMEOUT_S, metadata=authorization(secret))
        assert answer.session.tokens == 64

    place.served(work)


def test_a_full_tenant_is_told_step_by_step_and_block_by_block(place: Place) -> None:
    """Proves that past the quota of bytes a step is a fault and a block is refused, and that both streams go on."""
    secret = place.book.bearer("acme")

    async def work(calls: Calls) -> None:
        call = await calls.attached(secret, "full")
        assert (await _sent(call, "full", 1)).ack.seq == 1
        place.book.write(f"[quota.acme]\nstored_bytes_max = {BLOCK_BYTES}\n")
        place.clock.now_s += LOOK_EVERY_S
        fault = (await _sent(call, "full", 2)).fault
        assert (fault.attachment, fault.seq, fault.reason) == ("full", 2, "QUOTA_EXCEEDED")
        puts = calls.blocks.PutBlocks(
            iter([put("full", 1, 0, block_data(0))] * 2), timeout=TIMEOUT_S, metadata=authorization(secret)
        )
        assert [answer.reason async for answer in puts] == ["QUOTA_EXCEEDED"] * 2
        place.book.write("[quota.globex]\nsessions_max = 1\n")
        place.book.replace(place.book.path.read_text().replace(f"= {BLOCK_BYTES}", "= 1000000"))
        place.clock.now_s += LOOK_EVERY_S
        assert (await _sent(call, "full", 2)).ack.seq == 2

    place.served(work)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda place, secret: place.book.forget(secret), "CREDENTIAL_INVALID"),
        (lambda place, secret: setattr(place.clock, "now_s", 5000.0), "CREDENTIAL_EXPIRED"),
        (
            lambda place, secret: place.book.replace(place.book.path.read_text().replace('"acme"', '"globex"')),
            "CREDENTIAL_CHANGED",
        ),
    ],
)
def test_a_stream_ends_when_its_credential_does(
    place: Place, change: Callable[[Place, str], None], reason: str
) -> None:
    """Proves that the next request after a credential was taken out, expired or given to another tenant ends the
    stream, and is not applied."""
    secret = place.book.bearer("acme", expires_unix_s=5000.0)
    keeper = place.book.bearer("keeper")

    async def work(calls: Calls) -> None:
        call = await calls.attached(secret, "held")
        assert (await _sent(call, "held", 1)).ack.seq == 1
        change(place, secret)
        place.clock.now_s += LOOK_EVERY_S
        code, came, _ = await _ended(_sent(call, "held", 2))
        assert (code, came) == (UNAUTHENTICATED, reason)
        # Whoever else is there goes on.
        await calls.create(keeper, "other")

    place.served(work)
    assert place.stored.sessions.get("acme/held").info().tokens == 64


async def _foreign(request: Any, context: Any) -> session_pb2.GetSessionResponse:
    return session_pb2.GetSessionResponse(session={"name": "globex/secret"})


async def _foreign_stream(request: Any, context: Any) -> AsyncIterator[session_pb2.GetSessionResponse]:
    yield session_pb2.GetSessionResponse(session={"name": "globex/secret"})


@pytest.mark.parametrize("streams", [False, True])
def test_a_response_that_bears_anothers_name_is_not_sent(streams: bool, tmp_path: Path) -> None:
    """Proves that even a handler that mixes up tenants tells a caller nothing of another one."""
    method = "ListSessions" if streams else "GetSession"
    serialize = session_pb2.GetSessionResponse.SerializeToString
    handler = (
        grpc.unary_stream_rpc_method_handler(_foreign_stream, response_serializer=serialize)
        if streams
        else grpc.unary_unary_rpc_method_handler(_foreign, response_serializer=serialize)
    )
    service = "protos.memsvc.v1.SessionService"

    def caller(authorization: Any, identities: Any) -> Caller:
        return Caller("acme", frozenset(Scope))

    async def called() -> grpc.aio.AioRpcError:
        threads = Threads(ThreadSettings())
        server = grpc.aio.server(interceptors=[ErrorInterceptor(), Gate(caller, no_quotas(), threads.calls)])
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
        server.add_insecure_port(f"unix://{tmp_path}/socket")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"unix://{tmp_path}/socket") as channel:
                kind = channel.unary_stream if streams else channel.unary_unary
                call: Any = kind(f"/{service}/{method}")(b"", timeout=TIMEOUT_S)
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await (call.read() if streams else call)
                return raised.value
        finally:
            await server.stop(0)
            threads.close()

    error = asyncio.run(called())
    assert error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert "globex" not in (error.details() or "")


def test_everybody_is_let_in_where_there_are_no_credentials() -> None:
    """Proves that the caller of an open server has no tenant and every scope."""
    assert anyone() == Caller("", frozenset(Scope))
