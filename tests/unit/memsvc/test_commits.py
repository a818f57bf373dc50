"""Group commit: who wants an fsync shares one, and is told the truth about it."""

import threading
from collections.abc import Callable

import pytest

from memsvc.commits import WINDOW_BYTES, WINDOW_S, GroupCommit
from memsvc.errors import StorageFailed

TIMEOUT_S = 30


class HeldClock:
    """Time that stands still until it is moved; whoever waits is counted."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waiting = threading.Semaphore(0)
        self._waits_on: threading.Condition | None = None

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return int(1000 * self.now_s)

    def wait(self, condition: threading.Condition, timeout_s: float) -> None:
        self._waits_on = condition
        self.waiting.release()
        assert condition.wait(TIMEOUT_S)

    def pass_by(self, seconds: float) -> None:
        """Moves on, and lets whoever waits look at the time."""
        assert self._waits_on is not None
        with self._waits_on:
            self.now_s += seconds
            self._waits_on.notify_all()


class Disk:
    """A sync that lasts until it is let go, and may fail."""

    def __init__(self) -> None:
        self.syncs = 0
        self.unsynced_bytes = 0
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.fails = False

    def sync(self) -> None:
        self.syncs += 1
        self.begun.release()
        assert self.go.acquire(timeout=TIMEOUT_S)
        if self.fails:
            raise StorageFailed("expected to fsync, got an error")


class Callers:
    """Threads that wait for a commit."""

    def __init__(self, commits: GroupCommit) -> None:
        self._commits = commits
        self._threads: list[threading.Thread] = []
        self.failures: list[StorageFailed] = []

    def come(self, count: int = 1) -> None:
        """So many more wait."""
        for _ in range(count):
            self._threads.append(threading.Thread(target=self._wait))
            self._threads[-1].start()

    def joined(self) -> None:
        """All were answered."""
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()

    def _wait(self) -> None:
        try:
            self._commits.wait()
        except StorageFailed as error:
            self.failures.append(error)


def _until(holds: Callable[[], bool], commits: GroupCommit) -> None:
    """Waits until callers have come as far as that."""
    with commits._changed:
        assert commits._changed.wait_for(holds, TIMEOUT_S)


def _shared_round(commits: GroupCommit, disk: Disk, callers: Callers, count: int) -> None:
    """One round alone, during which `count` callers come, who then share the next."""
    callers.come()
    assert disk.begun.acquire(timeout=TIMEOUT_S)
    callers.come(count)
    _until(lambda: commits._callers == count, commits)
    disk.go.release()
    assert disk.begun.acquire(timeout=TIMEOUT_S)


def test_whoever_comes_during_a_round_shares_the_next() -> None:
    """Proves that 20 callers cost 2 fsyncs: the first its own, all others the one that begins when that is over."""
    disk = Disk()
    commits = GroupCommit(disk.sync, lambda: disk.unsynced_bytes, HeldClock())
    callers = Callers(commits)
    _shared_round(commits, disk, callers, 19)
    disk.go.release()
    callers.joined()
    assert (disk.syncs, commits.rounds, callers.failures) == (2, 2, [])


def test_whoever_is_alone_does_not_wait_for_others() -> None:
    """Proves that calls one after the other each begin at once, whatever the clock says."""
    disk = Disk()
    commits = GroupCommit(disk.sync, lambda: disk.unsynced_bytes, HeldClock())
    for _ in range(3):
        disk.go.release()
        commits.wait()
    assert disk.syncs == 3


def test_a_round_after_a_shared_one_waits_its_time_for_others() -> None:
    """Proves that a caller waits 2 ms for company where there was some, and who comes meanwhile is in its round."""
    disk, clock = Disk(), HeldClock()
    commits = GroupCommit(disk.sync, lambda: disk.unsynced_bytes, clock)
    callers = Callers(commits)
    _shared_round(commits, disk, callers, 2)
    disk.go.release()
    callers.joined()
    callers.come()
    assert clock.waiting.acquire(timeout=TIMEOUT_S)
    callers.come()
    _until(lambda: commits._callers == 2, commits)
    assert disk.syncs == 2
    clock.pass_by(WINDOW_S)
    disk.go.release()
    callers.joined()
    assert disk.syncs == 3


def test_a_round_with_enough_bytes_begins_at_once() -> None:
    """Proves that 256 KiB are not kept waiting for company."""
    disk = Disk()
    commits = GroupCommit(disk.sync, lambda: disk.unsynced_bytes, HeldClock())
    callers = Callers(commits)
    _shared_round(commits, disk, callers, 2)
    disk.go.release()
    callers.joined()
    disk.unsynced_bytes = WINDOW_BYTES
    disk.go.release()
    commits.wait()
    assert disk.syncs == 3


def test_a_failed_round_is_told_to_all_and_never_tried_again() -> None:
    """Proves that who shared a round that failed, who waited for the next, and who comes later all get the failure, and
    that the disk is not asked again."""
    disk = Disk()
    commits = GroupCommit(disk.sync, lambda: disk.unsynced_bytes, HeldClock())
    callers = Callers(commits)
    _shared_round(commits, disk, callers, 3)
    callers.come(2)
    _until(lambda: commits._callers == 2, commits)
    disk.fails = True
    disk.go.release()
    callers.joined()
    assert [str(error) for error in callers.failures] == ["expected to fsync, got an error"] * 5
    with pytest.raises(StorageFailed, match="expected to fsync, got an error"):
        commits.wait()
    assert disk.syncs == 2
