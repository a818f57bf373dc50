"""Opening sessions for callers who do not wait for it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memsvc.rpc.node import Node
from memsvc.rpc.progress import Progress
from memsvc.rpc.session_service import SessionService
from memsvc.rpc.threads import Threads
from memsvc.rpc.workers import Worker, Workers
from memsvc.settings import LimitSettings, ThreadSettings
from protos.memsvc.v1 import session_pb2
from tests import session_driver

Opening = asyncio.Task[Any]


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[session_driver.Node]:
    """A node's sessions, with one named book."""
    stored = session_driver.Node(tmp_path / "data")
    stored.create()
    yield stored
    stored.close()


def _serve(stored: session_driver.Node, work: Callable[[SessionService], Awaitable[None]]) -> None:
    """Do the work beside a service whose worker w-one is attached."""

    async def serve() -> None:
        async def gone(worker: str) -> None:
            stored.sessions.worker_gone(worker)

        threads, workers = Threads(ThreadSettings()), Workers(gone)
        await workers.enter(Worker("w-one", None))
        try:
            await work(SessionService(Node(stored.sessions, workers, threads, Progress(), LimitSettings())))
        finally:
            threads.close()

    asyncio.run(serve())


async def _cut_off(task: Opening) -> None:
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_was_opened_for_a_caller_who_is_gone_is_closed_again(stored: session_driver.Node) -> None:
    """Proves that a call whose deadline passed while a log was replayed does not lock everyone else out."""
    core = stored.sessions.get("book").core

    async def work(service: SessionService) -> None:
        core.opening.acquire()
        task: Opening = asyncio.create_task(service.OpenSession(stored.request("one"), None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        core.opening.release()
        await _cut_off(task)
        assert core.writer is None
        request = stored.request("two")
        request.worker = "w-one"
        assert (await service.OpenSession(request, None)).epoch  # type: ignore[arg-type]

    _serve(stored, work)


def test_the_same_call_again_keeps_what_it_opened(stored: session_driver.Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that opening is safe to retry while the call that was given up is at work, even if that one ends last."""
    core, opened = stored.sessions.get("book").core, stored.sessions.open
    begun, go_on = threading.Event(), threading.Event()

    def slow_at_first(request: session_pb2.OpenSessionRequest) -> session_pb2.OpenSessionResponse:
        if not begun.is_set():
            begun.set()
            go_on.wait()
        return opened(request)

    async def work(service: SessionService) -> None:
        calls: list[Opening] = [
            asyncio.create_task(service.OpenSession(stored.request("one"), None))  # type: ignore[arg-type]
            for _ in range(2)
        ]
        await asyncio.to_thread(begun.wait)
        calls[0].cancel()
        await asyncio.wait([calls[1]], timeout=0.2)
        go_on.set()
        await _cut_off(calls[0])
        assert (await calls[1]).epoch == core.epoch
        assert core.writer is not None

    monkeypatch.setattr(stored.sessions, "open", slow_at_first)
    _serve(stored, work)
