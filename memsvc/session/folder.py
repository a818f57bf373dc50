"""The sessions of a data folder: which are open, and who makes, opens or deletes one.

    DATA/sessions/{session id, hex}/{log, blocks-000001.seg ..., shards/}

Invariants:
    A session's folder is open once: one call at a time makes, opens or deletes a name.
    A session is in the manifest only once its files are durable, and its files go only once it is not.
    Sessions that nobody uses are closed, the longest unused first, while more are open than the limit.
Must not know: attachments.
"""

import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        self._closed = closed
        # Guards what follows, and is notified when a name is no longer busy.
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        # The newest used last.
        self._open: dict[str, Session] = {}
        # By name, how many are inside `using`.
        self._users: Counter[str] = Counter()
        # Of sessions that were closed because nobody used them.
        self._infos: dict[str, types_pb2.SessionInfo] = {}
        with disk_call("make a folder", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        sync_folder(data)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Waits until nobody else makes, opens or deletes this name, and keeps others waiting."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._busy)
            self._busy.add(name)
        try:
            yield
        finally:
            self._not_busy(name)
            self._close_idle()

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
        with self._changed:
            self._users[name] += 1
        try:
            yield self._get(name)
        finally:
            with self._changed:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name]

    def load(self, name: str) -> Session:
        """As `get`, inside `alone`."""
        if (session := self._opened(name)) is not None:
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
        if (session := self._opened(name)) is not None:
            core = session.core
            with core.lock:
                if core.writer is not None and not core.writer.lost:
                    raise SessionHasWriter(
                        f"expected session {name!r} without a writer, got attachment {core.writer.id} "
                        f"of worker {core.writer.worker}"
                    )
                # Before the lock is let go: nobody may open a writer any more.
                core.ended = True
            with self._changed:
                del self._open[name]
            core.end()
        with self._changed:
            self._infos.pop(name, None)
        self._manifest.delete(name)
        with disk_call("delete a folder", folder := self._folder / entry.id):
            shutil.rmtree(folder)
        sync_folder(self._folder)
        return session

    def loaded(self) -> list[Session]:
        """Those that are open."""
        with self._changed:
            return [*self._open.values()]

    def describe(self, entry: SessionEntry) -> types_pb2.SessionInfo | None:
        """A session as it is now; None if it was deleted since. One that cannot be read says why in `finder_status`."""
        with self._changed:
            if entry.name not in self._open and (known := self._infos.get(entry.name)) is not None:
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
        with self._changed:
            sessions = [*self._open.values()]
            self._open.clear()
        failures: list[StorageFailed] = []
        for session in sessions:
            try:
                session.core.end()
            except StorageFailed as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _get(self, name: str) -> Session:
        with self._changed:
            if name not in self._busy and (session := self._open.pop(name, None)) is not None:
                self._open[name] = session
                return session
        with self.alone(name):
            return self.load(name)

    def _opened(self, name: str) -> Session | None:
        with self._changed:
            return self._open.get(name)

    def _not_busy(self, name: str) -> None:
        with self._changed:
            self._busy.remove(name)
            self._changed.notify_all()

    def _close_idle(self) -> None:
        """Closes those that nobody uses, as many as are too many."""
        while (name := self._next_idle()) is not None:
            try:
                self._close(name)
            finally:
                self._not_busy(name)

    def _next_idle(self) -> str | None:
        """The one to close next, made busy."""
        with self._changed:
            if len(self._open) <= self._limits.sessions_open_max:
                return None
            for name, session in self._open.items():
                if name not in self._busy and not self._users[name] and session.core.idle:
                    self._busy.add(name)
                    return name
        return None

    def _close(self, name: str) -> None:
        with self._changed:
            session = self._open[name]
        try:
            session.core.end_if_idle()
        finally:
            if session.core.ended:
                self._closed(session)
                info = session.info()
                with self._changed:
                    del self._open[name]
                    self._infos[name] = info

    def _serve(self, entry: SessionEntry, files: SessionFiles, recovered: Recovered) -> Session:
        """Takes a session into those that are open, with its writer as it was left: lost."""
        core = SessionCore(entry, self._limits, files, recovered.state)
        session = Session(core)
        core.epoch = max(entry.epoch, recovered.epoch)
        if (writer := recovered.writer) is not None:
            core.writer = Attachment(writer.attachment, writer.worker, session, recovered.epoch)
            core.writer.applied_seq = recovered.applied_seq
            core.writer.lost = True
        with self._changed:
            self._open[entry.name] = session
            self._infos.pop(entry.name, None)
        return session
