"""The memory server as a process: from settings to a listening address, and down again without losing anything.

    lock the folder -> manifest -> sessions -> services -> listen        stops in the opposite order
    drain: NOT_SERVING -> Drain on every stream -> streams leave (grace) -> stop -> sync -> close

Invariants:
    One event loop a process; what blocks runs on threads.
    Unsynced bytes are fsynced every `sync_interval_ms`, and before the process ends by itself.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from memsvc.folder_lock import FolderLock
from memsvc.listening import require_free, unavailable
from memsvc.manifest import Manifest, SqliteManifest
from memsvc.rpc.block_service import BlockService
from memsvc.rpc.errors import known
from memsvc.rpc.graph_service import GraphService
from memsvc.rpc.interceptor import ErrorInterceptor
from memsvc.rpc.memory_service import MemoryService
from memsvc.rpc.node import Node
from memsvc.rpc.progress import Progress
from memsvc.rpc.session_service import SessionService
from memsvc.rpc.threads import Threads
from memsvc.rpc.workers import Workers
from memsvc.session import SessionLimits, Sessions
from memsvc.settings import LimitSettings, ServerSettings
from protos.memsvc.v1 import (
    block_pb2,
    block_pb2_grpc,
    graph_pb2,
    graph_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)

SERVICES = (
    session_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
    memory_pb2.DESCRIPTOR.services_by_name["MemoryService"].full_name,
    block_pb2.DESCRIPTOR.services_by_name["BlockService"].full_name,
    graph_pb2.DESCRIPTOR.services_by_name["GraphService"].full_name,
)

# What calls that are running get once every worker has left; a health watch never ends by itself.
_CALLS_GRACE_S = 1.0

_LOGGER = logging.getLogger(__name__)


class Server:
    """A running node. `start` makes one, `drain` ends it.

    Args:
        address: What clients dial, with the port that was taken.
    """

    def __init__(self, settings: ServerSettings, storage: "_Storage", node: Node) -> None:
        self.address = settings.listen
        self._settings = settings
        self._storage = storage
        self._node = node
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._grpc = self._services()
        self._syncing: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, settings: ServerSettings) -> "Server":
        """A server that listens.

        Raises:
            WrongState: The folder is locked (DATA_FOLDER_LOCKED) or the address is taken (ADDRESS_UNAVAILABLE).
            StorageFailed, ManifestUnavailable: The data folder does not open.
        """
        storage = _Storage(settings)
        try:
            server = cls(settings, storage, _node(settings, storage.sessions))
            await server._listen()
        except BaseException:
            storage.close()
            raise
        return server

    async def drain(self, hurry: asyncio.Event | None = None) -> None:
        """Let streams finish, then stop and make everything durable; at once when `hurry` is set."""
        await self._health.enter_graceful_shutdown()
        workers = self._node.workers
        await _unless(hurry, workers.drain(self._settings.timing.drain_grace_ms / 1000))
        hurried = hurry is not None and hurry.is_set()
        await self._grpc.stop(0 if hurried else _CALLS_GRACE_S)
        await workers.all_left()
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)
        self._node.threads.close()
        self._storage.close()

    def _services(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[ErrorInterceptor()],
            options=_options(self._settings),
            maximum_concurrent_rpcs=self._settings.limits.calls_max,
            compression=grpc.Compression.NoCompression,
        )
        session_pb2_grpc.add_SessionServiceServicer_to_server(SessionService(self._node), server)
        memory_pb2_grpc.add_MemoryServiceServicer_to_server(MemoryService(self._node), server)
        block_pb2_grpc.add_BlockServiceServicer_to_server(BlockService(self._node), server)
        graph_pb2_grpc.add_GraphServiceServicer_to_server(GraphService(self._node), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    async def _listen(self) -> None:
        require_free(self.address)
        try:
            port = self._grpc.add_insecure_port(self.address)
        except RuntimeError as error:
            raise unavailable(self.address, str(error)) from error
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._grpc.start()
        self._syncing = asyncio.create_task(self._sync_forever())

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.timing.sync_interval_ms / 1000)
            try:
                await self._node.threads.sync.run(self._node.sessions.sync)
            except Exception as error:
                # A session whose fsync failed takes no more writes, and tells its writer so; the others go on.
                _LOGGER.error("sync: expected every session to reach the disk, got: %s", known(error, "sync"))


class _Storage:
    """What a node holds open: the folder's lock, the manifest, the sessions."""

    def __init__(self, settings: ServerSettings) -> None:
        with contextlib.ExitStack() as opened:
            lock = FolderLock(settings.data)
            opened.callback(lock.close)
            manifest = _manifest(settings)
            opened.callback(manifest.close)
            self.sessions = Sessions(settings.data, manifest, _session_limits(settings.limits))
            opened.callback(self.sessions.close)
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()


async def serve(settings: ServerSettings, announce: Callable[[str], None], stopping: asyncio.Event) -> None:
    """Run a server until `stopping` is set, SIGTERM or SIGINT; a second signal cuts the drain short.

    Args:
        announce: Told the address once calls are answered.

    Raises:
        As `Server.start`.
    """
    hurry = asyncio.Event()

    def signalled() -> None:
        (hurry if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    server = await Server.start(settings)
    announce(server.address)
    await stopping.wait()
    await server.drain(hurry)


def _node(settings: ServerSettings, sessions: Sessions) -> Node:
    threads = Threads(settings.threads)

    async def gone(worker: str) -> None:
        await threads.calls.run(sessions.worker_gone, worker)

    return Node(sessions, Workers(gone), threads, Progress(), settings.limits)


def _manifest(settings: ServerSettings) -> Manifest:
    """The manifest that the settings name; ServerSettings refuses all but these."""
    return SqliteManifest(settings.data / "manifest.sqlite")


def _session_limits(limits: LimitSettings) -> SessionLimits:
    return SessionLimits(
        sessions_max=limits.sessions_max,
        step_tokens_max=limits.step_tokens_max,
        recalls_remembered=limits.recalls_remembered,
        block_bytes_max=limits.block_bytes_max,
        stream_dims_max=limits.stream_dims_max,
    )


def _options(settings: ServerSettings) -> list[tuple[str, Any]]:
    timing, limits = settings.timing, settings.limits
    return [
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_send_message_length", limits.message_bytes_max),
        # Two nodes on one port would share its connections without a word.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", timing.ping_interval_min_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", timing.ping_interval_ms),
        ("grpc.keepalive_timeout_ms", timing.ping_timeout_ms),
    ]


async def _unless(hurry: asyncio.Event | None, work: Any) -> None:
    """Do the work, or leave it when `hurry` is set first."""
    tasks = {asyncio.ensure_future(work)}
    if hurry is not None:
        tasks.add(asyncio.ensure_future(hurry.wait()))
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()
