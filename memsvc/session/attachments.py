"""Who is attached to which session of a node.

Invariant: an attachment id names one attachment of the node.
Must not know: files, the manifest, workers' streams.
"""

import threading

from memsvc.errors import AttachmentNotFound, InvalidRequest
from memsvc.session import opening
from memsvc.session.attachment import Attachment
from memsvc.session.session import Session
from protos.memsvc.v1 import session_pb2


class Attachments:
    """Attachments by id.

    Concurrency: any calls may overlap.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attachments: dict[str, Attachment] = {}

    def require_free(self, session: Session, request: session_pb2.OpenSessionRequest) -> None:
        """Raises InvalidRequest if the id is another session's or worker's, or that of another kind of attachment."""
        with self._lock:
            known = self._attachments.get(request.attachment)
        if known is None:
            return
        same = known.session is session and known.worker == request.worker
        if not same or known.is_view != (request.mode == session_pb2.OPEN_MODE_VIEW):
            raise InvalidRequest(
                f"expected an attachment id that is free, got {known.id}, {'a view' if known.is_view else 'the writer'}"
                f" of session {known.session.name!r} of worker {known.worker}"
            )

    def add(self, attachment: Attachment) -> None:
        """One that was opened; of writers that it took over from, all but the newest are not known any more."""
        with self._lock:
            self._attachments[attachment.id] = attachment
            own = [other for other in self._attachments.values() if other.session is attachment.session]
            writers = sorted((other for other in own if not other.is_view), key=lambda other: other.epoch)
            # The one before the newest is told that its epoch is stale; older ones are not known any more.
            for stale in writers[:-2]:
                del self._attachments[stale.id]

    def get(self, attachment_id: str) -> Attachment:
        """The attachment of that id. Raises AttachmentNotFound."""
        with self._lock:
            attachment = self._attachments.get(attachment_id)
        if attachment is None:
            raise AttachmentNotFound(f"expected the id of an attachment, got {attachment_id[:160]!r}")
        return attachment

    def close(self, attachment_id: str) -> None:
        """Ends an attachment; an unknown one is fine."""
        with self._lock:
            attachment = self._attachments.pop(attachment_id, None)
        if attachment is not None:
            opening.close_attachment(attachment)

    def lose(self, worker: str) -> None:
        """A worker's stream ended: its views end; as a writer it may resume, until another one opens."""
        with self._lock:
            gone = [own for own in self._attachments.values() if own.worker == worker]
            for attachment in gone:
                if attachment.is_view:
                    del self._attachments[attachment.id]
        for attachment in gone:
            opening.lose_attachment(attachment)

    def forget(self, session: Session) -> None:
        """The session is closed or deleted: its attachments, which are lost if it is closed, are not known any more."""
        with self._lock:
            for attachment in [own for own in self._attachments.values() if own.session is session]:
                del self._attachments[attachment.id]

    def clear(self) -> None:
        """None is known any more."""
        with self._lock:
            self._attachments.clear()
