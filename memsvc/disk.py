"""The disk calls that log, blocks, saved shards and folders share: each does all of its work, or raises StorageFailed.

Must not know: what the bytes mean.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memsvc.errors import StorageFailed


@contextmanager
def disk_call(what: str, path: Path) -> Iterator[None]:
    """Turns an OSError of the calls inside into a StorageFailed that names what was to be done, and where."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"expected to {what}, got {error.strerror or error}, at {path}") from error


def create_file(path: Path, head: bytes) -> int:
    """Makes a file that begins with `head`; returns its descriptor, for reading and writing.

    Durability: the file, its head and its name in the folder survive power loss.

    Raises:
        StorageFailed: The path exists, or the disk refused.
    """
    with disk_call("create a file", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_at(descriptor, [head], 0, path)
        sync_file(descriptor, path)
        sync_folder(path.parent)
    except BaseException:
        os.close(descriptor)
        with disk_call("remove a file that could not be written", path):
            path.unlink()
        raise
    return descriptor


def write_at(descriptor: int, pieces: list[bytes], offset: int, path: Path) -> None:
    """Writes the pieces one after the other from `offset` on, in one call of the system.

    Durability: survives kill -9, not power loss.

    Raises:
        StorageFailed: The disk refused, or took only a part, which may then be on it.
    """
    size = sum(map(len, pieces))
    with disk_call(f"write {size} bytes at offset {offset}", path):
        written = os.pwritev(descriptor, pieces, offset)
    if written != size:
        raise StorageFailed(f"expected to write {size} bytes at offset {offset}, got {written} written, at {path}")


def sync_file(descriptor: int, path: Path) -> None:
    """Waits until what was written survives power loss. Raises StorageFailed; then nobody knows what survives."""
    with disk_call("fsync", path):
        os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder survive power loss. Raises StorageFailed."""
    with disk_call("fsync a folder", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
