"""Reading the files of a data folder without changing them."""

import os
from pathlib import Path

from memsvc.disk import disk_call, opened, reading
from memsvc.storage import Storage


def bytes_of(path: Path, storage: Storage) -> bytes | None:
    """All bytes of a file; None if there is none. Raises StorageFailed."""
    if not path.is_file():
        return None
    with disk_call("read a file", path), reading(path, storage) as file:
        return file.read()


def bytes_at(path: Path, offset: int, size_bytes: int, storage: Storage) -> bytes:
    """Bytes of a file that is there; fewer where it ends. Raises StorageFailed."""
    what = f"read {size_bytes} bytes at offset {offset}"
    with disk_call(what, path), opened(path, os.O_RDONLY, storage) as descriptor:
        return storage.read(descriptor, size_bytes, offset)


def size_of(path: Path, storage: Storage) -> int:
    """Length of a file that is there. Raises StorageFailed."""
    with disk_call("look at a file", path), opened(path, os.O_RDONLY, storage) as descriptor:
        return storage.size(descriptor)


def names_in(folder: Path, storage: Storage) -> list[str]:
    """Names in a folder, in order; none if there is no folder. Raises StorageFailed."""
    if not folder.is_dir():
        return []
    with disk_call("list a folder", folder):
        return sorted(storage.names(folder))
