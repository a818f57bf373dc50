"""Whether the node lives, and whether it takes work: over gRPC, by service, and in words.

    live                    SERVING for as long as the process answers
    ready, and ""           SERVING while everything is well
    memsvc.v1.X             SERVING while that service can do its work

    what is wrong           not serving
    the manifest            SessionService, ready
    writes of a session     SessionService, MemoryService, BlockService, ready       until a restart
    draining                all but live                                             for good

Invariants:
    A status that changed is told at once to whoever watches it.
All of it lives on the event loop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from memsvc.lines import emit
from protos.memsvc.v1 import block_pb2, memory_pb2, session_pb2

LIVE, READY, WHOLE = "live", "ready", ""

_SESSION = session_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name
_MEMORY = memory_pb2.DESCRIPTOR.services_by_name["MemoryService"].full_name
_BLOCK = block_pb2.DESCRIPTOR.services_by_name["BlockService"].full_name
_NEED_MANIFEST = frozenset((READY, WHOLE, _SESSION))
_NEED_WRITES = frozenset((READY, WHOLE, _SESSION, _MEMORY, _BLOCK))

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Condition:
    """How a node is; a text says what is wrong, and is empty while nothing is.

    Args:
        manifest: Why the manifest gives no answer.
        writes: Why a session takes no more writes.
        draining: It is about to stop.
    """

    manifest: str = ""
    writes: str = ""
    draining: bool = False

    def serves(self, service: str) -> bool:
        """Whether a service, or LIVE, READY or WHOLE, is to be called."""
        if service == LIVE:
            return True
        wrong = (self.manifest and service in _NEED_MANIFEST) or (self.writes and service in _NEED_WRITES)
        return not self.draining and not wrong

    def problems(self) -> tuple[str, ...]:
        """What keeps the node from being ready, one line each."""
        draining = "draining: about to stop" if self.draining else ""
        return tuple(one for one in (draining, self.manifest, self.writes) if one)


class Health:
    """The health of a node and its services.

    Args:
        services: Full names.
        look: The condition now, but for draining; asked every `interval_s` seconds once it is watched.
    """

    def __init__(self, services: tuple[str, ...], look: Callable[[], Awaitable[Condition]], interval_s: float) -> None:
        self._names = (WHOLE, LIVE, READY, *services)
        self._look = look
        self._interval_s = interval_s
        self._servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._condition = Condition()
        self._watching: asyncio.Task[None] | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Makes the server answer for it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    @property
    def condition(self) -> Condition:
        """The newest that was seen."""
        return self._condition

    async def start(self) -> None:
        """Says that all is well, and looks from now on whether it still is."""
        await self._tell()
        self._watching = asyncio.create_task(self._watch())

    async def drain(self) -> None:
        """Says that the node is about to stop."""
        self._condition = replace(self._condition, draining=True)
        await self._tell()

    async def stop(self) -> None:
        """Looks no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def look(self) -> None:
        """Looks now, and tells what changed."""
        try:
            found = await self._look()
        except Exception as error:
            # A look that fails says nothing of the node; the next one may.
            emit(_LOGGER, logging.ERROR, "health_failed", error)
            return
        seen = replace(found, draining=self._condition.draining)
        if seen == self._condition:
            return
        self._condition = seen
        await self._tell()
        for problem in seen.problems():
            emit(_LOGGER, logging.ERROR, "not_ready", problem=problem)
        if not seen.problems():
            emit(_LOGGER, logging.WARNING, "ready")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self.look()

    async def _tell(self) -> None:
        statuses = health_pb2.HealthCheckResponse
        for name in self._names:
            serves = self._condition.serves(name)
            await self._servicer.set(name, statuses.SERVING if serves else statuses.NOT_SERVING)
