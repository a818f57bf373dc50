"""How attachments begin: a new writer, a writer that was cut off and goes on, a view.

    resume_epoch    the session's own epoch, of the same attachment and worker: goes on with all that was applied
    the same id     of the writer or view that is there: the same answer again
    else            a new epoch; what a lost writer wrote after the newest tail is discarded

Invariants:
    A writer that is there is never displaced: it must be lost or closed first.
    Nothing is discarded before the new epoch is durable in the manifest.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from memsvc.errors import LimitExceeded, SessionHasWriter, StaleEpoch
from memsvc.geometry import BLOCK_TOKENS
from memsvc.session.attachment import Attachment, View
from memsvc.session.core import SessionCore
from memsvc.session.info import describe
from memsvc.session.ranges import runs, to_wire
from memsvc.session.records import OpenedRecord, RecordKind, pack_opened
from memsvc.session.recovery import recover, up_to_tail
from memsvc.session.state import SessionState
from protos.memsvc.v1 import session_pb2

if TYPE_CHECKING:
    from memsvc.session.session import Session

# Gives the epoch of a new writer, at least as large as asked; durable when it returns.
NextEpoch = Callable[[int], int]


def open_writer(session: "Session", request: session_pb2.OpenSessionRequest, next_epoch: NextEpoch) -> Attachment:
    """The writer that a request asks for.

    Raises:
        StaleEpoch: It resumes an epoch that is not the session's, or was closed.
        SessionHasWriter: Another one is there.
    """
    core = session.core
    with core.opening:
        with core.lock:
            core.require_writable()
            writer = core.writer
            known = writer is not None and (writer.id, writer.worker) == (request.attachment, request.worker)
            if request.resume_epoch:
                return _resume(core, request, writer if known else None)
            if writer is not None and not writer.lost:
                if known:
                    return writer
                raise SessionHasWriter(
                    f"expected session {core.entry.name!r} without a writer, got attachment {writer.id} "
                    f"of worker {writer.worker} in epoch {writer.epoch}"
                )
        epoch = next_epoch(core.epoch + 1)
        return _take_over(core, Attachment(request.attachment, request.worker, session, epoch))


def open_view(session: "Session", request: session_pb2.OpenSessionRequest) -> Attachment:
    """A view at a snapshot or the newest tail, or the view of that id that is there.

    Raises:
        SnapshotNotFound, LimitExceeded.
    """
    core = session.core
    with core.lock:
        core.require_open()
        known = core.views.get(request.attachment)
        if known is not None and known.worker == request.worker:
            return known
        if len(core.views) >= core.limits.views_max:
            raise LimitExceeded(
                f"expected at most {core.limits.views_max} views of session {core.entry.name!r}, got one more"
            )
        # Later states only add to what a cut holds.
        cut = core.lineage.snapshot(request.snapshot).cut if request.snapshot else core.state.cut
        view = Attachment(request.attachment, request.worker, session, 0, View(core.state, cut))
        core.views[view.id] = view
        return view


def opened(attachment: Attachment, resumed: bool) -> session_pb2.OpenSessionResponse:
    """What the client is told."""
    core = attachment.session.core
    with core.lock:
        view, state = attachment.view, core.state
        cut = view.cut if view else state.cut
        position = view.position if view else state.tokens.position
        stored = (view.state if view else state).blocks.whole(0, (cut.position if view else position) // BLOCK_TOKENS)
        response = session_pb2.OpenSessionResponse(
            session=describe(core),
            epoch=attachment.epoch,
            position=position,
            applied_seq=attachment.applied_seq,
            stored_blocks=to_wire(runs(stored)),
        )
        if cut.tail.version and not resumed and position == cut.position:
            response.tail.CopyFrom(cut.tail)
        return response


def _resume(core: SessionCore, request: session_pb2.OpenSessionRequest, writer: Attachment | None) -> Attachment:
    if writer is None or request.resume_epoch != writer.epoch:
        raise StaleEpoch(
            f"expected the newest writer of session {core.entry.name!r}, epoch {core.epoch}, to resume, "
            f"got attachment {request.attachment} of worker {request.worker} in epoch {request.resume_epoch}"
        )
    core.require_held(writer.epoch)
    writer.lost = False
    return writer


def _take_over(core: SessionCore, writer: Attachment) -> Attachment:
    """Makes this attachment the writer, from the newest tail on."""
    with core.lock:
        # From here on the earlier writer's epoch is stale; a block that it is storing is refused.
        former, core.writer = core.writer, None
        changed = core.state.changed
    with core.files.put_lock:
        state = _rewound(core) if changed else core.state
        with core.lock:
            core.require_writable()
            core.require_held(writer.epoch)
            position = state.tokens.position
            with core.failing():
                record = OpenedRecord(writer.id, writer.worker, position)
                core.files.append(RecordKind.OPENED, writer.epoch, pack_opened(record))
                state.blocks.cut(position)
            core.state, core.writer, core.epoch = state, writer, writer.epoch
            for attachment in {writer.id, former.id if former else writer.id}:
                core.remembered.forget(attachment)
            # Of writers that closed, too: their bookmarks' numbers are given to others.
            core.remembered.forget_past(position)
    core.sync()
    core.require_held(writer.epoch)
    return writer


def _rewound(core: SessionCore) -> SessionState:
    """The state at the newest tail, read from the log. Without `lock`: reads go on."""
    with core.failing():
        return recover(up_to_tail(core.files.reread()), core.spec, core.files.shards).state


def close_attachment(attachment: Attachment) -> None:
    """Ends a view, or lets another writer open; a second call does nothing."""
    core = attachment.session.core
    with core.lock:
        core.views.pop(attachment.id, None)
        if core.writer is attachment:
            core.writer = None


def lose_attachment(attachment: Attachment) -> None:
    """The worker's stream ended: a view ends, a writer keeps its epoch until another one opens."""
    if attachment.is_view:
        close_attachment(attachment)
        return
    with attachment.session.core.lock:
        attachment.lost = True
