"""The memory server as a process: from settings to a listening address, and down again without losing anything.

    lock the folder -> manifest -> sessions -> services -> listen        stops in the opposite order
    drain: NOT_SERVING -> Drain on every stream -> streams leave (grace) -> stop -> sync -> close

Invariants:
    One event loop a process; what blocks runs on threads.
    Unsynced bytes are fsynced every `sync_interval_ms`, and before the process ends by itself.
"""

import asyncio
import contextlib
import functools
import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

import memsvc
from memsvc.auth.quotas import Quotas, Usage
from memsvc.clock import SystemClock
from memsvc.errors import InvalidRequest, ManifestUnavailable
from memsvc.faults import FaultyStorage, faults_of
from memsvc.folder_lock import FolderLock
from memsvc.inspector.start import HttpService, start_http
from memsvc.lines import emit
from memsvc.listening import require_free, unavailable
from memsvc.manifest import open_manifest
from memsvc.metrics import EachMetrics, Metrics, NotingMetrics, TimedStorage
from memsvc.retention.upkeep import Upkeep
from memsvc.rpc.admin_service import AdminService
from memsvc.rpc.admission import Admission
from memsvc.rpc.block_service import BlockService
from memsvc.rpc.errors import known
from memsvc.rpc.graph_service import GraphService
from memsvc.rpc.health import Condition, Health
from memsvc.rpc.injecting import InjectingInterceptor
from memsvc.rpc.interceptor import ErrorInterceptor
from memsvc.rpc.memory_service import MemoryService
from memsvc.rpc.node import Node
from memsvc.rpc.observing import ObservingInterceptor
from memsvc.rpc.progress import Progress
from memsvc.rpc.session_service import SessionService
from memsvc.rpc.status_pages import status_pages
from memsvc.rpc.threads import Threads
from memsvc.rpc.workers import Workers
from memsvc.session import SessionLimits, Sessions
from memsvc.settings import LimitSettings, ObserveSettings, ServerSettings
from memsvc.storage import MACHINE, Machine
from memsvc.usage import usage_of
from protos.memsvc.v1 import (
    admin_pb2,
    admin_pb2_grpc,
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
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
)

# What calls that are running get once every worker has left; a health watch never ends by itself.
_CALLS_GRACE_S = 1.0

_LOGGER = logging.getLogger(__name__)


class Server:
    """A running node. `start` makes one, `drain` ends it.

    Args:
        address: What clients dial, with the port that was taken.
        http_address: Of /metrics, /livez and /readyz, with the port that was taken; empty if they are off.
        admission: Who may call.
    """

    def __init__(self, settings: ServerSettings, storage: "_Storage", node: Node, admission: Admission) -> None:
        self.address = settings.listen
        self.http_address = ""
        self._settings = settings
        self._storage = storage
        self._node = node
        self.admission = admission
        self._health = Health(SERVICES, self._look, settings.observe.health_interval_ms / 1000)
        self._grpc = self._services()
        self._http: HttpService | None = None
        self._syncing: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, settings: ServerSettings) -> "Server":
        """A server that listens.

        Raises:
            WrongState: The folder is locked (DATA_FOLDER_LOCKED) or the address is taken (ADDRESS_UNAVAILABLE).
            StorageFailed, ManifestUnavailable: The data folder or the manifest does not open.
            InvalidRequest: A file that the settings name does not hold (INVALID_SETTING).
        """
        metrics = _metrics(settings.observe)
        # On a thread: a manifest that nodes share may have to wait until leases have run out.
        storage = await asyncio.to_thread(_Storage, settings, metrics)
        try:
            admission = Admission(settings.access, storage.usage_of, SystemClock())
            server = cls(settings, storage, _node(settings, storage.sessions, admission.quotas, metrics), admission)
            await server._listen()
        except BaseException:
            storage.close()
            raise
        return server

    async def drain(self, hurry: asyncio.Event | None = None) -> None:
        """Let streams finish, then stop and make everything durable; at once when `hurry` is set."""
        await self._health.drain()
        workers = self._node.workers
        await _unless(hurry, workers.drain(self._settings.timing.drain_grace_ms / 1000))
        hurried = hurry is not None and hurry.is_set()
        await self._grpc.stop(0 if hurried else _CALLS_GRACE_S)
        await workers.all_left()
        await self._health.stop()
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)
        if self._http is not None:
            await self._http.stop()
        self._node.threads.close()
        self._storage.close()
        await asyncio.to_thread(self._node.metrics.close)

    def _services(self) -> grpc.aio.Server:
        faults = self._storage.faults
        server = grpc.aio.server(
            interceptors=[
                ObservingInterceptor(self._node.metrics),
                ErrorInterceptor(),
                self.admission.gate(self._node.threads.calls),
                *([InjectingInterceptor(faults)] if faults is not None else []),
            ],
            options=_options(self._settings),
            maximum_concurrent_rpcs=self._settings.limits.calls_max,
            compression=grpc.Compression.NoCompression,
        )
        session_pb2_grpc.add_SessionServiceServicer_to_server(SessionService(self._node), server)
        memory_pb2_grpc.add_MemoryServiceServicer_to_server(MemoryService(self._node), server)
        block_pb2_grpc.add_BlockServiceServicer_to_server(BlockService(self._node), server)
        graph_pb2_grpc.add_GraphServiceServicer_to_server(GraphService(self._node), server)
        admin = AdminService(self._storage.upkeep, self._node.threads)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
        self._health.add_to(server)
        if self._settings.access.reflection:
            reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    async def _listen(self) -> None:
        require_free(self.address)
        try:
            port = self.admission.listen(self._grpc, self.address)
        except RuntimeError as error:
            raise unavailable(self.address, str(error)) from error
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        await asyncio.to_thread(self._storage.announce, self.address)
        await self._show()
        await self._health.start()
        await self._grpc.start()
        self._syncing = asyncio.create_task(self._sync_forever())

    async def _show(self) -> None:
        """Serves what the settings want to be seen over HTTP."""
        address = self._settings.observe.http
        if address is not None:
            pages, gate = status_pages(self._node, self._health), self.admission.gate(self._node.threads.calls)
            self._http = await start_http(address, self._settings.access, pages, self._node, gate)
            self.http_address = self._http.address

    async def _look(self) -> Condition:
        return await self._node.threads.calls.run(self._condition)

    def _condition(self) -> Condition:
        failed = len(self._node.sessions.failed)
        # Reads go on. What is on the disk is known again once a node opens the folder anew.
        writes = f"writes: expected every session to take them, got {failed} out of use: restart" if failed else ""
        try:
            self._storage.manifest.check()
        except ManifestUnavailable as error:
            return Condition(f"manifest: expected one that answers, got {error.reason}", writes)
        return Condition("", writes)

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.timing.sync_interval_ms / 1000)
            try:
                await self._node.threads.sync.run(self._node.sessions.sync)
            except Exception as error:
                # A session whose fsync failed takes no more writes, and tells its writer so; the others go on.
                told = known(error, "sync")
                emit(_LOGGER, logging.ERROR, "sync_failed", reason=told.reason, problem=str(told))
                await self._health.look()


class _Storage:
    """What a node holds open: the folder's lock, the manifest, the sessions."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self.faults = faults_of(settings.faults)
        machine = Machine(TimedStorage(metrics)) if settings.observe.on else MACHINE
        if self.faults is not None:
            machine = Machine(FaultyStorage(self.faults, metrics))
        with contextlib.ExitStack() as opened:
            lock = FolderLock(settings.data)
            opened.callback(lock.close)
            manifest = open_manifest(settings.data, settings.manifest)
            opened.callback(manifest.close)
            self.manifest = manifest
            self.announce = manifest.announce
            self.usage_of: Callable[[str], Usage] = functools.partial(usage_of, settings.data, manifest)
            self.sessions = Sessions(settings.data, manifest, _session_limits(settings.limits), machine)
            opened.callback(self.sessions.close)
            self.upkeep = Upkeep(
                settings.data, manifest, self.sessions.folder, settings.upkeep, machine, metrics.corruption_detected
            )
            self._rounds = threading.Thread(target=self.upkeep.run, name="memsvc-upkeep", daemon=True)
            self._rounds.start()
            opened.callback(self._rounds.join)
            opened.callback(self.upkeep.stop)
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()


async def serve(settings: ServerSettings, announce: Callable[[str, str], None], stopping: asyncio.Event) -> None:
    """Run a server until `stopping` is set, SIGTERM or SIGINT; a second signal cuts the drain short.

    Args:
        announce: Told the address, and that of the HTTP pages if there are any, once calls are answered.

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
    if server.admission.reloads:
        loop.add_signal_handler(signal.SIGHUP, server.admission.reload)
    emit(_LOGGER, logging.INFO, "listening", address=server.address, version=memsvc.__version__)
    if settings.faults is not None:
        emit(_LOGGER, logging.WARNING, "faults_on", problem="fails on purpose: this is a rehearsal")
    announce(server.address, server.http_address)
    await stopping.wait()
    emit(_LOGGER, logging.INFO, "draining")
    await server.drain(hurry)
    emit(_LOGGER, logging.INFO, "stopped")


def _node(settings: ServerSettings, sessions: Sessions, quotas: Quotas, metrics: Metrics) -> Node:
    threads = Threads(settings.threads)

    async def gone(worker: str) -> None:
        await threads.calls.run(sessions.worker_gone, worker)

    return Node(sessions, Workers(gone), threads, Progress(), settings.limits, quotas, metrics)


def _metrics(settings: ObserveSettings) -> Metrics:
    """What counts, if anybody is to see the numbers. Raises InvalidRequest (INVALID_SETTING)."""
    kept: list[NotingMetrics] = []
    if settings.http is not None:
        try:
            from memsvc.metrics.prometheus import PrometheusMetrics
        except ImportError as error:
            message = "http: expected prometheus-client to be installed (extra observe), got none"
            raise InvalidRequest(message, reason="INVALID_SETTING") from error
        kept.append(PrometheusMetrics())
    if settings.otlp is not None:
        try:
            from memsvc.metrics.telemetry import TelemetryMetrics
        except ImportError as error:
            message = "otlp: expected opentelemetry to be installed (extra telemetry), got none"
            raise InvalidRequest(message, reason="INVALID_SETTING") from error
        kept.append(TelemetryMetrics(settings.otlp))
    return EachMetrics(kept) if len(kept) > 1 else kept[0] if kept else Metrics()


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
        # Windows that grow with a fast sender hold tens of MiB of what nobody takes on with; a message that is being
        # read widens its window by itself.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", timing.ping_interval_min_ms),
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
