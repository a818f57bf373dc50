"""An inspector in this process over sessions of this process: for tests that make sessions in place."""

import asyncio
import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from memsvc.clock import SystemClock
from memsvc.inspector.start import HttpService, start_http
from memsvc.rpc.admission import Admission
from memsvc.rpc.node import Node
from memsvc.rpc.progress import Progress
from memsvc.rpc.threads import Threads
from memsvc.rpc.workers import Workers
from memsvc.session import SessionLimits, Sessions
from memsvc.settings import AccessSettings, LimitSettings, ThreadSettings
from memsvc.usage import usage_of
from tests import session_driver

TIMEOUT_S = 30


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Message
    text: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follows no redirect."""
        return


def ask(address: str, path: str, headers: Mapping[str, str] | None = None, data: bytes | None = None) -> Answer:
    """One request; a redirect is an answer."""
    request = urllib.request.Request(f"http://{address}{path}", data, dict(headers or {}))
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=TIMEOUT_S) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read().decode())


class InspectedNode:
    """Sessions, and an inspector that shows them on a thread of its own."""

    def __init__(self, sessions: Sessions, service: HttpService) -> None:
        self.sessions, self.address = sessions, service.address

    def get(self, path: str, **headers: str) -> Answer:
        """The answer to a GET."""
        return ask(self.address, path, headers)


@contextlib.contextmanager
def inspected(folder: Path, access: AccessSettings | None = None) -> Iterator[InspectedNode]:
    """A node whose sessions are this process's, and its inspector."""
    limits = SessionLimits(
        sessions_max=64, step_tokens_max=4096, recalls_remembered=64, block_bytes_max=1 << 20, stream_dims_max=1024
    )
    stored = session_driver.Node(folder / "data", limits)
    threads = Threads(ThreadSettings())

    async def gone(worker: str) -> None:
        del worker

    node = Node(stored.sessions, Workers(gone), threads, Progress(), LimitSettings())
    chosen = access or AccessSettings()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="inspector-loop")
    thread.start()
    try:

        async def begin() -> HttpService:
            admission = Admission(chosen, lambda name: usage_of(folder / "data", stored.manifest, name), SystemClock())
            return await start_http("127.0.0.1:0", chosen, {}, node, admission.gate(threads.calls))

        service = asyncio.run_coroutine_threadsafe(begin(), loop).result(TIMEOUT_S)
        yield InspectedNode(stored.sessions, service)
        asyncio.run_coroutine_threadsafe(service.stop(), loop).result(TIMEOUT_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.close()
        threads.close()
        stored.close()
