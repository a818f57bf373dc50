"""Files of sealed shards, read against their names and against the rows that the log gives.

`memsvc.shards.files` draws the names. A file of other rows is never read by a server: it is of no use, and no damage.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from memsvc.disk import disk_call, reading
from memsvc.shards.base import Int16Array
from memsvc.storage import Storage
from memsvc.verify.findings import Severity
from memsvc.verify.reading import names_in

_READ_BYTES = 1 << 20
_NAME = re.compile(r"(?P<kind>[a-z0-9-]+)-(?P<first>\d+)-(?P<digest>[0-9a-f]{32})-(?P<crc>[0-9a-f]{8})\.v1\.bin")

# Rows of a stream from a bookmark on, int16 [n, dims].
RowsFrom = Callable[[int], Int16Array]


@dataclass(frozen=True, slots=True)
class ShardFlaw:
    """A file that a server would not read.

    Args:
        path: From the session's folder on.
    """

    severity: Severity
    path: str
    message: str


def check_shards(
    folder: Path, rows_from: Mapping[int, RowsFrom] | None, storage: Storage
) -> tuple[int, list[ShardFlaw]]:
    """How many files of shards there are, and what is wrong with them. Raises StorageFailed.

    Args:
        folder: Of the session.
        rows_from: By number of stream; None if the log does not give rows.
    """
    count, flaws = 0, []
    shards = folder / "shards"
    for stream in names_in(shards, storage):
        if not stream.isdigit() or not (shards / stream).is_dir():
            flaws.append(ShardFlaw(Severity.NOTE, f"shards/{stream}", "expected a stream's folder, got something else"))
            continue
        digests: dict[int, set[str]] = {}
        for name in names_in(shards / stream, storage):
            count += 1
            path = f"shards/{stream}/{name}"
            found = _NAME.fullmatch(name)
            if found is None:
                flaws.append(ShardFlaw(Severity.NOTE, path, "expected a shard's name, got one that no server reads"))
            elif (crc := _crc32c(shards / stream / name, storage)) != found["crc"]:
                message = f"expected CRC32C {found['crc']}, as its name says, got {crc}"
                flaws.append(ShardFlaw(Severity.DAMAGE, path, message))
            elif rows_from is not None:
                first = int(found["first"])
                if first not in digests:
                    digests[first] = _digests(rows_from.get(int(stream)), first)
                if found["digest"] not in digests[first]:
                    message = f"expected a shard of this session's bookmarks from {first} on, got one of others"
                    flaws.append(ShardFlaw(Severity.NOTE, path, message))
    return count, flaws


def _digests(rows_from: RowsFrom | None, first: int) -> set[str]:
    """Digests of the rows from `first` on, of every length: a name does not say how many a shard holds."""
    digests: set[str] = set()
    if rows_from is None:
        return digests
    digest = hashlib.blake2b(digest_size=16)
    for row in rows_from(first):
        digest.update(row.tobytes())
        digests.add(digest.copy().hexdigest())
    return digests


def _crc32c(path: Path, storage: Storage) -> str:
    crc = 0
    with disk_call("read a shard", path), reading(path, storage) as file:
        while piece := file.read(_READ_BYTES):
            crc = google_crc32c.extend(crc, piece)
    return f"{crc:08x}"
