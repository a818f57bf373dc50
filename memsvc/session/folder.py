"""The sessions of a data folder: which are open, and who makes, opens or deletes one.

    DATA/sessions/{session id, hex}/{log, blocks-000001.seg ..., shards/}      and marks: see `memsvc.session.marks`

Invariants:
    A session's folder is open once: one call at a time makes, opens, renames or deletes a name.
    A session is in the manifest only once its files are durable. It leaves it only once they are marked as deleted, and
    they go only then.
    What another session shares, or has a name of its own within the session, is not deleted.
Must not know: what a step, a view or a recall is; of attachments only the writer that a log or a deletion names.
"""

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from google.protobuf.message import DecodeError

from memsvc.disk import make_folder, sync_folder
from memsvc.errors import (
    DataLoss,
    LimitExceeded,
    MemsvcError,
    SessionHasSnapshots,
    SessionHasWriter,
    SessionNotFound,
    StorageFailed,
)
from memsvc.manifest import Manifest, SessionEntry
from memsvc.session.attachment import Attachment
from memsvc.session.core import SessionCore
from memsvc.session.files import SessionFiles
from memsvc.session.limits import SessionLimits
from memsvc.session.lineage import named, snapshot_names
from memsvc.session.making import make_files
from memsvc.session.marks import FolderMarks
from memsvc.session.naming import set_name
from memsvc.session.open_sessions import OpenSessions
from memsvc.session.recovery import Recovered, recover
from memsvc.session.session import Session
from memsvc.storage import MACHINE, Machine
from protos.memsvc.v1 import types_pb2

_ID = re.compile(r"[0-9a-f]{32}")


class SessionFolder:
    """Sessions by name, as files and as what is open of them.

    Args:
        data: Made if it is not there.
        closed: Told each session that was closed because nobody used it.

    Concurrency: any calls may overlap; `make`, `load`, `rename` and `remove` are called inside `alone`.

    Raises:
        StorageFailed, ManifestUnavailable: The folder does not open, or what a crash left there does not go.
    """

    def __init__(
        self,
        data: Path,
        manifest: Manifest,
        limits: SessionLimits,
        closed: Callable[[Session], None],
        machine: Machine = MACHINE,
    ) -> None:
        self._machine = machine
        sessions = data / "sessions"
        self._marks = FolderMarks(sessions, manifest, machine.storage)
        self._manifest = manifest
        self._limits = limits
        self._open = OpenSessions(limits.sessions_open_max, closed)
        make_folder(sessions, machine.storage)
        sync_folder(data, machine.storage)
        self._marks.collect()

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
        entry = _entry_of(name, self._manifest)
        spec = spec_of(entry)
        files, records = SessionFiles.open(self._marks.folder(entry.id), entry.id, self._machine)
        try:
            recovered = recover(records, spec, files.shards)
        except BaseException:
            files.close()
            raise
        session = self._serve(entry, files, recovered)
        if recovered.lineage.name != entry.name:
            # A crash cut off a renaming.
            set_name(session.core, entry.name)
        return session

    def make(
        self, name: str, spec: types_pb2.SessionSpec, parent: Session | None = None, snapshot: str = ""
    ) -> Session:
        """A new session of a free name; of a parent that is kept, a fork at its newest tail, or at a snapshot.

        Durability: survives power loss.

        Raises:
            LimitExceeded, SessionNotFound, SnapshotNotFound, DataLoss, StorageFailed, ManifestUnavailable.
        """
        most = self._limits.sessions_max
        if len(self._manifest.list("", most)) >= most:
            raise LimitExceeded(f"expected at most {most} sessions, got one more, {name!r}")
        packed = spec.SerializeToString(deterministic=True)
        entry = SessionEntry(name, uuid.uuid4().hex, packed, self._machine.clock.unix_ms(), 0)
        origin = None if parent is None else (parent.core, snapshot)
        files, recovered = make_files(entry, spec, origin, self._marks, self._machine)
        try:
            self._manifest.create(entry)
            self._marks.finish(entry.id)
        except BaseException:
            # Left on the disk: whether the manifest took it is not known.
            files.close()
            raise
        return self._serve(entry, files, recovered)

    def rename(self, name: str, to: str) -> Session:
        """Gives a session another name, inside `alone` of both.

        Raises:
            SessionNotFound, SessionExists, SessionHasWriter, DataLoss, StorageFailed, ManifestUnavailable.
        """
        session = self.load(name)
        core = session.core
        with core.opening:
            with core.lock:
                core.require_writable()
                core.require_held(core.epoch)
                _require_no_writer(core)
            self._manifest.rename(name, to)
            self._open.rename(name, to)
            set_name(core, to)
        return session

    def remove(self, name: str) -> Session | None:
        """Deletes a session and its files; returns what was open of it.

        Raises:
            SessionNotFound, SessionHasWriter, SessionHasForks, SessionHasSnapshots.
            DataLoss: The manifest's entry is damaged.
            StorageFailed, ManifestUnavailable: It is being deleted: another call, or the next start, goes on with it.
        """
        entry = _entry_of(name, self._manifest)
        _require_id(entry)
        marks, session = self._marks, self._open.get(name)
        logged = _logged_snapshots(marks.folder(entry.id), entry.id, self._machine) if session is None else []
        # Whoever opens a writer or names a cut now comes before, or finds no session.
        with session.core.opening if session is not None else contextlib.nullcontext(), marks.forking:
            marks.require_no_forks(entry)
            if session is not None:
                _end_if_unused(session.core)
            elif logged:
                raise _has_snapshots(name, logged)
        self._open.drop(name)
        if session is not None:
            session.core.end()
        marks.mark_deleted(entry.id)
        self._manifest.delete(name)
        self._open.drop(name)
        marks.remove_deleted(entry.id)
        return session

    def rest(self, name: str) -> bool:
        """Closes a session, inside `alone`; False while somebody uses it. Raises StorageFailed."""
        return self._open.rest(name)

    def loaded(self) -> list[Session]:
        """Those that are open."""
        return self._open.all()

    def describe(self, entry: SessionEntry) -> types_pb2.SessionInfo | None:
        """A session as it is now; None if it was deleted since. One that cannot be read says why in `finder_status`."""
        if (known := self._open.info(entry.name)) is not None:
            return known
        spec = types_pb2.SessionSpec()
        try:
            return self.get(entry.name).info()
        except SessionNotFound:
            return None
        except MemsvcError as error:
            with contextlib.suppress(DataLoss):
                spec.CopyFrom(spec_of(entry))
            return types_pb2.SessionInfo(
                name=entry.name,
                spec=spec,
                epoch=entry.epoch,
                created_unix_ms=entry.created_unix_ms,
                finder_status=f"unreadable: {error}",
                id=entry.id,
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
        state, lineage = recovered.state, recovered.lineage
        core = SessionCore(entry, self._limits, files, state, lineage, self._manifest.require_held)
        session = Session(core)
        core.epoch = max(entry.epoch, recovered.epoch)
        if (writer := recovered.writer) is not None:
            core.writer = Attachment(writer.attachment, writer.worker, session, recovered.epoch)
            core.writer.applied_seq = recovered.applied_seq
            core.writer.lost = True
        self._open.add(entry.name, session)
        return session


def _entry_of(name: str, manifest: Manifest) -> SessionEntry:
    if (entry := manifest.get(name)) is None:
        raise SessionNotFound(f"expected the name of a session, got {name[:160]!r}")
    return entry


def spec_of(entry: SessionEntry) -> types_pb2.SessionSpec:
    """What a session was made with. Raises DataLoss for an entry that no session can have."""
    try:
        spec = types_pb2.SessionSpec.FromString(entry.spec)
    except DecodeError as error:
        raise DataLoss(f"expected a spec of session {entry.name!r} in the manifest, got {error}") from error
    _require_id(entry)
    return spec


def _require_id(entry: SessionEntry) -> None:
    """Raises DataLoss for what is no folder's name."""
    if not _ID.fullmatch(entry.id):
        raise DataLoss(f"expected an id of session {entry.name!r} in the manifest, got {entry.id!r}")


def _logged_snapshots(folder: Path, session_id: str, machine: Machine) -> list[str]:
    """Names of the snapshots of a session that is not open; none of one that cannot be read: they are lost with it."""
    try:
        files, records = SessionFiles.open(folder, session_id, machine)
    except DataLoss:
        return []
    files.close()
    return snapshot_names(records)


def _end_if_unused(core: SessionCore) -> None:
    """Serves nothing any more, unless there is a writer or a snapshot. Raises SessionHasWriter, SessionHasSnapshots."""
    with core.lock:
        _require_no_writer(core)
        if len(core.lineage):
            raise _has_snapshots(core.entry.name, [own.name for own in core.lineage.snapshots()])
        # Before the lock is let go: nobody may open a writer, or name a cut, any more.
        core.ended = True


def _require_no_writer(core: SessionCore) -> None:
    if core.writer is not None and not core.writer.lost:
        raise SessionHasWriter(
            f"expected session {core.entry.name!r} without a writer, got attachment {core.writer.id} "
            f"of worker {core.writer.worker}"
        )


def _has_snapshots(name: str, snapshots: list[str]) -> SessionHasSnapshots:
    return SessionHasSnapshots(f"expected session {name!r} without snapshots, got {named(snapshots)}")
