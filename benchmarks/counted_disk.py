"""The machine's own disk, counted: what recovery reads, and how many fsyncs something takes."""

import threading

from memsvc.storage import SystemStorage


class CountedDisk(SystemStorage):
    """Carries every call out, and counts. SQLite and what a finder library reads of a saved shard do not pass here.

    Attributes:
        read_bytes: Read so far.
        syncs: Of files and folders, so far.
    """

    def __init__(self) -> None:
        self.read_bytes = self.syncs = 0
        self._lock = threading.Lock()

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """The bytes there are, at most so many."""
        data = super().read(descriptor, size_bytes, offset)
        with self._lock:
            self.read_bytes += len(data)
        return data

    def sync(self, descriptor: int) -> None:
        """Waits until what was written survives power loss."""
        super().sync(descriptor)
        with self._lock:
            self.syncs += 1
