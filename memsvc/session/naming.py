"""Names for cuts and for the session: each is one record, durable before anybody is told.

Concurrency: any calls may overlap, with each other and with a writer; another writer opens before or after. A record
goes between two of the writer's: nothing is appended while a log is read again, which holds `put_lock` throughout.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from memsvc.errors import LimitExceeded, SnapshotExists
from memsvc.session.core import SessionCore
from memsvc.session.lineage import Snapshot, check_snapshot_name, pack_name, pack_snapshot
from memsvc.session.records import RecordKind


def create_snapshot(core: SessionCore, name: str, now_unix_ms: int) -> tuple[Snapshot, bool]:
    """Names the newest tail; returns the snapshot, and False if it was there already.

    Durability: survives power loss, with everything before the cut.

    Raises:
        InvalidRequest: The name.
        SnapshotExists: It is taken by another cut.
        LimitExceeded: Snapshots of the session.
        SessionNotFound, StorageFailed.
    """
    check_snapshot_name(name)
    with _changing(core):
        lineage, most = core.lineage, core.limits.snapshots_max
        known, created = lineage.get(name), Snapshot(name, core.state.cut, now_unix_ms)
        if known is not None and known.cut.tail != created.cut.tail:
            raise SnapshotExists(
                f"expected a name that is free, or that of position {created.cut.position}, "
                f"got {name!r}, a snapshot at position {known.cut.position} of session {core.entry.name!r}"
            )
        if known is None:
            if len(lineage) >= most:
                raise LimitExceeded(f"expected at most {most} snapshots of session {core.entry.name!r}, got one more")
            with core.failing():
                core.files.append(RecordKind.SNAPSHOT, core.epoch, pack_snapshot(created))
            lineage.add(created)
    return known or created, known is None


def drop_snapshot(core: SessionCore, name: str) -> None:
    """Lets go of a snapshot; its views and forks stay. Durable when it returns.

    Raises:
        SnapshotNotFound, SessionNotFound, StorageFailed.
    """
    with _changing(core):
        core.lineage.snapshot(name)
        with core.failing():
            core.files.append(RecordKind.SNAPSHOT_DROPPED, core.epoch, pack_name(name))
        core.lineage.drop(name)


def set_name(core: SessionCore, name: str) -> None:
    """Notes the name that the manifest has for the session, so that its files tell it too.

    Durability: survives power loss.

    Concurrency: nobody opens a writer meanwhile.

    Raises:
        StorageFailed.
    """
    with core.files.put_lock, core.lock:
        core.entry = replace(core.entry, name=name)
        core.lineage.name = name
        with core.failing():
            core.files.append(RecordKind.RENAMED, core.epoch, pack_name(name))
    core.sync()


@contextmanager
def _changing(core: SessionCore) -> Iterator[None]:
    """Around a change of the session's lineage, which is durable afterwards, and before that was this node's to make.

    Raises:
        SessionNotFound, StaleEpoch, ManifestUnavailable, StorageFailed.
    """
    with core.opening:
        with core.files.put_lock, core.lock:
            core.require_writable()
            core.require_held(core.epoch)
            yield
        # Also where nothing was changed: whoever changed it may still be waiting for the disk.
        core.sync()
        core.require_held(core.epoch)
