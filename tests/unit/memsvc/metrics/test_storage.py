"""The disk with the fsyncs of logs timed."""

import os
from pathlib import Path

import pytest

from memsvc.log import SessionLog
from memsvc.metrics import Metrics, TimedStorage


class Noted(Metrics):
    """Keeps the seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def log_synced(self, seconds: float) -> None:
        """Keep them."""
        self.seconds.append(seconds)


def test_each_fsync_of_a_log_is_timed_and_no_other_files(tmp_path: Path) -> None:
    """Proves that a real log's syncs are counted, and that another file under the same descriptor number is not."""
    noted = Noted()
    storage = TimedStorage(noted)
    log = SessionLog.create(tmp_path / "s", "0" * 32, storage)
    made = len(noted.seconds)
    log.append(1, 1, {})
    log.sync()
    assert len(noted.seconds) == made + 1
    log.close()
    before = len(noted.seconds)
    other = storage.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    storage.sync(other)
    storage.close(other)
    assert len(noted.seconds) == before
    assert min(noted.seconds) > 0


def test_an_fsync_that_fails_is_timed_too_and_stays_an_error(tmp_path: Path) -> None:
    """Proves that timing swallows nothing: fsync of a closed descriptor raises as ever."""
    noted = Noted()
    storage = TimedStorage(noted)
    descriptor = storage.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        storage.sync(descriptor)
    assert len(noted.seconds) == 1
