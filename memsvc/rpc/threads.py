"""Threads for work that blocks: nothing of a session runs on the event loop.

Invariants:
    Each kind of work has threads of its own, so that slow steps hold up no block and slow replays no step.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from memsvc.settings import ThreadSettings

P = ParamSpec("P")
R = TypeVar("R")


class Pool:
    """Threads of one kind of work."""

    def __init__(self, name: str, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"memsvc-{name}")

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Result of the work, done on one of the threads.

        Concurrency: cancelling the caller does not stop work that has begun; the caller goes on once it is over.
        """
        job = self._executor.submit(work, *args, **kwargs)
        result = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            if not job.cancel():
                # Its outcome is for a caller who has gone.
                await asyncio.gather(result, return_exceptions=True)
            raise

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._executor.shutdown()


class Threads:
    """All pools of a server."""

    def __init__(self, settings: ThreadSettings) -> None:
        self.steps = Pool("steps", settings.steps)
        self.blocks = Pool("blocks", settings.blocks)
        self.calls = Pool("calls", settings.calls)
        self.sync = Pool("sync", 1)

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        for pool in (self.steps, self.blocks, self.calls, self.sync):
            pool.close()
