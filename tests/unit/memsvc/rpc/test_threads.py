"""Threads for blocking work: kinds of work do not hold each other up, and nothing is left running behind a caller."""

import asyncio
import threading

import pytest

from memsvc.rpc.threads import Pool, Threads
from memsvc.settings import ThreadSettings


def test_slow_steps_hold_up_no_block() -> None:
    """Proves that blocks and calls are served while every thread for steps is busy."""

    async def served_meanwhile() -> tuple[int, int]:
        threads = Threads(ThreadSettings(steps=1, blocks=1, calls=1))
        released = threading.Event()
        slow = asyncio.create_task(threads.steps.run(released.wait, 30))
        waiting = asyncio.create_task(threads.steps.run(int, "1"))
        answers = await threads.blocks.run(int, "2"), await threads.calls.run(int, "3")
        assert not waiting.done()
        released.set()
        assert (await slow, await waiting) == (True, 1)
        threads.close()
        return answers

    assert asyncio.run(served_meanwhile()) == (2, 3)


def test_an_error_reaches_the_caller() -> None:
    """Proves that work that fails fails where it was asked for."""

    async def failed() -> None:
        pool = Pool("test", 1)
        try:
            await pool.run(int, "x")
        finally:
            pool.close()

    with pytest.raises(ValueError, match="'x'"):
        asyncio.run(failed())


def test_a_cancelled_caller_leaves_after_its_work() -> None:
    """Proves that work that has begun is over when its caller goes on, and that work that has not never begins."""

    async def cancelled() -> list[str]:
        pool = Pool("test", 1)
        began, released, done = threading.Event(), threading.Event(), []

        def work() -> None:
            began.set()
            released.wait(30)
            done.append("first")

        first = asyncio.create_task(pool.run(work))
        await asyncio.to_thread(began.wait, 30)
        second = asyncio.create_task(pool.run(done.append, "second"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        first.cancel()
        await asyncio.sleep(0)
        assert not first.done()
        released.set()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        assert second.cancelled()
        pool.close()
        return done

    assert asyncio.run(cancelled()) == ["first"]
