"""The sessions of one node: made, found, listed, deleted; who is attached to which.

Invariants:
    A session is in the manifest only once its files are durable, and its files go only once it is not.
    An attachment id names one attachment of the node.
Must not know: gRPC, workers' streams.
"""

import threading
from pathlib import Path

from memsvc.errors import AttachmentNotFound, InvalidRequest, SessionExists, StorageFailed
from memsvc.manifest import Manifest
from memsvc.session import opening
from memsvc.session.attachment import Attachment
from memsvc.session.folder import SessionFolder
from memsvc.session.limits import SessionLimits
from memsvc.session.session import Session
from memsvc.session.spec import check_id, check_name, check_spec, first_difference, require_same_fingerprint
from protos.memsvc.v1 import session_pb2, types_pb2

PAGE_SIZE_MAX = 1000
PAGE_SIZE_DEFAULT = 100

# `list` is one of the methods of `Sessions`, and hides the type from the annotations that follow it.
SessionInfos = list[types_pb2.SessionInfo]


class Sessions:
    """All sessions under a data folder.

    Args:
        data: Made if it is not there. One node at a time uses it; who locks it is the server's business.
        manifest: Stays open when this is closed.

    Concurrency: any calls may overlap.
    """

    def __init__(self, data: Path, manifest: Manifest, limits: SessionLimits) -> None:
        self._folder = SessionFolder(data, manifest, limits, self._forget)
        self._manifest = manifest
        self._limits = limits
        self._lock = threading.Lock()
        self._attachments: dict[str, Attachment] = {}

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
            _require_same_spec(name, types_pb2.SessionSpec.FromString(entry.spec), spec)
            return self._folder.load(name).info(), False

    def get(self, name: str) -> Session:
        """The session of that name; its log is read when it is asked for first.

        Raises:
            SessionNotFound, CorruptLog, CorruptBlock, StorageFailed, ManifestUnavailable.
        """
        return self._folder.get(name)

    def list(self, page_size: int, page_token: str) -> tuple[SessionInfos, str]:
        """Sessions in order of name, and the token of the next page, empty on the last.

        One whose files are damaged is listed, and says so as its `finder_status`.
        """
        if page_size > PAGE_SIZE_MAX:
            raise InvalidRequest(f"expected page_size of at most {PAGE_SIZE_MAX}, got {page_size}")
        count = page_size or PAGE_SIZE_DEFAULT
        entries = self._manifest.list(page_token, count + 1)
        infos = [info for entry in entries[:count] if (info := self._folder.describe(entry)) is not None]
        return infos, entries[count - 1].name if len(entries) > count else ""

    def delete(self, name: str) -> None:
        """Deletes a session and its files, and ends its views. Raises SessionNotFound, SessionHasWriter."""
        with self._folder.alone(name):
            session = self._folder.remove(name)
        if session is not None:
            self._forget(session)

    def open(self, request: session_pb2.OpenSessionRequest) -> session_pb2.OpenSessionResponse:
        """Opens an attachment; the same request again gets the same answer. Whether its worker is there is not checked.

        Raises:
            InvalidRequest: A field, or the attachment id is another session's or worker's.
            SessionNotFound, FingerprintMismatch, SessionHasWriter, StaleEpoch, LimitExceeded.
        """
        check_id("attachment", request.attachment)
        check_id("worker", request.worker)
        with self._folder.using(request.session) as session:
            return self._open(session, request)

    def _open(self, session: Session, request: session_pb2.OpenSessionRequest) -> session_pb2.OpenSessionResponse:
        require_same_fingerprint(session.spec.fingerprint, request.fingerprint)
        with self._lock:
            known = self._attachments.get(request.attachment)
        if known is not None:
            _require_same_attachment(known, session, request)
        if request.mode == session_pb2.OPEN_MODE_WRITER:
            attachment = opening.open_writer(
                session, request, lambda least: self._manifest.next_epoch(session.name, least)
            )
        elif request.mode != session_pb2.OPEN_MODE_VIEW or request.resume_epoch:
            expected = "mode WRITER, or VIEW without resume_epoch"
            raise InvalidRequest(f"expected {expected}, got mode {request.mode}, resume_epoch {request.resume_epoch}")
        else:
            attachment = opening.open_view(session, request)
        self._register(attachment)
        return opening.opened(attachment, resumed=bool(request.resume_epoch))

    def _forget(self, session: Session) -> None:
        """The session is closed or deleted: its attachments, which are lost if it is closed, are not known any more."""
        with self._lock:
            for attachment in [own for own in self._attachments.values() if own.session is session]:
                del self._attachments[attachment.id]

    def _register(self, attachment: Attachment) -> None:
        with self._lock:
            self._attachments[attachment.id] = attachment
            own = [other for other in self._attachments.values() if other.session is attachment.session]
            writers = sorted((other for other in own if not other.is_view), key=lambda other: other.epoch)
            # The one before the newest is told that its epoch is stale; older ones are not known any more.
            for stale in writers[:-2]:
                del self._attachments[stale.id]

    def attachment(self, attachment_id: str) -> Attachment:
        """The attachment of that id. Raises AttachmentNotFound."""
        with self._lock:
            attachment = self._attachments.get(attachment_id)
        if attachment is None:
            raise AttachmentNotFound(f"expected the id of an attachment, got {attachment_id[:160]!r}")
        return attachment

    def close_attachment(self, attachment_id: str) -> None:
        """Ends an attachment; an unknown one is fine."""
        with self._lock:
            attachment = self._attachments.pop(attachment_id, None)
        if attachment is not None:
            opening.close_attachment(attachment)

    def worker_gone(self, worker: str) -> None:
        """Its stream ended: its views end; as a writer it may resume, until another one opens."""
        with self._lock:
            gone = [own for own in self._attachments.values() if own.worker == worker]
            for attachment in gone:
                if attachment.is_view:
                    del self._attachments[attachment.id]
        for attachment in gone:
            opening.lose_attachment(attachment)

    def sync(self) -> None:
        """Waits until everything acknowledged survives power loss; a session that failed does not hold up the others.

        Raises:
            StorageFailed: The disk refused in one of them, which takes no more writes now; raised once a session.
        """
        failures: list[StorageFailed] = []
        for session in self._folder.loaded():
            if session.core.failure or not session.core.files.unsynced:
                continue
            try:
                session.core.sync()
            except StorageFailed as error:
                if not session.core.ended:
                    failures.append(error)
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Syncs and closes all sessions; no call may follow. Raises StorageFailed after all are closed."""
        with self._lock:
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


def _require_same_attachment(known: Attachment, session: Session, request: session_pb2.OpenSessionRequest) -> None:
    same = known.session is session and known.worker == request.worker
    if not same or known.is_view != (request.mode == session_pb2.OPEN_MODE_VIEW):
        raise InvalidRequest(
            f"expected an attachment id that is free, got {known.id}, "
            f"{'a view' if known.is_view else 'the writer'} of session {known.session.name!r} of worker {known.worker}"
        )
