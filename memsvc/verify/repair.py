"""Makes a data folder whole again, from what its logs and blocks still say.

    each session    the log up to what cannot be made good; blocks that are not as they were put become gaps; segments
                    with damage are replaced by new ones with the blocks of theirs that are whole; saved shards that are
                    not whole are made again by replaying the log
    the manifest    made again from the logs, with what is left of the old one

Invariants:
    Whatever is replaced or not understood is set aside, never deleted.
    A folder that is whole is not touched; a repair that was cut off is finished by the next one.
"""

from dataclasses import dataclass
from pathlib import Path

from memsvc.errors import MemsvcError, StorageFailed
from memsvc.folder_lock import FolderLock
from memsvc.log_format import FILE_NAME, LogRecord
from memsvc.manifest import SessionEntry
from memsvc.retention.rewrite import needed_records, rewrite
from memsvc.session.lineage import pack_name
from memsvc.session.ranges import RangeSet
from memsvc.session.records import ForgottenRecord, RecordKind, pack_forgotten
from memsvc.session.recovery import recover
from memsvc.storage import SYSTEM, Storage
from memsvc.verify.findings import Report
from memsvc.verify.folder_check import FolderCheck, check_folder, readable
from memsvc.verify.log_scan import scan_log
from memsvc.verify.manifest_repair import repair_manifest
from memsvc.verify.outline import Outline, outline_of
from memsvc.verify.quarantine import Quarantine
from memsvc.verify.reading import bytes_of
from memsvc.verify.salvage import salvage
from memsvc.verify.segments import SegmentCheck, check_segments, segment_name, segment_numbers
from memsvc.verify.session_check import SessionCheck, promised_records, replayed, spec_of


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Args:
        done: One line a thing that was made good.
        lost: One line a thing that could not be.
        quarantine: Folder of what was set aside; None if nothing was.
        after: The data folder as it is now.
    """

    done: tuple[str, ...]
    lost: tuple[str, ...]
    quarantine: Path | None
    after: Report


def repair_folder(data: Path, storage: Storage = SYSTEM) -> Repaired:
    """Repairs a data folder.

    Raises:
        WrongState: A server runs in it (DATA_FOLDER_LOCKED).
        StorageFailed: It is no folder, or the disk refused; the next repair goes on.
    """
    if not data.is_dir():
        raise StorageFailed(f"data folder: expected a folder, got {data}")
    lock = FolderLock(data, storage)
    try:
        repair = _Repair(data, storage)
        repair.run(check_folder(data, storage))
        return repair.result()
    finally:
        lock.close()


class _Repair:
    """One run over a data folder."""

    def __init__(self, data: Path, storage: Storage) -> None:
        self._data = data
        self._storage = storage
        self._quarantine = Quarantine(data, storage)
        self._done: list[str] = []
        self._lost: list[str] = []

    def run(self, check: FolderCheck) -> None:
        entries = {entry.id: entry for entry in check.manifest.entries}
        for own in check.sessions.values():
            if own.damaged:
                self._session(own, entries.get(own.id))
        # Sessions as they are now: what was set aside has no place in a manifest.
        now = check_folder(self._data, self._storage)
        repair_manifest(self._data, now, self._quarantine, self._done, self._lost)

    def result(self) -> Repaired:
        done, lost = tuple(self._done), tuple(self._lost)
        self._quarantine.note([*(f"done: {line}" for line in done), *(f"lost: {line}" for line in lost)])
        return Repaired(done, lost, self._quarantine.path, check_folder(self._data, self._storage).report())

    def _session(self, check: SessionCheck, entry: SessionEntry | None) -> None:
        folder, title = self._data / "sessions" / check.id, f"session {check.name or check.id}"
        if check.scan is not None and check.scan.other_version:
            self._lost.append(f"{title}: left as it is, its log is of another version")
            return
        records = self._records(folder, check, readable(entry), title)
        if not records:
            self._quarantine.move(folder)
            self._lost.append(f"{title}: set aside, no log says what its blocks belong to")
            return
        self._files(folder, check, records, title)
        self._shards(folder, check, title)

    def _records(self, folder: Path, check: SessionCheck, entry: SessionEntry | None, title: str) -> list[LogRecord]:
        """The records that still count; none if there is no first one."""
        if check.scan is None:
            return []
        found = salvage(folder, check.scan, entry, self._storage)
        self._done += [f"{title}: {line}" for line in found.done]
        self._lost += [f"{title}: {line}" for line in found.lost]
        records = list(found.records)
        spec = spec_of(records)
        if spec is None:
            return []
        if replayed(records, spec)[0] is None:
            # The most records that replay.
            low, high = 1, len(records)
            while low + 1 < high:
                middle = (low + high) // 2
                low, high = (middle, high) if replayed(records[:middle], spec)[0] is not None else (low, middle)
            self._lost.append(f"{title}: {len(records) - low} records from {low + 1} on, which contradict those before")
            del records[low:]
        return records

    def _files(self, folder: Path, check: SessionCheck, records: list[LogRecord], title: str) -> None:
        """Log and segments, if anything in them is damaged."""
        spec = spec_of(records)
        assert spec is not None
        outline = outline_of(records, spec)
        segments = check_segments(folder, outline.refs(), self._storage)
        hurt = [own for own in segments if own.lost or own.flaws]
        if check.scan is not None and check.scan.whole and not check.replay and not hurt:
            return
        records = [*records, *self._given_up(outline, segments, title)]
        bad = {ref for own in segments for ref, _ in own.lost}
        # Without their records, tails and snapshots that ended in one of these end with the block before it.
        refs = [ref for ref in outline_of(records, spec).refs() if ref not in bad]
        moved = [ref for ref in refs if ref.segment in {own.number for own in hurt}]
        newest = max(segment_numbers(folder, self._storage), default=0)
        self._quarantine.copy(folder / FILE_NAME)
        rewrite(folder, needed_records(records, refs), moved, newest, self._storage)
        self._done.append(f"{title}: log written anew, {len(moved)} blocks copied out of damaged segments")
        for own in hurt:
            if (path := folder / segment_name(own.number)).exists():
                self._quarantine.move(path)

    def _given_up(self, outline: Outline, segments: list[SegmentCheck], title: str) -> list[LogRecord]:
        """Records that say which blocks are gone, and which snapshots with them."""
        bad = {ref for own in segments for ref, _ in own.lost}
        ranges = RangeSet()
        for block in sorted({ref.block for ref in bad}):
            known = outline.blocks.get(block)
            if known is not None and known not in bad:
                # What a tail or snapshot ended in; the block itself was put whole since.
                self._lost.append(f"{title}: a part of block {block} that a tail or snapshot ended in")
                continue
            ranges.add(block, block + 1)
            self._lost.append(f"{title}: block {block}, which is a gap now")
        made = []
        if tuple(ranges):
            body = pack_forgotten(ForgottenRecord(tuple(ranges), "damaged"))
            made.append(LogRecord(RecordKind.FORGOTTEN, 0, outline.epoch, body))
        for name, (_, partial) in outline.snapshots.items():
            if partial in bad:
                made.append(LogRecord(RecordKind.SNAPSHOT_DROPPED, 0, outline.epoch, pack_name(name)))
                self._lost.append(f"{title}: snapshot {name}, whose last block is gone")
        return made

    def _shards(self, folder: Path, check: SessionCheck, title: str) -> None:
        """Sets aside files of shards that a server would not read, and makes them again."""
        if not check.shard_flaws:
            return
        for flaw in check.shard_flaws:
            self._quarantine.move(folder / flaw.path)
        data = bytes_of(folder / FILE_NAME, self._storage)
        assert data is not None
        records = promised_records(folder, scan_log(data, check.id), self._storage)
        spec = spec_of(records)
        assert spec is not None
        try:
            for index in recover(records, spec, folder / "shards").state.indexes.values():
                index.settle()
            self._done.append(f"{title}: {len(check.shard_flaws)} files of shards set aside and made again as needed")
        except MemsvcError as error:
            # A finder that is not installed here: a server that has it makes them when the session is opened.
            self._lost.append(f"{title}: {len(check.shard_flaws)} files of shards, until it is opened: {error}")
