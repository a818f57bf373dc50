"""The thread that renews leases: that it beats, what it does about failures, and that it ends."""

import logging
import threading
import time

import pytest

from memsvc.errors import ManifestUnavailable
from memsvc.manifest.heartbeat import Heartbeat

TIMEOUT_S = 30


class _Beats:
    """Fails as told, one beat after the other, then beats well; `enough` is set at the last of `count`."""

    def __init__(self, count: int, *failures: Exception | None) -> None:
        self.enough = threading.Event()
        self.threads: set[str] = set()
        self.left = count
        self._failures = list(failures)

    def __call__(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.left -= 1
        if self.left == 0:
            self.enough.set()
        if self._failures and (failure := self._failures.pop(0)) is not None:
            raise failure


def _beaten(beats: _Beats, every_s: float, again_s: float) -> None:
    heartbeat = Heartbeat(beats, every_s, again_s)
    assert beats.enough.wait(TIMEOUT_S)
    heartbeat.stop()
    heartbeat.stop()


def test_it_beats_on_a_thread_of_its_own_until_it_is_stopped() -> None:
    """Proves that beats come without anybody asking, and that a stopped heartbeat leaves no thread."""
    beats = _Beats(3)
    _beaten(beats, 0.001, TIMEOUT_S)
    assert beats.threads == {"memsvc-heartbeat"}
    assert "memsvc-heartbeat" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("failure", [ManifestUnavailable("away"), KeyError("bug")])
def test_a_failed_beat_is_repeated_sooner(failure: Exception) -> None:
    """Proves that after a failure, a bug included, the next beat does not wait for the usual time."""
    failing = _Beats(4, failure, failure, failure)
    # At the usual pace the fourth beat comes after 4 s at the earliest.
    begun_s = time.monotonic()
    _beaten(failing, 1.0, 0.001)
    assert 1.0 <= time.monotonic() - begun_s < 4.0


def test_failures_in_a_row_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Proves that an outage is one line, and the next one another."""
    away = ManifestUnavailable("away")
    with caplog.at_level(logging.WARNING):
        _beaten(_Beats(6, away, away, None, away, None), 0.001, 0.001)
    assert [record.getMessage() for record in caplog.records] == ["leases: expected to renew them, got: away"] * 2
