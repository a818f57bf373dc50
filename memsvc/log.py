"""A session's log: records appended to one file, FOLDER/log, and read back whole when it is opened.

What stands in the file is in `memsvc.log_format`.

A bad record at or past `synced bytes` is what a crash leaves of writes that nobody was promised: the log is cut there.
A bad one before it was durable and is damaged now: nothing is cut, the log is refused. Where `synced bytes` itself is
damaged, as by a write that the disk took a part of, all of the file counts as durable.

Invariants:
    What `open` returns is what was appended, from the first record on, without holes.
    After a write or an fsync failed, the log takes nothing more: its end is unknown until it is opened again.

Concurrency: one append at a time; `sync` may overlap it.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import msgpack

from memsvc.disk import create_file, disk_call, make_folder, opened, reading, sync_file, sync_folder, write_at
from memsvc.errors import CorruptLog, LimitExceeded, StorageFailed
from memsvc.log_format import (
    CRC,
    FILE_NAME,
    RECORD_BYTES_MAX,
    RECORD_HEAD,
    RECORDS_OFFSET,
    SYNCED_OFFSET,
    LogRecord,
    identity_of,
    parse,
    read_head,
    read_identity,
    read_record,
    read_records,
    seed_of,
    synced_field,
)
from memsvc.storage import SYSTEM, Storage

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
        self._seed = seed_of(identity)
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
        identity, path = identity_of(session_id), folder / FILE_NAME
        descriptor = create_file(path, identity + synced_field(identity, RECORDS_OFFSET), storage)
        return cls(path, descriptor, identity, RECORDS_OFFSET, 0, storage)

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
        identity, path = identity_of(session_id), folder / FILE_NAME
        try:
            with disk_call("read a log", path), opened(path, os.O_RDONLY, storage) as descriptor:
                size_bytes = storage.size(descriptor)
            with disk_call("read a log", path), reading(path, storage) as file:
                synced_bytes = read_head(file, size_bytes, identity, path)
                records, end, doubtful = read_records(file, size_bytes, identity, synced_bytes, path)
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
        length = RECORD_HEAD.size + len(packed) + CRC.size
        if length > RECORD_BYTES_MAX:
            raise LimitExceeded(f"expected a record of at most {RECORD_BYTES_MAX} bytes, got {length}, at {self._path}")
        head = RECORD_HEAD.pack(length, kind, sequence, epoch)
        crc = google_crc32c.extend(google_crc32c.extend(self._seed, head), packed)
        with self._failing_for_good():
            write_at(self._descriptor, [head, packed, CRC.pack(crc)], self._size_bytes, self._path, self._storage)
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
        field = synced_field(self._identity, size_bytes)
        write_at(self._descriptor, [field], SYNCED_OFFSET, self._path, self._storage)
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
    identity, path = identity_of(session_id), folder / FILE_NAME
    seed, end = seed_of(identity), RECORDS_OFFSET
    records: list[LogRecord] = []
    with disk_call("read a log", path), reading(path, storage) as file:
        read_identity(file, identity, path)
        while len(records) < count:
            if (piece := read_record(file, seed, RECORD_BYTES_MAX)) is None:
                raise CorruptLog(f"expected {count} records, got {len(records)}, at offset {end} of {path}")
            records.append(parse(piece, len(records) + 1, f"at offset {end} of {path}"))
            end += len(piece)
    return records
