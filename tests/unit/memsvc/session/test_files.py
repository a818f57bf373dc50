"""Log and blocks of one session, kept in step."""

import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest

from memsvc.errors import StorageFailed
from memsvc.session.files import SessionFiles
from memsvc.session.records import RecordKind, pack_block
from memsvc.storage import Machine, SystemStorage

SESSION = uuid.UUID(int=7).hex
DATA = b"bytes of a block" * 64


class _WatchedStorage(SystemStorage):
    """Tells of each fsync, before it is carried out, by the name of the file, and counts what is read."""

    def __init__(self) -> None:
        self.read_bytes = 0
        self.synced: list[str] = []
        self.syncing: Callable[[str], None] = self.synced.append

    def sync(self, descriptor: int) -> None:
        """Waits until what was written survives power loss."""
        self.syncing(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        super().sync(descriptor)

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """The bytes there are, at most so many."""
        data = super().read(descriptor, size_bytes, offset)
        self.read_bytes += len(data)
        return data


def _put(files: SessionFiles, block: int) -> None:
    with files.put_lock:
        ref = files.put(block, 0, DATA, google_crc32c.value(DATA))
        files.append(RecordKind.BLOCK, 1, pack_block(ref))


def test_a_put_meanwhile_is_promised_by_the_next_sync_only(tmp_path: Path) -> None:
    """Proves that a block can be put while the disk is waited for, and that its record does not count as durable then.

    The disk may lose the block's bytes and keep its record: what counts as durable is never looked at again.
    """
    disk = _WatchedStorage()
    files = SessionFiles.create(tmp_path / "session", SESSION, {"name": "book"}, Machine(storage=disk))
    _put(files, 0)

    def meanwhile(name: str) -> None:
        if name.startswith("blocks-") and files.sequence == 2:
            _put(files, 1)
        disk.synced.append(name)

    disk.synced.clear()
    disk.syncing = meanwhile
    promised = files.log_bytes
    files.sync()
    assert disk.synced == ["blocks-000001.seg", "log"]
    assert files.sequence == 3
    assert files.unsynced_bytes >= files.log_bytes - promised > 0
    head = (tmp_path / "session" / "log").read_bytes()[:44]
    assert int.from_bytes(head[32:40], "little") == promised
    files.sync()
    assert not files.unsynced
    files.close()


def test_a_sync_with_nothing_new_asks_the_disk_for_nothing(tmp_path: Path) -> None:
    """Proves that what is durable is not synced again, and that a record alone takes one fsync."""
    disk = _WatchedStorage()
    files = SessionFiles.create(tmp_path / "session", SESSION, {"name": "book"}, Machine(storage=disk))
    disk.synced.clear()
    files.sync()
    assert disk.synced == []
    files.append(RecordKind.RENAMED, 1, {"name": "other"})
    files.sync()
    assert disk.synced == ["log"]
    files.close()


def test_closing_promises_no_block_that_the_disk_refused_to_sync(tmp_path: Path) -> None:
    """Proves that after a failed fsync of blocks, closing leaves their records in doubt, and opening stores them again.

    The system may hold the block's bytes as stored that are not: what a next writer builds on would lack them.
    """
    disk = _WatchedStorage()
    files = SessionFiles.create(tmp_path / "session", SESSION, {"name": "book"}, Machine(storage=disk))
    promised = files.log_bytes
    _put(files, 0)

    def refusing(name: str) -> None:
        if name.startswith("blocks-"):
            raise OSError(errno.EIO, "refused")

    disk.syncing = refusing
    with pytest.raises(StorageFailed):
        files.sync()
    disk.syncing = disk.synced.append
    files.close()
    head = (tmp_path / "session" / "log").read_bytes()[:44]
    assert int.from_bytes(head[32:40], "little") == promised
    disk.synced.clear()
    again, records = SessionFiles.open(tmp_path / "session", SESSION, Machine(storage=disk))
    assert [record.kind for record in records] == [1, 4]
    # As it is opened, and once its block is written again.
    assert disk.synced == ["blocks-000001.seg", "blocks-000001.seg", "log"]
    again.close()


def test_opening_reads_the_log_once(tmp_path: Path) -> None:
    """Proves that records that may not be durable, which are written again, are not read again; their blocks are."""
    disk = _WatchedStorage()
    files = SessionFiles.create(tmp_path / "session", SESSION, {"name": "book"})
    _put(files, 0)
    files.sync()
    _put(files, 1)
    files.append(RecordKind.RENAMED, 1, {"name": "other"})
    again, records = SessionFiles.open(tmp_path / "session", SESSION, Machine(storage=disk))
    assert [record.kind for record in records] == [1, 4, 4, 8]
    # Of blocks the head of their segment, 12 bytes, and the one that came after the sync.
    assert disk.read_bytes == again.log_bytes + 12 + len(DATA)
    again.close()
    files.close()
