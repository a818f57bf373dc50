"""What a fork takes from its parent: the records up to a cut, which are copied, and the files that these name.

    parent's log    SESSION OPENED STEP BLOCK TAIL STEP BLOCK TAIL STEP ... FORGOTTEN ...
                            |--------- up to the cut --------|
    fork's log      SESSION OPENED STEP BLOCK TAIL STEP BLOCK TAIL FORGOTTEN | OPENED STEP ...
                    fork: {parent, sequence, position}                         its own

Records are copied since they are small beside blocks, and a log that holds all of its session needs no other one:
neither to recover, nor when the parent's is compacted. What is void at the cut stays behind, and so do the parent's
snapshots and names. Blocks that left the parent since are not in the fork either. Of earlier writers it is not told who
they were: none of them may go on in a fork.

Must not know: how a session is made.
"""

from collections.abc import Sequence
from dataclasses import replace

from memsvc.errors import SessionExists, SnapshotNotFound
from memsvc.geometry import BLOCK_TOKENS
from memsvc.log import read_log
from memsvc.log_format import LogRecord
from memsvc.session.core import SessionCore
from memsvc.session.files import Share
from memsvc.session.lineage import ForkPoint
from memsvc.session.records import (
    Layout,
    OpenedRecord,
    RecordKind,
    pack_forgotten,
    pack_opened,
    unpack_block,
    unpack_forgotten,
    unpack_opened,
    unpack_tail,
)
from memsvc.session.recovery import live_records
from memsvc.storage import Storage

# What names the parent or its cuts says nothing of a fork.
_NAMES = frozenset((RecordKind.SNAPSHOT, RecordKind.SNAPSHOT_DROPPED, RecordKind.RENAMED))


def share_of(core: SessionCore, snapshot: str, storage: Storage) -> tuple[Share, ForkPoint]:
    """What a fork at a snapshot, or at the newest tail if that is empty, begins with; all of it is durable.

    Writes and reads of the parent go on meanwhile.

    Raises:
        SessionNotFound, SnapshotNotFound, CorruptLog, StorageFailed.
    """
    with core.lock:
        core.require_open()
        if snapshot:
            core.lineage.snapshot(snapshot)
        count = core.files.sequence
    core.sync()
    records = read_log(core.files.folder, core.entry.id, count, storage)
    live = live_records(records)
    end = end_of_cut(live, snapshot)
    last = live[end - 1]
    position = unpack_tail(last.body, Layout.of(core.spec)).tail.position if end > 1 else 0
    before = (record for record in live[1:end] if record.kind not in _NAMES and not _is_ahead(record, position))
    shared = [_anonymous(record) for record in before]
    shared += _forgotten_since(live[end:], position // BLOCK_TOKENS)
    return Share(core.files.folder, shared), ForkPoint(core.entry.id, last.sequence, position)


def end_of_cut(live: Sequence[LogRecord], snapshot: str) -> int:
    """How many live records end with the tail that a snapshot names, or with the newest one if `snapshot` is empty.

    1, the log's first record, where no tail was there yet. Raises SnapshotNotFound.
    """
    # Where the newest tail ends so far, and where the one ends that is looked for.
    tail_end = 1
    cut_end: int | None = None
    for at, record in enumerate(live):
        if record.kind == RecordKind.TAIL:
            tail_end = at + 1
        elif record.kind == RecordKind.SNAPSHOT and record.body.get("name") == snapshot:
            cut_end = tail_end
        elif record.kind == RecordKind.SNAPSHOT_DROPPED and record.body.get("name") == snapshot:
            cut_end = None
    if not snapshot:
        cut_end = tail_end
    if cut_end is None:
        raise SnapshotNotFound(f"expected the name of a snapshot, got {snapshot[:160]!r}, which was dropped")
    return cut_end


def require_same_fork(known: SessionCore, parent: SessionCore, snapshot: str) -> None:
    """Raises SessionExists unless a session is a fork of the parent, and of this snapshot's cut if one is named."""
    with known.lock:
        fork = known.lineage.fork
    with parent.lock:
        position = parent.lineage.snapshot(snapshot).cut.position if snapshot else None
    if fork is None or fork.parent != parent.entry.id or position not in (None, fork.position):
        expected = f"a fork of session {parent.entry.name!r}{'' if position is None else f' at position {position}'}"
        got = "no fork" if fork is None else f"a fork of the session with id {fork.parent} at position {fork.position}"
        raise SessionExists(f"expected a name that is free or of {expected}, got {known.entry.name!r}, {got}")


def _is_ahead(record: LogRecord, position: int) -> bool:
    """Whether it is of a block that holds tokens at `position` or later: put ahead of them, and void at a cut there."""
    if record.kind != RecordKind.BLOCK:
        return False
    ref = unpack_block(record.body)
    return BLOCK_TOKENS * ref.block + (ref.partial_tokens or BLOCK_TOKENS) > position


def _forgotten_since(records: Sequence[LogRecord], blocks_end: int) -> list[LogRecord]:
    """Of these records, those that say which blocks before `blocks_end` left."""
    found: list[LogRecord] = []
    for record in (own for own in records if own.kind == RecordKind.FORGOTTEN):
        own = unpack_forgotten(record.body)
        blocks = tuple(range(one.start, min(one.stop, blocks_end)) for one in own.blocks if one.start < blocks_end)
        if blocks:
            found.append(replace(record, epoch=0, body=pack_forgotten(replace(own, blocks=blocks))))
    return found


def _anonymous(record: LogRecord) -> LogRecord:
    if record.kind != RecordKind.OPENED:
        return replace(record, epoch=0)
    body = pack_opened(OpenedRecord("", "", unpack_opened(record.body).position))
    return replace(record, epoch=0, body=body)
