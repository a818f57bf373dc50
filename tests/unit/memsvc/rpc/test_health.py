"""Health of the node and its services, as gRPC tells it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memsvc.rpc.health import LIVE, READY, WHOLE, Condition, Health
from memsvc.server import SERVICES

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# Nobody looks by itself within a test.
NEVER_S = 3600.0
NAMES = {name.rpartition(".")[2]: name for name in SERVICES}


def _served(folder: Path, work: Callable[[Health, list[Condition], Any], Awaitable[None]]) -> None:
    """Runs work with a health that is served, the condition it will find, and a stub."""

    async def whole() -> None:
        found = [Condition()]

        async def look() -> Condition:
            return found[0]

        health, server = Health(SERVICES, look, NEVER_S), grpc.aio.server()
        health.add_to(server)
        server.add_insecure_port(f"unix://{folder}/socket")
        await health.start()
        await server.start()
        async with grpc.aio.insecure_channel(f"unix://{folder}/socket") as channel:
            await work(health, found, health_pb2_grpc.HealthStub(channel))
        await health.stop()
        await server.stop(0)

    asyncio.run(whole())


async def _not_serving(stub: Any) -> set[str]:
    """Short names of what does not serve."""
    wrong = set()
    for name in (WHOLE, LIVE, READY, *SERVICES):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        if answer.status != SERVING:
            wrong.add(name.rpartition(".")[2])
    return wrong


@pytest.mark.parametrize(
    ("condition", "wrong"),
    [
        (Condition(), set()),
        (Condition(manifest="gone"), {WHOLE, READY, "SessionService"}),
        (Condition(writes="failed"), {WHOLE, READY, "SessionService", "MemoryService", "BlockService"}),
    ],
)
def test_each_trouble_stops_what_needs_what_is_gone(condition: Condition, wrong: set[str], tmp_path: Path) -> None:
    """Proves which names stop serving for which trouble, and that all serve again after it."""

    async def work(health: Health, found: list[Condition], stub: Any) -> None:
        assert await _not_serving(stub) == set()
        found[0] = condition
        await health.look()
        assert await _not_serving(stub) == wrong
        found[0] = Condition()
        await health.look()
        assert await _not_serving(stub) == set()

    _served(tmp_path, work)


def test_draining_is_for_good_and_leaves_the_node_alive(tmp_path: Path) -> None:
    """Proves that a look after the drain began brings nothing back, and that `live` alone goes on."""

    async def work(health: Health, found: list[Condition], stub: Any) -> None:
        await health.drain()
        await health.look()
        assert await _not_serving(stub) == {WHOLE, READY, *NAMES}
        assert health.condition.problems() == ("draining: about to stop",)

    _served(tmp_path, work)


def test_who_watches_is_told_of_a_change(tmp_path: Path) -> None:
    """Proves that a watcher hears of trouble when it is seen, without asking again."""

    async def work(health: Health, found: list[Condition], stub: Any) -> None:
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=READY), timeout=10)
        assert (await watch.read()).status == SERVING
        found[0] = Condition(writes="failed")
        await health.look()
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()

    _served(tmp_path, work)


def test_a_look_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Proves that a bug in looking is logged, and neither ends the watch nor the service."""

    async def broken() -> Condition:
        raise ZeroDivisionError("secret")

    async def whole() -> None:
        health = Health(SERVICES, broken, NEVER_S)
        await health.look()
        assert health.condition == Condition()

    asyncio.run(whole())
    assert [record.getMessage() for record in caplog.records] == ["health_failed"]
