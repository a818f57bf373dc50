"""A session's log: records appended to one file, FOLDER/log, and read back whole when it is opened.

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

A bad record at or past `synced bytes` is what a crash leaves of writes that nobody was promised: the log is cut there.
A bad one before it was durable and is damaged now: nothing is cut, the log is refused. Where `synced bytes` itself is
damaged, as by a write that the disk took a part of, all of the file counts as durable.

Invariants:
    What `open` returns is what was appended, from the first record on, without holes.
    A record of another session never passes for one of this: its CRC continues from the session id.
    After a write or an fsync failed, the log takes nothing more: its end is unknown until it is opened again.

Concurrency: one append at a time; `sync` may overlap it.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import google_crc32c
import msgpack

from memsvc.disk import create_file, disk_call, make_folder, opened, reading, sync_file, sync_folder, write_at
from memsvc.errors import CorruptLog, FormatVersion, LimitExceeded, StorageFailed
from memsvc.storage import SYSTEM, Storage

FILE_NAME = "log"
# Bytes of one record at most.
RECORD_BYTES_MAX = 1 << 30

_MAGIC = b"MEMSVLOG"
_VERSION = 1
_IDENTITY = struct.Struct("<8sI16s")
_CRC = struct.Struct("<I")
_SYNCED = struct.Struct("<Q")
_SYNCED_OFFSET = _IDENTITY.size + _CRC.size
_RECORDS_OFFSET = _SYNCED_OFFSET + _SYNCED.size + _CRC.size
_RECORD_HEAD = struct.Struct("<IBQQ")
# A record whose body is the empty map, one byte.
_RECORD_BYTES_MIN = _RECORD_HEAD.size + 1 + _CRC.size
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


# Of records past the durable ones, in order: how many of them are backed by what they name.
Holding = Callable[[Sequence[LogRecord]], int]


class SessionLog:
    """The log of one session, open for appending; made by `create` or `open`."""

    def __init__(
        self, path: Path, descriptor: int, identity: bytes, size_bytes: int, sequence: int, storage: Storage = SYSTEM
    ) -> None:
        self._storage = storage
        self._path = path
        self._descriptor = descriptor
        self._identity = identity
        self._seed = _seed_of(identity)
        self._size_bytes = self._synced_bytes = size_bytes
        self._sequence = sequence
        # Why nothing more is taken; empty while all is well.
        self._failure = ""
        self._packer = msgpack.Packer()
        self._sync_lock = threading.Lock()

    @classmethod
    def create(cls, folder: Path, session_id: str, storage: Storage = SYSTEM) -> "SessionLog":
        """Makes an empty log, and its folder if that is not there.

        Args:
            session_id: A UUID, hex.

        Durability: the log and the folder survive power loss.

        Raises:
            StorageFailed: There is a log already, or the disk refused.
        """
        make_folder(folder, storage)
        sync_folder(folder.parent, storage)
        identity, path = _identity_of(session_id), folder / FILE_NAME
        descriptor = create_file(path, identity + _synced_field(identity, _RECORDS_OFFSET), storage)
        return cls(path, descriptor, identity, _RECORDS_OFFSET, 0, storage)

    @classmethod
    def open(
        cls, folder: Path, session_id: str, storage: Storage = SYSTEM, holding: "Holding | None" = None
    ) -> "tuple[SessionLog, list[LogRecord]]":
        """Reads the log of a session, cuts off what a crash left at its end, and goes on after it.

        Args:
            holding: Told the whole records that may not have been durable; how many of them count. All if None.

        Durability: what is returned survives power loss.

        Raises:
            CorruptLog: A record that was durable is damaged or gone, or this is no log of this session.
            FormatVersion: It is of another version; nothing was changed.
            StorageFailed: The disk refused.
        """
        identity, path = _identity_of(session_id), folder / FILE_NAME
        try:
            with disk_call("read a log", path), opened(path, os.O_RDONLY, storage) as descriptor:
                size_bytes = storage.size(descriptor)
            with disk_call("read a log", path), reading(path, storage) as file:
                synced_bytes = _read_head(file, size_bytes, identity, path)
                records, end, doubtful = _read_records(file, size_bytes, identity, synced_bytes, path)
        except StorageFailed as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise CorruptLog(f"expected the log of session {session_id}, got no file, at {path}") from error
            raise
        if holding is not None:
            durable = len(records) - len(doubtful)
            held = holding(records[durable:])
            end -= sum(map(len, doubtful[held:]))
            del records[durable + held :], doubtful[held:]
        with disk_call("open a log", path):
            descriptor = storage.open(path, os.O_RDWR)
        log = cls(path, descriptor, identity, end, len(records), storage)
        log._synced_bytes = synced_bytes
        try:
            log._settle_end(b"".join(doubtful))
        except BaseException:
            storage.close(descriptor)
            raise
        return log, records

    @property
    def unsynced(self) -> bool:
        """Whether a power loss now could lose records."""
        return self._size_bytes != self._synced_bytes

    @property
    def unsynced_bytes(self) -> int:
        """Bytes that a power loss now could lose."""
        return self._size_bytes - self._synced_bytes

    @property
    def failure(self) -> str:
        """Why nothing more is taken; empty while all is well."""
        return self._failure

    @property
    def sequence(self) -> int:
        """Of the newest record; as many as there are."""
        return self._sequence

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._size_bytes

    def append(self, kind: int, epoch: int, body: Mapping[str, Any]) -> int:
        """Adds a record; returns its sequence.

        Args:
            kind: 0 to 255.
            body: What msgpack carries, bytes included; numpy arrays are not.

        Durability: survives kill -9; power loss once `sync` returned.

        Raises:
            LimitExceeded: The record is longer than RECORD_BYTES_MAX; nothing was written.
            StorageFailed: The disk refused, now or earlier.

        Cost: 4 us and the write.
        """
        self._refuse_if_failed()
        sequence = self._sequence + 1
        packed = self._packer.pack(dict(body))
        length = _RECORD_HEAD.size + len(packed) + _CRC.size
        if length > RECORD_BYTES_MAX:
            raise LimitExceeded(f"expected a record of at most {RECORD_BYTES_MAX} bytes, got {length}, at {self._path}")
        head = _RECORD_HEAD.pack(length, kind, sequence, epoch)
        crc = google_crc32c.extend(google_crc32c.extend(self._seed, head), packed)
        with self._failing_for_good():
            write_at(self._descriptor, [head, packed, _CRC.pack(crc)], self._size_bytes, self._path, self._storage)
        self._size_bytes += length
        self._sequence = sequence
        return sequence

    def sync(self, promised_bytes: int | None = None) -> None:
        """Waits until every record appended before the call, or in the first so many bytes, survives power loss.

        Raises:
            StorageFailed: The disk refused, now or earlier.
        """
        with self._sync_lock:
            self._refuse_if_failed()
            size_bytes = self._size_bytes if promised_bytes is None else promised_bytes
            if size_bytes > self._synced_bytes:
                with self._failing_for_good():
                    sync_file(self._descriptor, self._path, self._storage)
                    self._mark_synced(size_bytes)

    def close(self, *, backed: bool = True) -> None:
        """Syncs, unless the log failed, and closes the file. A second call does nothing.

        Args:
            backed: Whether what all records name is durable; if not, no more of them count as durable than do now.

        Raises:
            StorageFailed: The disk refused; the file is closed all the same.
        """
        if self._descriptor < 0:
            return
        try:
            if backed and not self._failure:
                self.sync()
        finally:
            self._storage.close(self._descriptor)
            self._descriptor = -1
            self._failure = self._failure or f"closed, at {self._path}"

    def _settle_end(self, doubtful: bytes) -> None:
        """Cuts the file to the records that were read, and makes the last of them, which may not be durable, so."""
        storage = self._storage
        with disk_call("cut a log", self._path):
            if storage.size(self._descriptor) != self._size_bytes:
                storage.truncate(self._descriptor, self._size_bytes)
        # After a failed fsync the system may hold bytes that it takes for stored: writing them again makes the next one
        # store them.
        write_at(self._descriptor, [doubtful], self._size_bytes - len(doubtful), self._path, storage)
        sync_file(self._descriptor, self._path, storage)
        self._mark_synced(self._size_bytes)

    def _mark_synced(self, size_bytes: int) -> None:
        """Notes that the file is durable up to here. The note itself need not be: an older one promises less."""
        field = _synced_field(self._identity, size_bytes)
        write_at(self._descriptor, [field], _SYNCED_OFFSET, self._path, self._storage)
        self._synced_bytes = size_bytes

    def _refuse_if_failed(self) -> None:
        if self._failure:
            raise StorageFailed(f"expected a log that takes records, got one that is out of use: {self._failure}")

    @contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        try:
            yield
        except StorageFailed as error:
            self._failure = str(error)
            raise


def read_log(folder: Path, session_id: str, count: int, storage: Storage = SYSTEM) -> list[LogRecord]:
    """The first `count` records of a session's log, which may be open and appended to; nothing is changed.

    Durability: what is returned may be lost, unless it was synced.

    Raises:
        CorruptLog: There are not so many, or this is no log of this session.
        FormatVersion: It is of another version.
        StorageFailed: The disk refused.
    """
    identity, path = _identity_of(session_id), folder / FILE_NAME
    seed, end = _seed_of(identity), _RECORDS_OFFSET
    records: list[LogRecord] = []
    with disk_call("read a log", path), reading(path, storage) as file:
        _read_identity(file, identity, path)
        while len(records) < count:
            if (piece := _read_record(file, seed, RECORD_BYTES_MAX)) is None:
                raise CorruptLog(f"expected {count} records, got {len(records)}, at offset {end} of {path}")
            records.append(_parse(piece, len(records) + 1, f"at offset {end} of {path}"))
            end += len(piece)
    return records


def _identity_of(session_id: str) -> bytes:
    """The first 32 bytes of a session's log."""
    identity = _IDENTITY.pack(_MAGIC, _VERSION, UUID(session_id).bytes)
    return identity + _CRC.pack(google_crc32c.value(identity))


def _seed_of(identity: bytes) -> int:
    """What checksums continue from; not past the identity's own, since any data followed by its CRC gives the same."""
    return int(google_crc32c.value(identity[: -_CRC.size]))


def _synced_field(identity: bytes, size_bytes: int) -> bytes:
    field = _SYNCED.pack(size_bytes)
    return field + _CRC.pack(google_crc32c.extend(_seed_of(identity), field))


def _read_head(file: BinaryIO, size_bytes: int, identity: bytes, path: Path) -> int:
    """Checks what comes before the records; returns how many bytes of the file were durable, all if that is damaged."""
    found = _read_identity(file, identity, path)
    if len(found) < _RECORDS_OFFSET or found[: len(identity)] != identity:
        raise CorruptLog(f"expected a head of {_RECORDS_OFFSET} bytes with its checksums, got {found.hex()}, at {path}")
    synced_bytes = int.from_bytes(found[_SYNCED_OFFSET : _SYNCED_OFFSET + _SYNCED.size], "little")
    return synced_bytes if found == identity + _synced_field(identity, synced_bytes) else size_bytes


def _read_identity(file: BinaryIO, identity: bytes, path: Path) -> bytes:
    """What comes before the records, of which all is checked but how many bytes of the file were durable."""
    found = file.read(_RECORDS_OFFSET)
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
    whole = found[_MAGIC_BYTES] == _MAGIC and crc == _CRC.pack(google_crc32c.value(head))
    version = int.from_bytes(found[_VERSION_BYTES], "little")
    if whole and version != _VERSION:
        raise FormatVersion(f"expected a log of format version {_VERSION}, got {version}, at {path}")


def _read_records(
    file: BinaryIO, size_bytes: int, identity: bytes, synced_bytes: int, path: Path
) -> tuple[list[LogRecord], int, list[bytes]]:
    """The records up to the first bad one, where they end, and the bytes of each that may not be durable.

    Raises CorruptLog if that bad one was durable.
    """
    seed = _seed_of(identity)
    records: list[LogRecord] = []
    doubtful: list[bytes] = []
    end = _RECORDS_OFFSET
    while (piece := _read_record(file, seed, size_bytes - end)) is not None:
        record = _parse(piece, len(records) + 1, f"at offset {end} of {path}")
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


def _read_record(file: BinaryIO, seed: int, available: int) -> bytes | None:
    """The bytes of the next record; None where there is none, or not all of it, or its checksum differs."""
    if available < _RECORD_BYTES_MIN:
        return None
    length = file.read(4)
    size_bytes = int.from_bytes(length, "little")
    if not _RECORD_BYTES_MIN <= size_bytes <= min(available, RECORD_BYTES_MAX):
        return None
    piece = length + file.read(size_bytes - 4)
    # Whatever is followed by its own checksum has the same one as nothing followed by its own: no copy is made.
    return piece if google_crc32c.extend(seed, piece) == google_crc32c.value(_CRC.pack(0)) else None


def _parse(piece: bytes, expected_sequence: int, place: str) -> LogRecord:
    """A record whose checksum holds. Raises CorruptLog if it should not stand here or is no record all the same."""
    _, kind, sequence, epoch = _RECORD_HEAD.unpack_from(piece)
    if sequence != expected_sequence:
        raise CorruptLog(f"expected record {expected_sequence}, got record {sequence}, {place}")
    try:
        body = msgpack.unpackb(memoryview(piece)[_RECORD_HEAD.size : -_CRC.size], strict_map_key=False)
    except ValueError as error:
        raise CorruptLog(f"expected a msgpack body in record {sequence}, got {error}, {place}") from error
    if not isinstance(body, dict):
        raise CorruptLog(f"expected a map in record {sequence}, got {type(body).__name__}, {place}")
    return LogRecord(kind, sequence, epoch, body)
