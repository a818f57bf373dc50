"""Waking whoever waits on a session."""

import asyncio

from memsvc.rpc.progress import Progress


def test_a_change_wakes_everyone_who_waits_on_that_session_and_nobody_else() -> None:
    """Proves that a change after the look is seen, that all waiters see it, and that other sessions do not."""

    async def woken() -> tuple[bool, bool, bool, bool]:
        progress = Progress()
        first, second = progress.next_change("a"), progress.next_change("a")
        other = progress.next_change("b")
        progress.changed("a")
        progress.changed("nobody waits")
        await first.wait()
        return first.is_set(), second.is_set(), other.is_set(), progress.next_change("a").is_set()

    assert asyncio.run(woken()) == (True, True, False, False)


def test_nothing_is_kept_of_a_session_that_nobody_waits_on() -> None:
    """Proves that sessions whose last recall was answered at once do not add up."""
    progress = Progress()
    waiting = progress.next_change("waiting")
    for number in range(100):
        progress.next_change(f"s{number}")
    assert list(progress._changes) == ["waiting"]
    progress.changed("waiting")
    assert waiting.is_set()
