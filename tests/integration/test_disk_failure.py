"""A disk that refuses an fsync under a running server: no false acknowledgement, reads go on, health says so."""

import asyncio
from pathlib import Path

import google_crc32c
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memsvc.errors import StorageFailed
from memsvc.server import SERVICES, Server
from memsvc.settings import ServerSettings, TimingSettings
from protos.memsvc.v1 import session_pb2, types_pb2
from tests.disk_faults import fsync_fails
from tests.integration.server_process import TIMEOUT_S, block_data, spec, step


async def _fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServerSettings(folder, f"unix://{folder}/socket", timing=TimingSettings(sync_interval_ms=1))
    server = await Server.start(settings)
    sessions = server._node.sessions
    sessions.create("healthy", spec())
    sessions.create("book", spec())
    request = session_pb2.OpenSessionRequest(
        session="book",
        mode=session_pb2.OPEN_MODE_WRITER,
        fingerprint=spec().fingerprint,
        worker="w",
        attachment="one",
    )
    sessions.open(request)
    writer, data = sessions.attachment("one"), block_data(0)
    session = writer.session
    session.apply(writer, step("one", 1, 1, 0, durability=types_pb2.DURABILITY_SYNC))
    session.put_block(writer, 0, 0, data, google_crc32c.value(data), types_pb2.DURABILITY_SYNC)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        writing = [name for name in SERVICES if name.endswith(("SessionService", "MemoryService", "BlockService"))]
        watches = [
            stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S) for name in ("", *writing)
        ]
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        with fsync_fails(monkeypatch), pytest.raises(StorageFailed, match="fsync, got Input/output error"):
            session.apply(writer, step("one", 1, 2, 64, durability=types_pb2.DURABILITY_SYNC))
        # The disk works again: whoever trusted it now would lose what the failed fsync lost.
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(StorageFailed, match="expected session 'book' to take writes, got an earlier failure"):
        session.apply(writer, step("one", 1, 3, 128))
    assert session.read_block(writer, 0)[0] == data
    assert sessions.failed == ["book"]
    await server.drain()


def test_a_failed_fsync_ends_acknowledgements_and_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that after one failed fsync the session refuses writes, though the disk works again, and serves its
    blocks, and that the server's health, and that of each service that writes, is NOT_SERVING from then on."""
    asyncio.run(_fails(tmp_path, monkeypatch))
