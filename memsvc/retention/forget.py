"""Letting blocks of a session go: one record, then they are gaps.

    sinks | left ... | kept ...
            ^ first    ^ the position asked for, or earlier: the window of the earliest tail or snapshot that is to stay

Bookmarks, links and token ids stay: what was read is still known, and where; the keys and values of it are gone.

Concurrency: any calls may overlap, with each other and with a writer.
"""

from dataclasses import dataclass

from memsvc.retention.policy import forgettable
from memsvc.session.core import SessionCore
from memsvc.session.ranges import RangeSet
from memsvc.session.records import ForgottenRecord, RecordKind, pack_forgotten


@dataclass(frozen=True)
class Forgotten:
    """Blocks that left, and how many bytes they had."""

    blocks: tuple[range, ...]
    block_bytes: int


def forget_before(core: SessionCore, position: int, why: str) -> Forgotten:
    """Lets go of the blocks that end at `position` or before.

    Durability: survives power loss.

    Raises:
        SessionNotFound: The session is closed or deleted.
        StaleEpoch, ManifestUnavailable: Another node may have it.
        StorageFailed: The disk refused.
    """
    with core.files.put_lock, core.lock:
        core.require_writable()
        core.require_held(core.epoch)
        cuts = [core.state.cut.position, *(own.cut.position for own in core.lineage.snapshots())]
        refs = forgettable(core.state.blocks.refs(), cuts, core.spec.fingerprint, position)
        ranges = RangeSet()
        for ref in refs:
            ranges.add(ref.block, ref.block + 1)
        if refs:
            with core.failing():
                body = pack_forgotten(ForgottenRecord(tuple(ranges), why))
                core.files.append(RecordKind.FORGOTTEN, core.epoch, body)
                _drop(core, ranges)
    if refs:
        core.sync()
        core.require_held(core.epoch)
    return Forgotten(tuple(ranges), sum(ref.size_bytes for ref in refs))


def _drop(core: SessionCore, ranges: RangeSet) -> None:
    """What is in memory follows the log: the session's own table, and those that views opened earlier look at."""
    tables = [core.state.blocks, *(own.view.state.blocks for own in core.views.values() if own.view is not None)]
    for table in {id(one): one for one in tables}.values():
        for blocks in ranges:
            table.forget(blocks.start, blocks.stop)
    core.remembered.reconsider()
