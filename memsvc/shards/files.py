"""Files of sealed shards: written durably once, and read back only as they were written.

    {kind}-{first}-{BLAKE2b-128 of the int16 rows}-{CRC32C of the file}.bin       in the finder library's own format

Invariants:
    A shard is read back only for the very bookmarks it was made of, and only if its bytes are as written.
    There is at most one file of a kind for each first bookmark once `store` returns.
"""

from collections.abc import Callable
from pathlib import Path

import google_crc32c

from memsvc.disk import disk_call, sync_file, sync_folder

_READ_BYTES = 1 << 20


def store(folder: Path, kind: str, first: int, digest: str, write: Callable[[str], None]) -> Path:
    """Write a shard's file durably, in place of any other that begins at the same bookmark; returns its path.

    Args:
        digest: Of the rows, hex.
        write: Writes the shard to the path it is given.

    Durability: the file survives power loss once this returns.

    Raises:
        StorageFailed: The disk refused; what stood there before may be gone.
    """
    unnamed = folder / f"{kind}-{first}-{digest}.tmp"
    with disk_call("write a shard", unnamed):
        write(str(unnamed))
        with unnamed.open("rb") as file:
            sync_file(file.fileno(), unnamed)
    crc = _crc32c(unnamed)
    with disk_call("name a shard's file", unnamed):
        path = unnamed.rename(folder / f"{kind}-{first}-{digest}-{crc:08x}.bin")
        for other in set(folder.glob(f"{kind}-{first}-*")) - {path}:
            other.unlink()
    sync_folder(folder)
    return path


def stored(folder: Path, kind: str, first: int, digest: str) -> Path | None:
    """The undamaged file of exactly these bookmarks; None if there is none. Raises StorageFailed."""
    for path in folder.glob(f"{kind}-{first}-{digest}-*.bin"):
        if path.name.endswith(f"-{_crc32c(path):08x}.bin"):
            return path
    return None


def _crc32c(path: Path) -> int:
    crc = 0
    with disk_call("read a shard", path), path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            crc = google_crc32c.extend(crc, piece)
    return crc
