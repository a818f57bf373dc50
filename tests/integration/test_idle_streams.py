"""Streams on which nothing is said, kept by pings alone."""

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memsvc.server import Server
from memsvc.settings import ServerSettings, TimingSettings

# As often as the server is told to take them.
PING_MS = 1000
# Time for five pings; gRPC ends a connection at the third that comes too early.
SILENT_S = 5.5


def test_a_silent_client_that_pings_as_often_as_it_may_is_kept(tmp_path: Path) -> None:
    """Proves that the setting about pings reaches gRPC: a stream ends by its own deadline, not as a nuisance."""
    timing = TimingSettings(ping_interval_min_ms=PING_MS)
    settings = ServerSettings(tmp_path / "data", f"unix://{tmp_path}/socket", timing=timing)
    pings = [("grpc.keepalive_time_ms", PING_MS + 50), ("grpc.http2.max_pings_without_data", 0)]

    async def whole() -> grpc.StatusCode:
        server = await Server.start(settings)
        try:
            async with grpc.aio.insecure_channel(server.address, options=pings) as channel:
                request = health_pb2.HealthCheckRequest(service="live")
                watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=SILENT_S)
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await watch.read()
                return ended.value.code()
        finally:
            await server.drain()

    assert asyncio.run(whole()) is grpc.StatusCode.DEADLINE_EXCEEDED
