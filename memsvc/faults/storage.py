"""A disk that fails, hesitates or decays as rules say.

    disk.read     error, delay, stall; corrupt: one bit of what was read is another, what is stored stays
    disk.write    error: nothing is written
    disk.sync     error: nothing is made durable

Must not know: what the bytes mean.
"""

import errno
import os
import time
from collections.abc import Sequence

from memsvc.metrics import Metrics
from memsvc.metrics.storage import TimedStorage
from protos.faults import Fate, Faults, Kind


class FaultyStorage(TimedStorage):
    """The machine's disk under rules."""

    def __init__(self, faults: Faults, metrics: Metrics) -> None:
        super().__init__(metrics)
        self._faults = faults

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """The bytes there are, at most so many; or others."""
        fate = self._met("disk.read")
        data = super().read(descriptor, size_bytes, offset)
        if fate.kind is not Kind.CORRUPT or not data:
            return data
        at = fate.draw.randrange(len(data))
        return data[:at] + bytes((data[at] ^ (1 << fate.draw.randrange(8)),)) + data[at + 1 :]

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> int:
        """Writes the pieces one after the other; returns how many bytes were taken."""
        self._met("disk.write")
        return super().write(descriptor, pieces, offset)

    def sync(self, descriptor: int) -> None:
        """Waits until what was written survives power loss."""
        self._met("disk.sync")
        super().sync(descriptor)

    def _met(self, place: str) -> Fate:
        """What becomes of this call, once it has waited. Raises OSError."""
        fate = self._faults.fate(place)
        if fate.wait_s:
            time.sleep(fate.wait_s)
        if fate.kind is Kind.ERROR:
            number = getattr(errno, fate.code)
            raise OSError(number, os.strerror(number))
        return fate
