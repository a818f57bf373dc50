"""A session's log, read past whatever is damaged in it.

`memsvc.log` draws the format and stops at the first bad byte. Here reading goes on at the next record whose checksum
holds: a record's checksum continues from the session's id, so bytes that merely look like one do not pass.

Must not know: what records say.
"""

import struct
from dataclasses import dataclass
from uuid import UUID

import google_crc32c
import msgpack

from memsvc.log_format import LogRecord

_MAGIC, _VERSION = b"MEMSVLOG", 1
_IDENTITY = struct.Struct("<8sI16s")
_HEAD_BYTES = 44
_RECORD_HEAD = struct.Struct("<IBQQ")
_SEQUENCE_OFFSET = 5
_CRC_BYTES = 4
_RECORD_BYTES_MIN = _RECORD_HEAD.size + 1 + _CRC_BYTES
# How many records may be missing in one place before the rest is given up.
_MISSING_MAX = 256


@dataclass(frozen=True, slots=True)
class ScannedRecord:
    """A whole record and where it stands."""

    record: LogRecord
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LogDamage:
    """Bytes `offset` to `end` of the file, where records from `sequence` on should be.

    Args:
        missing: Records that are not there; 0 if nobody knows how many.
        data: The bytes.
    """

    offset: int
    end: int
    sequence: int
    missing: int
    data: bytes
    message: str


@dataclass(frozen=True, slots=True)
class LogScan:
    """All that a log file holds.

    Args:
        records: Whole ones, in order; sequences have holes where there is damage.
        damages: In order.
        head: What is wrong with the head; empty if nothing is.
        synced_bytes: Up to where the file is durable; None if its head does not say.
        torn_bytes: At the end, past what is durable: left by a crash, and promised to nobody.
        other_version: Whether it is the whole head of a log that another version of the server wrote.
    """

    records: tuple[ScannedRecord, ...]
    damages: tuple[LogDamage, ...]
    head: str
    synced_bytes: int | None
    torn_bytes: int
    other_version: bool = False

    @property
    def whole(self) -> bool:
        """Whether every byte that was durable is as it was written."""
        return not self.head and not self.damages

    def before_damage(self) -> list[ScannedRecord]:
        """The records up to the first damage."""
        end = self.damages[0].offset if self.damages else None
        return [own for own in self.records if end is None or own.offset < end]


def scan_log(data: bytes, session_id: str, *, growing: bool = False) -> LogScan:
    """Reads a log file.

    Args:
        data: All of it, or as much as was appended by then.
        session_id: A UUID, hex.
        growing: Whether a server appends to it: its head may tell of more than `data` has.
    """
    identity = _IDENTITY.pack(_MAGIC, _VERSION, UUID(session_id).bytes)
    head, synced_bytes = _head(data, identity)
    seed = int(google_crc32c.value(identity))
    if growing and synced_bytes is not None:
        synced_bytes = min(synced_bytes, len(data))
    records: list[ScannedRecord] = []
    damages: list[LogDamage] = []
    at, expected = _HEAD_BYTES, 1
    while at < len(data):
        found = _record_at(data, at, seed)
        if found is None or found.record.sequence != expected:
            if synced_bytes is not None and at >= synced_bytes:
                break
            found = found or _next_record(data, at, seed, expected)
            if found is None:
                break
            damages.append(_between(data, at, found, expected))
            if found.record.sequence < expected:
                at = found.offset + found.size_bytes
                continue
        records.append(found)
        at, expected = found.offset + found.size_bytes, found.record.sequence + 1
    if synced_bytes is not None and at < synced_bytes:
        got = "the end of the file" if at >= len(data) else "no record"
        message = f"expected record {expected}, durable up to byte {synced_bytes}, got {got}"
        damages.append(LogDamage(at, len(data), expected, 0, data[at:], message))
        at = len(data)
    return LogScan(
        tuple(records), tuple(damages), head, synced_bytes, max(0, len(data) - at), _is_of_other_version(data, identity)
    )


def _head(data: bytes, identity: bytes) -> tuple[str, int | None]:
    """What is wrong with a head, and how many bytes it says are durable."""
    synced = data[32:_HEAD_BYTES]
    seed = int(google_crc32c.value(identity))
    crc = int.from_bytes(synced[8:], "little")
    synced_bytes = None
    if len(synced) == _HEAD_BYTES - 32 and crc == google_crc32c.extend(seed, synced[:8]):
        synced_bytes = int.from_bytes(synced[:8], "little")
    for name, place in (("magic", slice(0, 8)), ("format version", slice(8, 12)), ("session id", slice(12, 28))):
        if data[place] != identity[place]:
            return f"expected {name} {identity[place].hex()}, got {data[place].hex() or 'nothing'}", synced_bytes
    if data[28:32] != seed.to_bytes(4, "little"):
        return f"expected checksum {seed:08x} of the head, got {data[28:32].hex() or 'nothing'}", synced_bytes
    if synced_bytes is None:
        return "expected a length that is durable, with its checksum, got another checksum", None
    return "", synced_bytes


def _is_of_other_version(data: bytes, identity: bytes) -> bool:
    whole = data[:8] == identity[:8] and data[28:32] == int(google_crc32c.value(data[:28])).to_bytes(4, "little")
    return whole and data[8:12] != identity[8:12]


def _record_at(data: bytes, offset: int, seed: int) -> ScannedRecord | None:
    """The record that begins here, if its checksum holds and it has a body."""
    size_bytes = int.from_bytes(data[offset : offset + 4], "little")
    if not _RECORD_BYTES_MIN <= size_bytes <= len(data) - offset:
        return None
    piece = memoryview(data)[offset : offset + size_bytes]
    crc = google_crc32c.extend(seed, bytes(piece[:-_CRC_BYTES]))
    if crc.to_bytes(_CRC_BYTES, "little") != piece[-_CRC_BYTES:]:
        return None
    _, kind, sequence, epoch = _RECORD_HEAD.unpack_from(piece)
    try:
        body = msgpack.unpackb(piece[_RECORD_HEAD.size : -_CRC_BYTES], strict_map_key=False)
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    return ScannedRecord(LogRecord(kind, sequence, epoch, body), offset, size_bytes)


def _next_record(data: bytes, at: int, seed: int, expected: int) -> ScannedRecord | None:
    """The first whole record after a bad one."""
    # Most damage leaves the length as it was.
    after = _record_at(data, at + max(1, int.from_bytes(data[at : at + 4], "little")), seed)
    if after is not None and after.record.sequence == expected + 1:
        return after
    for sequence in range(expected, expected + _MISSING_MAX):
        wanted = sequence.to_bytes(8, "little")
        place = data.find(wanted, at + 1 + _SEQUENCE_OFFSET)
        while place >= 0:
            found = _record_at(data, place - _SEQUENCE_OFFSET, seed)
            if found is not None and found.record.sequence == sequence:
                return found
            place = data.find(wanted, place + 1)
    return None


def _between(data: bytes, at: int, found: ScannedRecord, expected: int) -> LogDamage:
    """What stands where record `expected` should begin, up to the next whole record, or that one if it came before."""
    sequence = found.record.sequence
    if sequence < expected:
        end, message = found.offset + found.size_bytes, f"expected record {expected}, got record {sequence} again"
    elif found.offset == at:
        end, message = at, f"expected record {expected}, got record {sequence}"
    else:
        end = found.offset
        message = f"expected record {expected}, got {end - at} bytes of another checksum before record {sequence}"
    return LogDamage(at, end, expected, max(0, sequence - expected), data[at:end], message)
