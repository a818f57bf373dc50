"""The machine's disk, with the fsyncs of logs timed.

Must not know: sessions.
"""

import time
from pathlib import Path

from memsvc.log_format import FILE_NAME
from memsvc.metrics.base import Metrics
from memsvc.storage import SystemStorage


class TimedStorage(SystemStorage):
    """Tells how long each fsync of a file named as logs are took, whether or not it succeeded."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._logs: set[int] = set()

    def open(self, path: Path, flags: int) -> int:
        """A descriptor, as os.open gives it."""
        descriptor = super().open(path, flags)
        if path.name == FILE_NAME:
            self._logs.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Lets go of a descriptor."""
        # Before its number can be another file's.
        self._logs.discard(descriptor)
        super().close(descriptor)

    def sync(self, descriptor: int) -> None:
        """Waits until what was written survives power loss."""
        if descriptor not in self._logs:
            super().sync(descriptor)
            return
        started_s = time.perf_counter()
        try:
            super().sync(descriptor)
        finally:
            self._metrics.log_synced(time.perf_counter() - started_s)
