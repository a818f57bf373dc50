"""The sessions of one node: made, found, listed, named, deleted; who is attached to which.

Invariants:
    A session is in the manifest only once its files are durable.
    An attachment id names one attachment of the node.
Must not know: gRPC, workers' streams.
"""

import contextlib
from pathlib import Path

from memsvc.errors import InvalidRequest, SessionExists, SessionNotFound, StorageFailed
from memsvc.manifest import Manifest
from memsvc.session import opening
from memsvc.session.attachment import Attachment
from memsvc.session.attachments import Attachments
from memsvc.session.folder import SessionFolder, spec_of
from memsvc.session.forking import require_same_fork
from memsvc.session.limits import SessionLimits
from memsvc.session.naming import create_snapshot, drop_snapshot
from memsvc.session.session import Session
from memsvc.session.spec import check_id, check_name, check_spec, first_difference, require_same_fingerprint
from memsvc.storage import MACHINE, Machine
from protos.memsvc.v1 import session_pb2, types_pb2

PAGE_SIZE_MAX = 1000
PAGE_SIZE_DEFAULT = 100

# `list` is one of the methods of `Sessions`, and hides the type from the annotations that follow it.
SessionInfos = list[types_pb2.SessionInfo]
SessionNames = list[str]
OpenNow = list[Session]


class Sessions:
    """All sessions under a data folder.

    Args:
        data: Made if it is not there. One node at a time uses it; who locks it is the server's business.
        manifest: Stays open when this is closed.
        machine: The disk and the clock; the system's if nothing else is said.

    Concurrency: any calls may overlap.
    """

    def __init__(self, data: Path, manifest: Manifest, limits: SessionLimits, machine: Machine = MACHINE) -> None:
        self._attachments = Attachments()
        self._folder = SessionFolder(data, manifest, limits, self._attachments.forget, machine)
        self._manifest, self._limits, self._machine = manifest, limits, machine

    def create(self, name: str, spec: types_pb2.SessionSpec) -> tuple[types_pb2.SessionInfo, bool]:
        """Makes a session; returns it, and False if it was there already.

        Durability: survives power loss.

        Raises:
            InvalidRequest: The name or the spec.
            SessionExists: The name is taken by another spec.
            LimitExceeded: Sessions, or a size in the spec.
        """
        check_name(name)
        check_spec(spec, self._limits)
        with self._folder.alone(name):
            if (entry := self._manifest.get(name)) is None:
                return self._folder.make(name, spec).info(), True
            _require_same_spec(name, spec_of(entry), spec)
            return self._folder.load(name).info(), False

    @property
    def folder(self) -> SessionFolder:
        """The sessions as files: what looks after them works there."""
        return self._folder

    def get(self, name: str) -> Session:
        """The session of that name; its log is read when it is asked for first.

        Raises:
            SessionNotFound, CorruptLog, CorruptBlock, StorageFailed, ManifestUnavailable.
        """
        return self._folder.get(name)

    def list(self, page_size: int, page_token: str) -> tuple[SessionInfos, str]:
        """Sessions in order of name, and the token of the next page, empty on the last.

        Args:
            page_token: A name, to list what comes after it; TENANT//NAME lists what is left of that tenant alone.

        One whose files are damaged is listed, and says so as its `finder_status`.
        """
        if page_size > PAGE_SIZE_MAX:
            raise InvalidRequest(f"expected page_size of at most {PAGE_SIZE_MAX}, got {page_size}")
        count = page_size or PAGE_SIZE_DEFAULT
        tenant, alone, after = page_token.partition("//")
        space = f"{tenant}/" if alone else ""
        listed = self._manifest.list(f"{space}{after}" if alone else page_token, count + 1)
        # The names of one tenant stand side by side.
        entries = [entry for entry in listed if entry.name.startswith(space)]
        infos = [info for entry in entries[:count] if (info := self._folder.describe(entry)) is not None]
        return infos, entries[count - 1].name if len(entries) > count else ""

    def fork(self, parent: str, snapshot: str, name: str) -> tuple[types_pb2.SessionInfo, bool]:
        """Makes a session of what another one has up to a snapshot, or to its newest tail if that is empty.

        Returns:
            The fork, and False if it was there already.

        Durability: survives power loss.

        Raises:
            InvalidRequest: The name.
            SessionNotFound, SnapshotNotFound: The parent or its snapshot.
            SessionExists: The name is taken by anything but a fork of this parent at this snapshot.
            LimitExceeded: Sessions.
        """
        check_name(name)
        with self._folder.using(parent) as session, self._folder.alone(name):
            if self._manifest.get(name) is None:
                return self._folder.make(name, session.spec, session, snapshot).info(), True
            known = self._folder.load(name)
            require_same_fork(known.core, session.core, snapshot)
            return known.info(), False

    def rename(self, name: str, to: str) -> types_pb2.SessionInfo:
        """Gives a session another name. Durable. Raises SessionNotFound, SessionExists, SessionHasWriter."""
        check_name(to)
        if name == to:
            return self.get(name).info()
        first, second = sorted((name, to))
        with self._folder.alone(first), self._folder.alone(second):
            return self._folder.rename(name, to).info()

    def create_snapshot(self, session: str, name: str) -> tuple[session_pb2.Snapshot, bool]:
        """Names a session's newest tail; see `memsvc.session.naming`. Raises SessionNotFound, too."""
        with self._folder.using(session) as own:
            snapshot, created = create_snapshot(own.core, name, self._machine.clock.unix_ms())
            return snapshot.to_wire(), created

    def drop_snapshot(self, session: str, name: str) -> None:
        """Lets go of a snapshot. Durable. Raises SessionNotFound, SnapshotNotFound."""
        with self._folder.using(session) as own:
            drop_snapshot(own.core, name)

    def delete(self, name: str) -> None:
        """Deletes a session and its files, and ends its views.

        Raises:
            SessionNotFound, SessionHasWriter, SessionHasForks, SessionHasSnapshots.
        """
        with self._folder.alone(name):
            session = self._folder.remove(name)
        if session is not None:
            self._attachments.forget(session)

    def open(self, request: session_pb2.OpenSessionRequest) -> session_pb2.OpenSessionResponse:
        """Opens an attachment; the same request again gets the same answer. Whether its worker is there is not checked.

        Raises:
            InvalidRequest: A field, or the attachment id is another session's or worker's.
            SessionNotFound, SnapshotNotFound, FingerprintMismatch, SessionHasWriter, StaleEpoch, LimitExceeded.
        """
        check_id("attachment", request.attachment)
        check_id("worker", request.worker)
        with self._folder.using(request.session) as session:
            return self._open(session, request)

    def _open(self, session: Session, request: session_pb2.OpenSessionRequest) -> session_pb2.OpenSessionResponse:
        require_same_fingerprint(session.spec.fingerprint, request.fingerprint)
        self._attachments.require_free(session, request)
        if request.mode == session_pb2.OPEN_MODE_WRITER and not request.snapshot:
            attachment = opening.open_writer(
                session, request, lambda least: self._manifest.next_epoch(session.name, least)
            )
        elif request.mode != session_pb2.OPEN_MODE_VIEW or request.resume_epoch:
            raise InvalidRequest(
                "expected mode WRITER without snapshot, or VIEW without resume_epoch, "
                f"got mode {request.mode}, snapshot {request.snapshot[:160]!r}, resume_epoch {request.resume_epoch}"
            )
        else:
            attachment = opening.open_view(session, request)
        self._attachments.add(attachment)
        return opening.opened(attachment, resumed=bool(request.resume_epoch))

    def attachment(self, attachment_id: str) -> Attachment:
        """The attachment of that id. Raises AttachmentNotFound."""
        return self._attachments.get(attachment_id)

    def close_attachment(self, attachment_id: str) -> None:
        """Ends an attachment; an unknown one is fine."""
        self._attachments.close(attachment_id)

    def worker_gone(self, worker: str) -> None:
        """Its stream ended: its views end; as a writer it may resume, until another one opens."""
        self._attachments.lose(worker)

    def sync(self) -> None:
        """Waits until everything acknowledged survives power loss; a session that failed does not hold up the others.

        Raises:
            StorageFailed: The disk refused in one of them, which takes no more writes now; raised once a session.
        """
        failures: list[StorageFailed] = []
        for session in self._folder.loaded():
            if session.core.failure or not session.core.files.unsynced:
                continue
            # One that ended meanwhile was synced as it was closed, or is gone.
            with contextlib.suppress(SessionNotFound):
                try:
                    session.core.sync()
                except StorageFailed as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    @property
    def open_now(self) -> OpenNow:
        """Those that are in memory."""
        return self._folder.loaded()

    @property
    def failed(self) -> SessionNames:
        """Names of open sessions that take no more writes because the disk refused one, or an fsync."""
        cores = [session.core for session in self._folder.loaded()]
        return [core.entry.name for core in cores if core.files.failure and not core.ended]

    def close(self) -> None:
        """Syncs and closes all sessions; no call may follow. Raises StorageFailed after all are closed."""
        self._attachments.clear()
        self._folder.close()


def _require_same_spec(name: str, session: types_pb2.SessionSpec, caller: types_pb2.SessionSpec) -> None:
    if (difference := first_difference(session.fingerprint, caller.fingerprint)) is not None:
        field, reason = f"fingerprint.{difference[0]}", "FINGERPRINT_MISMATCH"
    elif (difference := first_difference(session, caller)) is not None:
        field, reason = difference[0], None
    else:
        return
    raise SessionExists(
        f"expected {field} {difference[1]}, as session {name!r} was made with, got {difference[2]}", reason=reason
    )
