"""The disk calls that log, blocks, saved shards and folders share: each does all of its work, or raises StorageFailed.

Each takes the storage that it calls last; the machine's own if none is named.

Must not know: what the bytes mean.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from memsvc.errors import StorageFailed
from memsvc.storage import SYSTEM, Storage

_READ_BYTES = 1 << 20


@contextmanager
def disk_call(what: str, path: Path) -> Iterator[None]:
    """Turns an OSError of the calls inside into a StorageFailed that names what was to be done, and where."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"expected to {what}, got {error.strerror or error}, at {path}") from error


def create_file(path: Path, head: bytes, storage: Storage = SYSTEM) -> int:
    """Makes a file that begins with `head`; returns its descriptor, for reading and writing.

    Durability: the file, its head and its name in the folder survive power loss.

    Raises:
        StorageFailed: The path exists, or the disk refused.
    """
    with disk_call("create a file", path):
        descriptor = storage.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        write_at(descriptor, [head], 0, path, storage)
        sync_file(descriptor, path, storage)
        sync_folder(path.parent, storage)
    except BaseException:
        storage.close(descriptor)
        with disk_call("remove a file that could not be written", path):
            storage.remove(path)
        raise
    return descriptor


def write_at(descriptor: int, pieces: list[bytes], offset: int, path: Path, storage: Storage = SYSTEM) -> None:
    """Writes the pieces one after the other from `offset` on, in one call of the system.

    Durability: survives kill -9, not power loss.

    Raises:
        StorageFailed: The disk refused, or took only a part, which may then be on it.
    """
    size = sum(map(len, pieces))
    with disk_call(f"write {size} bytes at offset {offset}", path):
        written = storage.write(descriptor, pieces, offset)
    if written != size:
        raise StorageFailed(f"expected to write {size} bytes at offset {offset}, got {written} written, at {path}")


def sync_file(descriptor: int, path: Path, storage: Storage = SYSTEM) -> None:
    """Waits until what was written survives power loss. Raises StorageFailed; then nobody knows what survives."""
    with disk_call("fsync", path):
        storage.sync(descriptor)


def sync_folder(path: Path, storage: Storage = SYSTEM) -> None:
    """Waits until the names in a folder survive power loss. Raises StorageFailed."""
    with disk_call("fsync a folder", path), opened(path, os.O_RDONLY | os.O_DIRECTORY, storage) as descriptor:
        storage.sync(descriptor)


def make_folder(path: Path, storage: Storage = SYSTEM) -> None:
    """Makes a folder and those above it; one that is there is fine. Raises StorageFailed."""
    with disk_call("make a folder", path):
        storage.make_folder(path)


@contextmanager
def opened(path: Path, flags: int, storage: Storage = SYSTEM) -> Iterator[int]:
    """A descriptor that is closed afterwards. Raises OSError: for use inside `disk_call`."""
    descriptor = storage.open(path, flags)
    try:
        yield descriptor
    finally:
        storage.close(descriptor)


@contextmanager
def reading(path: Path, storage: Storage = SYSTEM) -> Iterator[BinaryIO]:
    """A file to read from its beginning, in pieces of 1 MiB. Raises OSError: for use inside `disk_call`."""
    with opened(path, os.O_RDONLY, storage) as descriptor:
        yield io.BufferedReader(_Raw(descriptor, storage), _READ_BYTES)


class _Raw(io.RawIOBase):
    """The bytes of a descriptor, one after the other."""

    def __init__(self, descriptor: int, storage: Storage) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._storage = storage
        self._offset = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        data = self._storage.read(self._descriptor, len(buffer), self._offset)
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)
