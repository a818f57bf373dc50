"""The files of a session that is being made: of an empty one, or of a fork.

Invariant: nothing is left of what could not be made whole.
Must not know: which names are taken, what is open.
"""

from contextlib import ExitStack

from memsvc.log_format import LogRecord
from memsvc.manifest import SessionEntry
from memsvc.session.core import SessionCore
from memsvc.session.files import SessionFiles, Share
from memsvc.session.forking import share_of
from memsvc.session.lineage import pack_fork
from memsvc.session.marks import FolderMarks
from memsvc.session.records import Body, RecordKind, pack_session
from memsvc.session.recovery import Recovered, recover
from memsvc.storage import Machine
from protos.memsvc.v1 import types_pb2

# The parent of a fork, and the snapshot that it begins at, or none for the newest tail.
Origin = tuple[SessionCore, str]


def make_files(
    entry: SessionEntry, spec: types_pb2.SessionSpec, origin: Origin | None, marks: FolderMarks, machine: Machine
) -> tuple[SessionFiles, Recovered]:
    """Files, and what is in them, of a session that the manifest has not yet; marked so.

    Durability: survives power loss.

    Raises:
        SessionNotFound, SnapshotNotFound, DataLoss: Of the parent.
        StorageFailed.
    """
    first: Body = pack_session(entry.name, spec)
    share: Share | None = None
    with ExitStack() as undo:
        undo.callback(marks.abandon, entry.id)
        # From here on the parent stays.
        _begin(entry.id, origin, marks)
        if origin is not None:
            share, fork = share_of(*origin, machine.storage)
            first = {**first, **pack_fork(fork)}
        files = SessionFiles.create(marks.folder(entry.id), entry.id, first, machine, share)
        undo.callback(files.close)
        records = [LogRecord(RecordKind.SESSION, 1, 0, first), *(share.records if share is not None else ())]
        recovered = recover(records, spec, files.shards)
        undo.pop_all()
    return files, recovered


def _begin(session_id: str, origin: Origin | None, marks: FolderMarks) -> None:
    """Marks the folder. Raises SessionNotFound if the parent was deleted meanwhile, SnapshotNotFound."""
    if origin is None:
        marks.begin(session_id, "")
        return
    parent, snapshot = origin
    with marks.forking:
        with parent.lock:
            parent.require_open()
            # Now already: a delete of the parent is not to be refused because of a fork that comes to nothing.
            if snapshot:
                parent.lineage.snapshot(snapshot)
        marks.begin(session_id, parent.entry.id)
