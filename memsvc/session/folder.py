"""The sessions of a data folder: which are open, and who makes, opens or deletes one.

    DATA/sessions/{session id, hex}/{log, blocks-000001.seg ..., shards/}

Invariants:
    A session's folder is open once: one call at a time makes, opens or deletes a name.
    A session is in the manifest only once its files are durable, and its files go only once it is not.
Must not know: what a step, a view or a recall is; of attachments only the writer that a log or a deletion names.
"""

import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from memsvc.disk import disk_call, sync_folder
from memsvc.errors import (
    LimitExceeded,
    MemsvcError,
    SessionHasWriter,
    SessionNotFound,
    StorageFailed,
)
from memsvc.manifest import Manifest, SessionEntry
from memsvc.session.attachment import Attachment
from memsvc.session.core import SessionCore
from memsvc.session.files import SessionFiles
from memsvc.session.limits import SessionLimits
from memsvc.session.open_sessions import OpenSessions
from memsvc.session.records import pack_session
from memsvc.session.recovery import Recovered, recover
from memsvc.session.session import Session
from memsvc.session.state import SessionState
from protos.memsvc.v1 import types_pb2


class SessionFolder:
    """Sessions by name, as files and as what is open of them.

    Args:
        data: Made if it is not there.
        closed: Told each session that was closed because nobody used it.

    Concurrency: any calls may overlap; `make`, `load` and `remove` are called inside `alone`.
    """

    def __init__(
        self, data: Path, manifest: Manifest, limits: SessionLimits, closed: Callable[[Session], None]
    ) -> None:
        self._folder = data / "sessions"
        self._manifest = manifest
        self._limits = limits
        self._open = OpenSessions(limits.sessions_open_max, closed)
        with disk_call("make a folder", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        sync_folder(data)

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Waits until nobody else makes, opens or deletes this name, and keeps others waiting."""
        return self._open.alone(name)

    def get(self, name: str) -> Session:
        """The session of that name, opened if it is not; for reads, which it serves even if it is closed meanwhile.

        Raises:
            SessionNotFound, DataLoss, StorageFailed.
        """
        with self.using(name) as session:
            return session

    @contextmanager
    def using(self, name: str) -> Iterator[Session]:
        """The session of that name, as `get`; not closed for want of use before the block is left."""
        with self._open.kept(name):
            yield self._get(name)

    def load(self, name: str) -> Session:
        """As `get`, inside `alone`."""
        if (session := self._open.get(name)) is not None:
            return session
        if (entry := self._manifest.get(name)) is None:
            raise SessionNotFound(f"expected the name of a session, got {name[:160]!r}")
        files, records = SessionFiles.open(self._folder / entry.id, entry.id)
        try:
            recovered = recover(records, types_pb2.SessionSpec.FromString(entry.spec), files.shards)
        except BaseException:
            files.close()
            raise
        return self._serve(entry, files, recovered)

    def make(self, name: str, spec: types_pb2.SessionSpec) -> Session:
        """A new session of a free name. Durability: survives power loss. Raises LimitExceeded, StorageFailed."""
        most = self._limits.sessions_max
        if len(self._manifest.list("", most)) >= most:
            raise LimitExceeded(f"expected at most {most} sessions, got one more, {name!r}")
        packed = spec.SerializeToString(deterministic=True)
        entry = SessionEntry(name, uuid.uuid4().hex, packed, time.time_ns() // 1_000_000, 0)
        files = SessionFiles.create(self._folder / entry.id, entry.id, pack_session(name, spec))
        try:
            self._manifest.create(entry)
        except BaseException:
            # Left on the disk: whether the manifest took it is not known.
            files.close()
            raise
        return self._serve(entry, files, Recovered(SessionState(spec, files.shards), None, 0, 0))

    def remove(self, name: str) -> Session | None:
        """Deletes a session and its files; returns what was open of it. Raises SessionNotFound, SessionHasWriter."""
        entry = self._manifest.get(name)
        if entry is None:
            raise SessionNotFound(f"expected the name of a session, got {name[:160]!r}")
        if (session := self._open.get(name)) is not None:
            core = session.core
            with core.lock:
                if core.writer is not None and not core.writer.lost:
                    raise SessionHasWriter(
                        f"expected session {name!r} without a writer, got attachment {core.writer.id} "
                        f"of worker {core.writer.worker}"
                    )
                # Before the lock is let go: nobody may open a writer any more.
                core.ended = True
            self._open.drop(name)
            core.end()
        self._manifest.delete(name)
        self._open.drop(name)
        with disk_call("delete a folder", folder := self._folder / entry.id):
            shutil.rmtree(folder)
        sync_folder(self._folder)
        return session

    def loaded(self) -> list[Session]:
        """Those that are open."""
        return self._open.all()

    def describe(self, entry: SessionEntry) -> types_pb2.SessionInfo | None:
        """A session as it is now; None if it was deleted since. One that cannot be read says why in `finder_status`."""
        if (known := self._open.info(entry.name)) is not None:
            return known
        try:
            return self.get(entry.name).info()
        except SessionNotFound:
            return None
        except MemsvcError as error:
            return types_pb2.SessionInfo(
                name=entry.name,
                spec=types_pb2.SessionSpec.FromString(entry.spec),
                epoch=entry.epoch,
                created_unix_ms=entry.created_unix_ms,
                finder_status=f"unreadable: {error}",
            )

    def close(self) -> None:
        """Syncs and closes all; no call may follow. Raises StorageFailed after all are closed."""
        failures: list[StorageFailed] = []
        for session in self._open.clear():
            try:
                session.core.end()
            except StorageFailed as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _get(self, name: str) -> Session:
        if (session := self._open.find(name)) is not None:
            return session
        with self.alone(name):
            return self.load(name)

    def _serve(self, entry: SessionEntry, files: SessionFiles, recovered: Recovered) -> Session:
        """Takes a session into those that are open, with its writer as it was left: lost."""
        core = SessionCore(entry, self._limits, files, recovered.state)
        session = Session(core)
        core.epoch = max(entry.epoch, recovered.epoch)
        if (writer := recovered.writer) is not None:
            core.writer = Attachment(writer.attachment, writer.worker, session, recovered.epoch)
            core.writer.applied_seq = recovered.applied_seq
            core.writer.lost = True
        self._open.add(entry.name, session)
        return session
