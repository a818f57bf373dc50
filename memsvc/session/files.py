"""The files of one session: its log and its blocks, kept in step.

    FOLDER/log, FOLDER/blocks-000001.seg ..., FOLDER/shards/

Invariant: a block's record is never durable before the block's bytes are.

Concurrency: appends one at a time, under the session's lock; `sync` may overlap anything; what stores a block and then
appends its record holds `put_lock` throughout.
"""

import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

from memsvc.blocks import BlockRef, BlockStore
from memsvc.disk import disk_call
from memsvc.log import LogRecord, SessionLog
from memsvc.session.records import Body, RecordKind


class SessionFiles:
    """Log and blocks in one folder.

    Attributes:
        put_lock: Held from storing a block until its record is appended. Taken before the session's lock.
    """

    def __init__(self, folder: Path, session_id: str, log: SessionLog, blocks: BlockStore) -> None:
        self.put_lock = threading.Lock()
        self._folder = folder
        self._session_id = session_id
        self._log = log
        self._blocks = blocks

    @classmethod
    def create(cls, folder: Path, session_id: str, first: Body) -> "SessionFiles":
        """Makes the files, the log with its first record, a SESSION; a folder that it cannot make whole is gone again.

        Durability: all of it survives power loss.
        """
        with ExitStack() as undo:
            if not folder.exists():
                undo.callback(shutil.rmtree, folder, ignore_errors=True)
            log = SessionLog.create(folder, session_id)
            undo.callback(log.close)
            log.append(RecordKind.SESSION, 0, first)
            log.sync()
            files = cls(folder, session_id, log, BlockStore(folder))
            files._make_shards()
            undo.pop_all()
        return files

    @classmethod
    def open(cls, folder: Path, session_id: str) -> tuple["SessionFiles", list[LogRecord]]:
        """Opens the files, and reads the log. Raises CorruptLog, CorruptBlock, StorageFailed."""
        with ExitStack() as undo:
            # Opening makes durable what is there: first the bytes, then the records that name them. Without a folder
            # there are none, and the log says so.
            blocks = BlockStore(folder) if folder.is_dir() else None
            if blocks is not None:
                undo.callback(blocks.close)
            log, records = SessionLog.open(folder, session_id)
            undo.callback(log.close)
            files = cls(folder, session_id, log, blocks or BlockStore(folder))
            files._make_shards()
            undo.pop_all()
        return files, records

    @property
    def shards(self) -> Path:
        """Folder for saved shards."""
        return self._folder / "shards"

    @property
    def stored_bytes(self) -> int:
        """Bytes of log and blocks."""
        return self._log.size_bytes + self._blocks.stored_bytes

    @property
    def unsynced(self) -> bool:
        """Whether a power loss now could lose anything."""
        return self._blocks.unsynced or self._log.unsynced

    def append(self, kind: RecordKind, epoch: int, body: Body) -> None:
        """Adds a record to the log. Durability: survives kill -9. Raises StorageFailed."""
        self._log.append(kind, epoch, body)

    def put(self, block: int, partial_tokens: int, data: bytes | memoryview, crc32c: int) -> BlockRef:
        """Stores a block's bytes, which mean nothing until they are in the log. Raises CorruptBlock, StorageFailed."""
        return self._blocks.put(block, partial_tokens, data, crc32c)

    def read(self, ref: BlockRef) -> bytes:
        """A block's bytes, checked. Raises CorruptBlock, StorageFailed."""
        return self._blocks.read(ref)

    def sync(self) -> None:
        """Waits until all that was appended and put survives power loss. Raises StorageFailed."""
        # Most bytes go to the disk here, while puts go on.
        self._blocks.sync()
        with self.put_lock:
            self._blocks.sync()
            self._log.sync()

    def reread(self) -> list[LogRecord]:
        """All records. Raises CorruptLog, StorageFailed.

        Concurrency: `put_lock` is held, and nothing is appended meanwhile.
        """
        self._blocks.sync()
        log, records = SessionLog.open(self._folder, self._session_id)
        former, self._log = self._log, log
        former.close()
        return records

    def close(self) -> None:
        """Syncs and closes everything. Raises StorageFailed; everything is closed all the same."""
        with self.put_lock:
            try:
                self._blocks.close()
            finally:
                self._log.close()

    def _make_shards(self) -> None:
        with disk_call("make a folder", self.shards):
            self.shards.mkdir(exist_ok=True)
