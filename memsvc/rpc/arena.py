"""A worker's shared memory: blocks by reference instead of by message.

The worker makes, sizes and unlinks the file; the server only reads and writes slots of it.

    offset 0    16 bytes    nonce: what the worker says in Hello must stand here
    offset 16   ...         slots, wherever the worker puts them

Invariants:
    A slot lies wholly inside the file and past the nonce.
    The file is read and written, never mapped: a worker that cuts it short gets a typed error, where a mapping would
    end the server with SIGBUS.
Must not know: what a slot holds.
"""

import os
import re
import stat
import threading
from pathlib import Path

from memsvc.errors import ArenaNotAccepted, InvalidRequest
from protos.memsvc.v1 import block_pb2, memory_pb2

NONCE_BYTES = 16

_NAME = re.compile(r"attn-[a-z0-9-]{1,100}")
_FOLDER = Path("/dev/shm")


class Arena:
    """One worker's shared-memory file, open.

    Concurrency: any thread may call anything; calls take turns, so that none uses a descriptor that was closed.
    """

    def __init__(self, descriptor: int, name: str, size_bytes: int) -> None:
        self._descriptor: int | None = descriptor
        self._lock = threading.Lock()
        self._name = name
        self._size_bytes = size_bytes

    @classmethod
    def open(cls, hello: memory_pb2.Arena, folder: Path = _FOLDER) -> "Arena | None":
        """The arena of a Hello, or None if this machine does not hold it: another host, container or user.

        Raises:
            InvalidRequest: The name or the nonce is not of the agreed form.
        """
        if not _NAME.fullmatch(hello.name):
            raise InvalidRequest(f"arena.name: expected 'attn-' and [a-z0-9-], got {hello.name[:128]!r}")
        if len(hello.nonce) != NONCE_BYTES:
            raise InvalidRequest(f"arena.nonce: expected {NONCE_BYTES} bytes, got {len(hello.nonce)}")
        try:
            descriptor = os.open(folder / hello.name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        if _is_the_one(descriptor, hello):
            return cls(descriptor, hello.name, hello.size_bytes)
        os.close(descriptor)
        return None

    def read(self, slot: block_pb2.ArenaSlot) -> bytes:
        """Bytes of a slot.

        Raises:
            InvalidRequest: The slot is not inside the arena.
            ArenaNotAccepted: The file is shorter than the worker said, or the worker is gone.
        """
        self._check(slot)
        with self._lock:
            data = os.pread(self._opened(), slot.size_bytes, slot.offset)
        if len(data) != slot.size_bytes:
            raise ArenaNotAccepted(
                f"arena {self._name}: expected {slot.size_bytes} bytes at {slot.offset}, got {len(data)}"
            )
        return data

    def write(self, slot: block_pb2.ArenaSlot, data: bytes) -> None:
        """Fill the beginning of a slot.

        Raises:
            InvalidRequest: The slot is not inside the arena, or smaller than the data.
            ArenaNotAccepted: The file is shorter than the worker said, or the worker is gone.
        """
        self._check(slot)
        if slot.size_bytes < len(data):
            raise InvalidRequest(f"slot at {slot.offset}: expected at least {len(data)} bytes, got {slot.size_bytes}")
        with self._lock:
            size = os.fstat(self._opened()).st_size
            # Writing past the end would make the file longer, which is the worker's to do.
            if size < self._size_bytes:
                raise ArenaNotAccepted(f"arena {self._name}: expected {self._size_bytes} bytes, got {size}")
            written = os.pwrite(self._opened(), data, slot.offset)
        if written != len(data):
            raise ArenaNotAccepted(
                f"arena {self._name}: expected {len(data)} bytes to fit at {slot.offset}, got {written}"
            )

    def close(self) -> None:
        """Let go of the file; the worker unlinks it."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _opened(self) -> int:
        if self._descriptor is None:
            raise ArenaNotAccepted(f"arena {self._name}: expected a worker that is attached, got one that left")
        return self._descriptor

    def _check(self, slot: block_pb2.ArenaSlot) -> None:
        if slot.offset < NONCE_BYTES or slot.offset + slot.size_bytes > self._size_bytes:
            expected = f"bytes {NONCE_BYTES} to {self._size_bytes} of arena {self._name}"
            raise InvalidRequest(f"slot: expected {expected}, got {slot.offset} to {slot.offset + slot.size_bytes}")


def _is_the_one(descriptor: int, hello: memory_pb2.Arena) -> bool:
    status = os.fstat(descriptor)
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size == hello.size_bytes
        and os.pread(descriptor, NONCE_BYTES, 0) == hello.nonce
    )
