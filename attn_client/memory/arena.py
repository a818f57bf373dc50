"""Shared memory that block bytes cross in without being sent: a file under /dev/shm that the client owns.

    /dev/shm/attn-<pid>-<random>    16-byte nonce, padded to a page | half for puts | half for fetches

The two halves keep a server that writes late (after a fetch was given up) from touching bytes that are on their way
to it.

Invariants: every byte is backed before use (a full /dev/shm is an error here and not a SIGBUS later); the owner holds
a lock on its file for life, so a file whose lock can be had is a dead owner's and `remove_abandoned` deletes it; the
file is unlinked on close, and at exit if nobody closed it.
Must not know: what the bytes mean, gRPC.
"""

import fcntl
import mmap
import os
import secrets
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FOLDER = Path("/dev/shm")
PREFIX = "attn-"
NONCE_BYTES = 16
PAGE_BYTES = 4096

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Slot:
    """Leased bytes: offset in the file and size."""

    offset: int
    size_bytes: int


class Region:
    """Part of an arena, leased first-fit in whole pages. Thread-safe."""

    def __init__(self, first: int, end: int) -> None:
        self._free = [(first, end)]
        self._lock = threading.Lock()

    def lease(self, size_bytes: int) -> Slot | None:
        """A slot of so many bytes, or None when no free stretch is long enough."""
        pages = -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
        with self._lock:
            for index, (first, end) in enumerate(self._free):
                if end - first >= pages:
                    self._free[index : index + 1] = [(first + pages, end)] if end - first > pages else []
                    return Slot(first, size_bytes)
        return None

    def release(self, slot: Slot) -> None:
        """Give a leased slot back."""
        first = slot.offset
        end = first + -(-slot.size_bytes // PAGE_BYTES) * PAGE_BYTES
        with self._lock:
            kept = []
            for other_first, other_end in self._free:
                if other_end == first:
                    first = other_first
                elif other_first == end:
                    end = other_end
                else:
                    kept.append((other_first, other_end))
            self._free = sorted([*kept, (first, end)])

    def release_all(self, slots: Iterable[Slot]) -> None:
        """Give leased slots back."""
        for slot in slots:
            self.release(slot)

    @property
    def free_bytes(self) -> int:
        """Bytes that are not leased, in one stretch or several."""
        with self._lock:
            return sum(end - first for first, end in self._free)


class Arena:
    """One shared file, mapped. `puts` and `fetches` lease its halves.

    Raises:
        OSError: The file system has no room for it, or cannot be written.
    """

    def __init__(self, size_bytes: int, folder: Path = FOLDER) -> None:
        half = size_bytes // 2 // PAGE_BYTES * PAGE_BYTES
        self.size_bytes = PAGE_BYTES + 2 * half
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self._path, descriptor = _create_locked(folder)
        self._unlink = weakref.finalize(self, _unlink_and_close, self._path, descriptor, os.getpid())
        try:
            os.posix_fallocate(descriptor, 0, self.size_bytes)
            self._map = mmap.mmap(descriptor, self.size_bytes)
        except OSError:
            self._unlink()
            raise
        self._map[:NONCE_BYTES] = self.nonce
        self.puts = Region(PAGE_BYTES, PAGE_BYTES + half)
        self.fetches = Region(PAGE_BYTES + half, self.size_bytes)

    @property
    def name(self) -> str:
        """File name without folder."""
        return self._path.name

    def view(self, slot: Slot) -> Bytes:
        """A leased slot's bytes, writable, without a copy. Drop it before `close`."""
        return np.frombuffer(self._map, np.uint8, slot.size_bytes, slot.offset)

    def close(self) -> None:
        """Unlink the file. The mapping goes when the last view of it does. Closing twice is fine."""
        self._unlink()


def remove_abandoned(folder: Path = FOLDER) -> int:
    """Delete arenas whose owner died without closing them; how many they were.

    Args:
        folder: Only files of this user in it are touched; one that vanishes meanwhile is someone else's doing and fine.
    """
    removed = 0
    for path in sorted(folder.glob(f"{PREFIX}*-*")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, PermissionError):
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            removed += 1
        except BlockingIOError:
            # Its owner lives.
            continue
        finally:
            os.close(descriptor)
    return removed


def _create_locked(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return path, descriptor
        except BlockingIOError:
            # Another process took it for abandoned between the two calls and is deleting it.
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _unlink_and_close(path: Path, descriptor: int, owner: int) -> None:
    # A forked child inherits the finalizer with everything else; the file is its parent's.
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
    os.close(descriptor)
