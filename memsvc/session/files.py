"""The files of one session: its log and its blocks, kept in step.

    FOLDER/log, FOLDER/blocks-000001.seg ..., FOLDER/shards/

Invariants:
    What was made durable is whole: a block's record counts only with the block's bytes. The disk may keep the one and
    lose the other of what nobody was promised; then the record goes, and so does all that came after it.

Concurrency: appends one at a time, under the session's lock; `sync` may overlap anything; what stores a block and then
appends its record holds `put_lock` throughout.
"""

import contextlib
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from memsvc.blocks import BlockRef, BlockStore, share_segments
from memsvc.commits import GroupCommit
from memsvc.disk import disk_call, make_folder, sync_folder
from memsvc.log import SessionLog
from memsvc.log_format import LogRecord
from memsvc.session.records import Body, RecordKind, unpack_block
from memsvc.storage import MACHINE, Machine, Storage

_SHARDS = "shards"


@dataclass(frozen=True)
class Share:
    """What a fork has of its parent.

    Args:
        folder: The parent's.
        records: That the fork's log begins with, past the first; their blocks are durable.
    """

    folder: Path
    records: Sequence[LogRecord]


class SessionFiles:
    """Log and blocks in one folder.

    Attributes:
        put_lock: Held from storing a block until its record is appended. Taken before the session's lock.
        damage: What is known to be damaged of blocks, in words; empty while nothing is.
    """

    def __init__(
        self, folder: Path, session_id: str, log: SessionLog, blocks: BlockStore, machine: Machine = MACHINE
    ) -> None:
        self.put_lock = threading.Lock()
        self.damage = ""
        # Held while something is made durable, and while the log is closed or opened anew. Taken after `put_lock`.
        self._syncing = threading.Lock()
        self._machine = machine
        self._folder = folder
        self._session_id = session_id
        self._log = log
        self._blocks = blocks
        self._commits = GroupCommit(self.sync, lambda: self.unsynced_bytes, machine.clock)

    @classmethod
    def create(
        cls, folder: Path, session_id: str, first: Body, machine: Machine = MACHINE, share: Share | None = None
    ) -> "SessionFiles":
        """Makes the files, the log with its first record, a SESSION.

        Args:
            share: What a fork begins with. Its records are copied, in epoch 0; blocks and saved shards are not.

        Durability: all of it survives power loss.
        """
        with ExitStack() as undo:
            log = SessionLog.create(folder, session_id, machine.storage)
            undo.callback(log.close)
            log.append(RecordKind.SESSION, 0, first)
            make_folder(folder / _SHARDS, machine.storage)
            if share is not None:
                _take_share(share, folder, log, machine.storage)
            log.sync()
            files = cls(folder, session_id, log, BlockStore(folder, storage=machine.storage), machine)
            undo.pop_all()
        return files

    @classmethod
    def open(cls, folder: Path, session_id: str, machine: Machine = MACHINE) -> tuple["SessionFiles", list[LogRecord]]:
        """Opens the files, and reads the log. Raises CorruptLog, CorruptBlock, FormatVersion, StorageFailed."""
        with ExitStack() as undo:
            # Opening makes durable what is there: first the bytes, then the records that name them. Without a folder
            # there are none, and the log says so.
            blocks = BlockStore(folder, storage=machine.storage) if folder.is_dir() else None
            if blocks is not None:
                undo.callback(blocks.close)
            holding = None if blocks is None else partial(_holding, blocks)
            log, records = SessionLog.open(folder, session_id, machine.storage, holding)
            undo.callback(log.close)
            make_folder(folder / _SHARDS, machine.storage)
            files = cls(folder, session_id, log, blocks or BlockStore(folder, storage=machine.storage), machine)
            undo.pop_all()
        return files, records

    @property
    def shards(self) -> Path:
        """Folder for saved shards."""
        return self._folder / _SHARDS

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self._folder

    @property
    def sequence(self) -> int:
        """Of the log's newest record."""
        return self._log.sequence

    @property
    def log_bytes(self) -> int:
        """Length of the log."""
        return self._log.size_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of log and blocks."""
        return self._log.size_bytes + self._blocks.stored_bytes

    @property
    def unsynced(self) -> bool:
        """Whether a power loss now could lose anything."""
        return self._blocks.unsynced or self._log.unsynced

    @property
    def unsynced_bytes(self) -> int:
        """Bytes that a power loss now could lose."""
        return self._blocks.unsynced_bytes + self._log.unsynced_bytes

    @property
    def failure(self) -> str:
        """Why the disk is not asked for anything more but reads; empty while all is well."""
        return self._log.failure or self._blocks.failure

    @property
    def commits(self) -> int:
        """Rounds of `commit` so far."""
        return self._commits.rounds

    @property
    def now_unix_ms(self) -> int:
        """The time that records are to bear."""
        return self._machine.clock.unix_ms()

    def append(self, kind: RecordKind, epoch: int, body: Body) -> None:
        """Adds a record to the log. Durability: survives kill -9. Raises StorageFailed."""
        self._log.append(kind, epoch, body)

    def put(self, block: int, partial_tokens: int, data: bytes | memoryview, crc32c: int) -> BlockRef:
        """Stores a block's bytes, which mean nothing until they are in the log. Raises CorruptBlock, StorageFailed."""
        return self._blocks.put(block, partial_tokens, data, crc32c)

    def read(self, ref: BlockRef) -> bytes:
        """A block's bytes, checked. Raises CorruptBlock, StorageFailed."""
        return self._blocks.read(ref)

    def commit(self) -> None:
        """As `sync`, in a round that callers share; none follows one that failed."""
        self._commits.wait()

    def sync(self) -> None:
        """Waits until all that was appended and put survives power loss. Raises StorageFailed."""
        with self._syncing:
            # Puts go on: what is appended from here on may name blocks that are not durable yet, and is promised by the
            # next sync only.
            promised_bytes = self._log.size_bytes
            self._blocks.sync()
            self._log.sync(promised_bytes)

    def reread(self) -> list[LogRecord]:
        """All records. Raises CorruptLog, StorageFailed.

        Concurrency: `put_lock` is held, and nothing is appended meanwhile.
        """
        with self._syncing:
            self._blocks.sync()
            log, records = SessionLog.open(self._folder, self._session_id, self._machine.storage)
            former, self._log = self._log, log
            former.close()
        return records

    def close(self) -> None:
        """Syncs and closes everything. Raises StorageFailed; everything is closed all the same."""
        with self.put_lock, self._syncing:
            failed, backed = self._blocks.failure, False
            try:
                self._blocks.close()
                backed = not failed
            finally:
                # Records of blocks that may not be durable stay in doubt: opening writes those blocks again.
                self._log.close(backed=backed)


def _take_share(share: Share, folder: Path, log: SessionLog, storage: Storage) -> None:
    """Names the parent's files in the fork's folder, then copies the records that name what is in them."""
    refs = [unpack_block(record.body) for record in share.records if record.kind == RecordKind.BLOCK]
    share_segments(share.folder, folder, {ref.segment for ref in refs}, storage)
    _share_shards(share.folder / _SHARDS, folder / _SHARDS, storage)
    for record in share.records:
        log.append(record.kind, 0, record.body)


def _share_shards(source: Path, folder: Path, storage: Storage) -> None:
    """Names the parent's saved shards, in their folder of each stream; they never change, and say what they are of."""
    with disk_call(f"share {source}", folder):
        for stream in storage.names(source):
            storage.make_folder(folder / stream)
            # Others are being written.
            for name in (name for name in storage.names(source / stream) if name.endswith(".bin")):
                # One that was replaced meanwhile is missed: it is made anew.
                with contextlib.suppress(FileNotFoundError):
                    storage.link(source / stream / name, folder / stream / name)
    sync_folder(folder, storage)


def _holding(blocks: BlockStore, doubtful: Sequence[LogRecord]) -> int:
    """How many of these records come before the first whose block is not there; the blocks of those are durable then.

    Raises:
        CorruptLog: A record is none.
        StorageFailed: The disk refused.
    """
    held = 0
    for record in doubtful:
        if record.kind == RecordKind.BLOCK and not blocks.restore(unpack_block(record.body)):
            break
        held += 1
    blocks.sync()
    return held
