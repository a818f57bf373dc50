"""Who is attached: the Attach streams that are up, one a worker.

Invariants:
    A worker has one stream; a newer one ends the older, and starts once the older has left.
    When a stream has left, its worker's views are ended and its shared memory is let go.
    While draining no worker enters.
All of it lives on the event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable

from memsvc.errors import ArenaNotAccepted, MemsvcError, WorkerNotAttached, WrongState
from memsvc.rpc.arena import Arena
from memsvc.rpc.errors import ServerDraining
from protos.memsvc.v1 import memory_pb2

# Answers that may wait for a worker that does not read; then its steps wait too.
_OUTBOX_MAX = 1024


class Worker:
    """One worker's stream, as the other services see it; made inside the stream's own task.

    Args:
        name: The id that the worker gave itself.
        arena: Its shared memory, if the server can use it.
    """

    def __init__(self, name: str, arena: Arena | None) -> None:
        self.name = name
        self.arena = arena
        self.outbox: asyncio.Queue[memory_pb2.AttachResponse | None] = asyncio.Queue(_OUTBOX_MAX)
        self.left = asyncio.Event()
        self.leaving = False
        self.ended_by: MemsvcError | None = None
        self._greeted = False
        self._task = asyncio.current_task()

    def end(self, error: MemsvcError) -> None:
        """End the stream with an error, once its first answer is out."""
        if self.ended_by is None and not self.leaving and self._task is not None:
            self.ended_by = error
            # When a stream's first write is cut off, gRPC does not know that the metadata is out, sends it again with
            # the status, and the stream never ends.
            if self._greeted:
                self._task.cancel()

    def greeted(self) -> None:
        """Its first answer is out. Raises what it was ended with meanwhile."""
        self._greeted = True
        if self.ended_by is not None:
            raise self.ended_by


class Workers:
    """All streams of the node.

    Args:
        gone: Told the name of each worker whose stream ended, before another stream of it begins.
    """

    def __init__(self, gone: Callable[[str], Awaitable[None]]) -> None:
        self._gone = gone
        self._workers: dict[str, Worker] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._draining = False

    def __len__(self) -> int:
        """Streams that are up."""
        return len(self._workers)

    def refuse_when_draining(self) -> None:
        """Raises ServerDraining once the server is about to stop."""
        if self._draining:
            raise ServerDraining("expected a server that goes on, got one that is about to stop: reconnect later")

    async def enter(self, worker: Worker) -> None:
        """Let a stream in; ends the same worker's older one first."""
        while (older := self._workers.get(worker.name)) is not None:
            message = f"worker {worker.name}: expected one stream, got a newer one"
            older.end(WrongState(message, reason="WORKER_REPLACED"))
            await older.left.wait()
        self.refuse_when_draining()
        self._workers[worker.name] = worker

    async def leave(self, worker: Worker) -> None:
        """Let a stream out; goes on to its end even if the caller is cancelled."""
        worker.leaving = True
        task = asyncio.create_task(self._leave(worker))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        await asyncio.shield(task)

    def attached(self, name: str) -> Worker:
        """The worker's stream. Raises WorkerNotAttached if it is not up."""
        worker = self._workers.get(name)
        if worker is None or worker.leaving:
            raise WorkerNotAttached(f"worker {name!r}: expected its Attach stream to be up, got none")
        return worker

    def arena(self, name: str) -> Arena:
        """The worker's shared memory. Raises ArenaNotAccepted if it shares none."""
        worker = self._workers.get(name)
        if worker is None or worker.arena is None:
            raise ArenaNotAccepted(f"worker {name!r}: expected an accepted arena, got none")
        return worker.arena

    async def drain(self, grace_s: float) -> None:
        """Tell every worker that the server is about to stop, and wait for them to leave, `grace_s` seconds at most."""
        self._draining = True
        notice = memory_pb2.AttachResponse(drain=memory_pb2.Drain(grace_ms=round(grace_s * 1000)))
        notices = [asyncio.create_task(worker.outbox.put(notice)) for worker in self._workers.values()]
        leaves = [asyncio.create_task(worker.left.wait()) for worker in self._workers.values()]
        try:
            if leaves:
                await asyncio.wait(leaves, timeout=grace_s)
        finally:
            for task in (*notices, *leaves):
                task.cancel()

    async def all_left(self) -> None:
        """Wait for every stream to have left."""
        for worker in list(self._workers.values()):
            await worker.left.wait()

    async def _leave(self, worker: Worker) -> None:
        try:
            await self._gone(worker.name)
        finally:
            if worker.arena is not None:
                worker.arena.close()
            del self._workers[worker.name]
            worker.left.set()
