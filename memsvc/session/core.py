"""What the parts of one session share: its state, its files, who is attached, and the locks around them.

    lock            every change and every look at the state; held for one step at most, never while syncing
    put_lock        (of the files) from storing a block to its record; taken before `lock`
    opening         one writer opens at a time; taken before both

Must not know: what a step, a read or an opening does.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memsvc.errors import AttachmentNotFound, DataLoss, SessionNotFound, StaleEpoch, StorageFailed
from memsvc.manifest import SessionEntry
from memsvc.session.attachment import Attachment, View
from memsvc.session.files import SessionFiles
from memsvc.session.limits import SessionLimits
from memsvc.session.lineage import Lineage
from memsvc.session.recalls import RememberedRecalls
from memsvc.session.state import SessionState
from protos.memsvc.v1 import types_pb2

# Of a session's name and an epoch: raises StaleEpoch or ManifestUnavailable where this node may not write in it.
RequireHeld = Callable[[str, int], None]


class SessionCore:
    """One session's parts. All attributes but the locks, `files`, `spec` and `limits` change under `lock`.

    Attributes:
        entry: As the manifest has it, but for the epoch.
        lineage: Name, origin and snapshots.
        epoch: Of the newest writer.
        writer: The newest writer unless it closed; it may be lost.
        views: By attachment id.
        failure: Why nothing more is written; empty while all is well.
        ended: Closed or deleted: nothing is served any more.
    """

    def __init__(
        self,
        entry: SessionEntry,
        limits: SessionLimits,
        files: SessionFiles,
        state: SessionState,
        lineage: Lineage,
        require_held: RequireHeld,
    ) -> None:
        self._require_held = require_held
        self.entry, self.limits, self.files, self.state, self.lineage = entry, limits, files, state, lineage
        self.spec = types_pb2.SessionSpec.FromString(entry.spec)
        self.epoch = entry.epoch
        self.writer: Attachment | None = None
        self.views: dict[str, Attachment] = {}
        self.remembered = RememberedRecalls(limits.recalls_remembered)
        self.lock, self.opening = threading.Lock(), threading.Lock()
        self.failure = ""
        self.ended = False

    def require_open(self) -> None:
        """Raises SessionNotFound once the session is closed or deleted."""
        if self.ended:
            raise SessionNotFound(
                f"expected a session that is served, got {self.entry.name!r}, which was closed or deleted"
            )

    def require_writable(self) -> None:
        """Raises StorageFailed once a write failed, SessionNotFound once the session ended."""
        self.require_open()
        if self.failure:
            raise StorageFailed(
                f"expected session {self.entry.name!r} to take writes, got an earlier failure: {self.failure}"
            )

    def require_writer(self, attachment: Attachment, epoch: int) -> None:
        """Raises StaleEpoch for whoever is not the newest writer, and what `require_writable` and `require_held` do."""
        self.require_writable()
        self._require_newest(attachment, epoch)
        self.require_held(epoch)

    def require_held(self, epoch: int) -> None:
        """Passes while this node may write in this epoch: asked before a write, and again before it is acknowledged.

        Raises:
            StaleEpoch: Another node has the session.
            ManifestUnavailable: The node's lease ran out; whether another has it is not known.
        """
        self._require_held(self.entry.name, epoch)

    def _require_newest(self, attachment: Attachment, epoch: int) -> None:
        self.require_open()
        if attachment is not self.writer or epoch != attachment.epoch:
            raise StaleEpoch(
                f"expected the writer of session {self.entry.name!r} in epoch {self.epoch}, "
                f"got attachment {attachment.id} in epoch {epoch}"
            )

    def require_view(self, attachment: Attachment) -> View:
        """The view of an attachment. Raises AttachmentNotFound once it ended."""
        self.require_open()
        if attachment.view is None or self.views.get(attachment.id) is not attachment:
            raise AttachmentNotFound(f"expected an open view of session {self.entry.name!r}, got {attachment.id}")
        return attachment.view

    def require_attached(self, attachment: Attachment, epoch: int) -> None:
        """Raises StaleEpoch, AttachmentNotFound or SessionNotFound for whoever is not, or not any more, attached."""
        if not attachment.is_view:
            self._require_newest(attachment, epoch)
        elif self.require_view(attachment) and epoch:
            raise StaleEpoch(f"expected epoch 0 of view {attachment.id}, got {epoch}")

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Around what must not break off half way: where it does, nothing more is written."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or str(error) or type(error).__name__
            raise

    @contextmanager
    def served(self) -> Iterator[None]:
        """Around a use of the files without `lock`: they are closed, or gone, where the session ends meanwhile.

        Raises:
            SessionNotFound: In place of StorageFailed or DataLoss where that is so.
        """
        try:
            yield
        except (DataLoss, StorageFailed):
            self.require_open()
            raise

    def sync(self) -> None:
        """Waits until all that was acknowledged survives power loss. Never under `lock`.

        Raises:
            StorageFailed, SessionNotFound.
        """
        with self.served(), self.failing():
            self.files.commit()

    @property
    def idle(self) -> bool:
        """Whether nobody is attached, and all that is in memory is in the log too."""
        return (self.writer is None or self.writer.lost) and not self.views and not self.failure

    def end_if_idle(self) -> bool:
        """As `end`, unless somebody is attached or writes failed: then nothing happens. Raises StorageFailed."""
        with self.lock:
            if not self.idle:
                return False
            self.ended = True
        self.files.close()
        return True

    def end(self) -> None:
        """Serves nothing any more, and closes the files. Raises StorageFailed; they are closed all the same."""
        with self.lock:
            self.ended = True
        self.files.close()
