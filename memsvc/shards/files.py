"""Files of sealed shards: written durably once, and read back only as they were written.

    {kind}-{first}-{BLAKE2b-128 of the int16 rows}-{CRC32C of the file}.v1.bin    in the finder library's own format

The name is the header, since the library writes the whole of the file: what it was made of, its checksum, and the
version of the format (`v1`). A shard of another version is not read but made anew: nothing is in it that the log lacks.

Invariants:
    A shard is read back only for the very bookmarks it was made of, and only if its bytes are as written.
    There is at most one file of a kind for each first bookmark once `store` returns.
"""

import os
from collections.abc import Callable
from pathlib import Path

import google_crc32c

from memsvc.disk import disk_call, opened, reading, sync_file, sync_folder
from memsvc.storage import SYSTEM, Storage

_READ_BYTES = 1 << 20
_SUFFIX = ".v1.bin"


def store(
    folder: Path, kind: str, first: int, digest: str, write: Callable[[str], None], storage: Storage = SYSTEM
) -> Path:
    """Write a shard's file durably, in place of any other that begins at the same bookmark; returns its path.

    Args:
        digest: Of the rows, hex.
        write: Writes the shard to the path it is given, by itself.

    Durability: the file survives power loss once this returns.

    Raises:
        StorageFailed: The disk refused; what stood there before may be gone.
    """
    unnamed = folder / f"{kind}-{first}-{digest}.tmp"
    with disk_call("write a shard", unnamed):
        write(str(unnamed))
        with opened(unnamed, os.O_RDONLY, storage) as descriptor:
            sync_file(descriptor, unnamed, storage)
    crc = _crc32c(unnamed, storage)
    with disk_call("name a shard's file", unnamed):
        path = folder / f"{kind}-{first}-{digest}-{crc:08x}{_SUFFIX}"
        storage.rename(unnamed, path)
        for other in _named(folder, f"{kind}-{first}-", storage):
            if other != path:
                storage.remove(other)
    sync_folder(folder, storage)
    return path


def stored(folder: Path, kind: str, first: int, digest: str, storage: Storage = SYSTEM) -> Path | None:
    """The undamaged file of exactly these bookmarks; None if there is none. Raises StorageFailed."""
    with disk_call("list shards", folder):
        paths = _named(folder, f"{kind}-{first}-{digest}-", storage)
    for path in paths:
        if path.name.endswith(_SUFFIX) and path.name.endswith(f"-{_crc32c(path, storage):08x}{_SUFFIX}"):
            return path
    return None


def _named(folder: Path, start: str, storage: Storage) -> list[Path]:
    """Files whose names start so."""
    return [folder / name for name in storage.names(folder) if name.startswith(start)]


def _crc32c(path: Path, storage: Storage) -> int:
    crc = 0
    with disk_call("read a shard", path), reading(path, storage) as file:
        while piece := file.read(_READ_BYTES):
            crc = google_crc32c.extend(crc, piece)
    return crc
