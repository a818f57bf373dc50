"""The bytes of a session's log: its head, its records, and reading them back.

    offset      field               little-endian
    0           magic               8 bytes, "MEMSVLOG"
    8           format version      u32, 1
    12          session id          16 bytes
    28          CRC32C              u32, of bytes 0 to 27
    32          synced bytes        u64, length of the file that is known to be durable
    40          CRC32C              u32, of bytes 0 to 27 and 32 to 39
    44          records, one after the other:

    0           length              u32, bytes of the whole record, 25 and on
    4           kind                u8, what the body means; the session's business
    5           sequence            u64, 1, 2, ... without holes
    13          epoch               u64
    21          body                msgpack map
    length - 4  CRC32C              u32, of all before it, continued from that of the log's bytes 0 to 27

Bytes 0 to 31 are the same in every version, so that each can tell another one from damage.

Invariants:
    A record of another session never passes for one of this: its CRC continues from the session id.
Must not know: appending, syncing, what a body means.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import google_crc32c
import msgpack

from memsvc.errors import CorruptLog, FormatVersion

FILE_NAME = "log"
# Bytes of one record at most.
RECORD_BYTES_MAX = 1 << 30

_MAGIC = b"MEMSVLOG"
_VERSION = 1
_IDENTITY = struct.Struct("<8sI16s")
CRC = struct.Struct("<I")
_SYNCED = struct.Struct("<Q")
SYNCED_OFFSET = _IDENTITY.size + CRC.size
RECORDS_OFFSET = SYNCED_OFFSET + _SYNCED.size + CRC.size
RECORD_HEAD = struct.Struct("<IBQQ")
# A record whose body is the empty map, one byte.
_RECORD_BYTES_MIN = RECORD_HEAD.size + 1 + CRC.size
# Where the fields of the head lie that tell a session's log from anything else.
_MAGIC_BYTES, _VERSION_BYTES, _SESSION_BYTES = slice(0, 8), slice(8, 12), slice(12, 28)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record as it was appended; sequences of the body come back as lists.

    Args:
        body: A map that msgpack carries; bytes are allowed.
    """

    kind: int
    sequence: int
    epoch: int
    body: Mapping[str, Any]


def identity_of(session_id: str) -> bytes:
    """The first 32 bytes of a session's log."""
    identity = _IDENTITY.pack(_MAGIC, _VERSION, UUID(session_id).bytes)
    return identity + CRC.pack(google_crc32c.value(identity))


def seed_of(identity: bytes) -> int:
    """What checksums continue from; not past the identity's own, since any data followed by its CRC gives the same."""
    return int(google_crc32c.value(identity[: -CRC.size]))


def synced_field(identity: bytes, size_bytes: int) -> bytes:
    """What stands behind the identity: so many bytes of the file are durable."""
    field = _SYNCED.pack(size_bytes)
    return field + CRC.pack(google_crc32c.extend(seed_of(identity), field))


def read_head(file: BinaryIO, size_bytes: int, identity: bytes, path: Path) -> int:
    """Checks what comes before the records; returns how many bytes of the file were durable, all if that is damaged."""
    found = read_identity(file, identity, path)
    if len(found) < RECORDS_OFFSET or found[: len(identity)] != identity:
        raise CorruptLog(f"expected a head of {RECORDS_OFFSET} bytes with its checksums, got {found.hex()}, at {path}")
    synced_bytes = int.from_bytes(found[SYNCED_OFFSET : SYNCED_OFFSET + _SYNCED.size], "little")
    return synced_bytes if found == identity + synced_field(identity, synced_bytes) else size_bytes


def read_identity(file: BinaryIO, identity: bytes, path: Path) -> bytes:
    """What comes before the records, of which all is checked but how many bytes of the file were durable."""
    found = file.read(RECORDS_OFFSET)
    _require_version(found, identity, path)
    for name, field in (("magic", _MAGIC_BYTES), ("format version", _VERSION_BYTES), ("session id", _SESSION_BYTES)):
        if found[field] != identity[field]:
            raise CorruptLog(
                f"expected {name} {identity[field].hex()}, got {found[field].hex() or 'nothing'}, at {path}"
            )
    return found


def _require_version(found: bytes, identity: bytes, path: Path) -> None:
    """Raises FormatVersion for a whole head of another version; one that is damaged is none."""
    head, crc = found[: _IDENTITY.size], found[_IDENTITY.size : len(identity)]
    whole = found[_MAGIC_BYTES] == _MAGIC and crc == CRC.pack(google_crc32c.value(head))
    version = int.from_bytes(found[_VERSION_BYTES], "little")
    if whole and version != _VERSION:
        raise FormatVersion(f"expected a log of format version {_VERSION}, got {version}, at {path}")


def read_records(
    file: BinaryIO, size_bytes: int, identity: bytes, synced_bytes: int, path: Path
) -> tuple[list[LogRecord], int, list[bytes]]:
    """The records up to the first bad one, where they end, and the bytes of each that may not be durable.

    Raises CorruptLog if that bad one was durable.
    """
    seed = seed_of(identity)
    records: list[LogRecord] = []
    doubtful: list[bytes] = []
    end = RECORDS_OFFSET
    while (piece := read_record(file, seed, size_bytes - end)) is not None:
        record = parse(piece, len(records) + 1, f"at offset {end} of {path}")
        records.append(record)
        end += len(piece)
        if end > synced_bytes:
            doubtful.append(piece)
    if end < synced_bytes:
        raise CorruptLog(
            f"expected record {len(records) + 1} whole, durable up to byte {synced_bytes}, "
            f"got {'the end of the file' if end == size_bytes else 'damage'}, at offset {end} of {path}"
        )
    return records, end, doubtful


def read_record(file: BinaryIO, seed: int, available: int) -> bytes | None:
    """The bytes of the next record; None where there is none, or not all of it, or its checksum differs."""
    if available < _RECORD_BYTES_MIN:
        return None
    length = file.read(4)
    size_bytes = int.from_bytes(length, "little")
    if not _RECORD_BYTES_MIN <= size_bytes <= min(available, RECORD_BYTES_MAX):
        return None
    piece = length + file.read(size_bytes - 4)
    # Whatever is followed by its own checksum has the same one as nothing followed by its own: no copy is made.
    return piece if google_crc32c.extend(seed, piece) == google_crc32c.value(CRC.pack(0)) else None


def parse(piece: bytes, expected_sequence: int, place: str) -> LogRecord:
    """A record whose checksum holds. Raises CorruptLog if it should not stand here or is no record all the same."""
    _, kind, sequence, epoch = RECORD_HEAD.unpack_from(piece)
    if sequence != expected_sequence:
        raise CorruptLog(f"expected record {expected_sequence}, got record {sequence}, {place}")
    try:
        body = msgpack.unpackb(memoryview(piece)[RECORD_HEAD.size : -CRC.size], strict_map_key=False)
    except ValueError as error:
        raise CorruptLog(f"expected a msgpack body in record {sequence}, got {error}, {place}") from error
    if not isinstance(body, dict):
        raise CorruptLog(f"expected a map in record {sequence}, got {type(body).__name__}, {place}")
    return LogRecord(kind, sequence, epoch, body)
