"""One session's folder, read whole: its log, what its records lead to, its blocks and its saved shards.

Must not know: the manifest, but for the entry of this session.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from google.protobuf.message import DecodeError

from memsvc.errors import CorruptLog
from memsvc.log_format import FILE_NAME, LogRecord
from memsvc.manifest import SessionEntry
from memsvc.session.records import RecordKind, unpack_block
from memsvc.session.recovery import Recovered, recover
from memsvc.shards.base import Int16Array
from memsvc.shards.index import StreamIndex
from memsvc.storage import Storage
from memsvc.verify.findings import Finding, SessionReport, Severity
from memsvc.verify.log_scan import LogScan, scan_log
from memsvc.verify.outline import Outline, outline_of
from memsvc.verify.reading import bytes_at, bytes_of
from memsvc.verify.segments import SegmentCheck, check_segments, problem_of, segment_name
from memsvc.verify.shard_files import ShardFlaw, check_shards
from protos.memsvc.v1 import types_pb2


@dataclass(frozen=True)
class SessionCheck:
    """What was read of a session.

    Args:
        name: As the log says last, else the manifest; empty if neither does.
        scan: None if there is no log.
        spec: As the log says; None if its first record is gone.
        outline: Of the records up to the first damage.
        replay: Why those do not replay; empty if they do.
        shards: Files of shards.
    """

    id: str
    name: str
    scan: LogScan | None
    spec: types_pb2.SessionSpec | None
    outline: Outline
    replay: str
    segments: tuple[SegmentCheck, ...]
    shards: int
    shard_flaws: tuple[ShardFlaw, ...]

    @property
    def damaged(self) -> bool:
        """Whether anything is not as it was written, if nobody needs it."""
        flaws = any(own.lost or own.flaws for own in self.segments)
        hurt = any(own.severity is Severity.DAMAGE for own in self.shard_flaws)
        return self.scan is None or not self.scan.whole or bool(self.outline.problems or self.replay) or flaws or hurt

    def report(self) -> SessionReport:
        """The same for people and programs; paths begin at the data folder."""
        refs = self.outline.refs()
        return SessionReport(
            name=self.name,
            id=self.id,
            records=len(self.scan.records) if self.scan else 0,
            bookmarks=self.outline.bookmarks,
            blocks=len(refs),
            block_bytes=sum(ref.size_bytes for ref in refs),
            unused_bytes=sum(own.unused_bytes for own in self.segments),
            shard_files=self.shards,
            findings=tuple(self._findings()),
        )

    def _findings(self) -> list[Finding]:
        folder = f"sessions/{self.id}"
        found = self._log_findings(f"{folder}/{FILE_NAME}")
        for own in self.segments:
            path = f"{folder}/{segment_name(own.number)}"
            found += [Finding(Severity.DAMAGE, path, f"offset {ref.offset}", message) for ref, message in own.lost]
            found += [Finding(Severity.DAMAGE, path, f"offset {at}", message) for at, message in own.flaws]
            found += [Finding(Severity.NOTE, path, f"offset {at}", message) for at, message in own.leftovers]
        found += [Finding(own.severity, f"{folder}/{own.path}", "", own.message) for own in self.shard_flaws]
        return found

    def _log_findings(self, path: str) -> list[Finding]:
        if self.scan is None:
            return [Finding(Severity.DAMAGE, path, "", "expected a log, got no file")]
        found = [Finding(Severity.DAMAGE, path, "head", self.scan.head)] if self.scan.head else []
        for damage in self.scan.damages:
            place = f"record {damage.sequence} at offset {damage.offset}"
            found.append(Finding(Severity.DAMAGE, path, place, damage.message))
        for sequence, message in self.outline.problems:
            found.append(Finding(Severity.DAMAGE, path, f"record {sequence}", message))
        if self.replay:
            found.append(Finding(Severity.DAMAGE, path, "", self.replay))
        if self.scan.torn_bytes:
            message = f"expected the end after record {len(self.scan.records)}, got {self.scan.torn_bytes} more bytes"
            found.append(Finding(Severity.NOTE, path, "end", f"{message}, which a crash left"))
        return found


def check_session(
    folder: Path, entry: SessionEntry | None, storage: Storage, log_bytes: int | None = None
) -> SessionCheck:
    """Reads a session's folder, whose name is the session's id. Raises StorageFailed.

    Args:
        entry: Of the manifest, if it has one.
        log_bytes: How much of the log to read: a server may be appending to it.
    """
    data = bytes_of(folder / FILE_NAME, storage)
    scan = None if data is None else scan_log(data[:log_bytes], folder.name, growing=log_bytes is not None)
    records = promised_records(folder, scan, storage) if scan else []
    spec = spec_of(records)
    outline = outline_of(records, spec) if spec is not None else Outline()
    recovered, problem = replayed(records, spec) if spec is not None else (None, "")
    if scan is not None and scan.whole and spec is None:
        problem = "expected a log that begins with its session and the spec of it"
    elif entry is not None and spec is not None and types_pb2.SessionSpec.FromString(entry.spec) != spec:
        problem = problem or "expected the spec that the manifest holds, got another one in the log's first record"
    rows_from = None
    if recovered is not None:
        indexes = recovered.state.indexes.values()
        rows_from = {at: partial(_rows, index) for at, index in enumerate(indexes)}
    shards, shard_flaws = check_shards(folder, rows_from, storage)
    name = recovered.lineage.name if recovered is not None else entry.name if entry is not None else ""
    segments = tuple(check_segments(folder, outline.refs(), storage))
    return SessionCheck(folder.name, name, scan, spec, outline, problem, segments, shards, tuple(shard_flaws))


def promised_records(folder: Path, scan: LogScan, storage: Storage) -> list[LogRecord]:
    """The records up to the first damage, as a server that opens the session counts them. Raises StorageFailed.

    Of what may not have been durable, a block's record counts only with the block's bytes.
    """
    scanned = scan.before_damage()
    for at, own in enumerate(scanned):
        doubtful = scan.synced_bytes is not None and own.offset + own.size_bytes > scan.synced_bytes
        if doubtful and own.record.kind == RecordKind.BLOCK and not _is_there(folder, own.record, storage):
            return [before.record for before in scanned[:at]]
    return [own.record for own in scanned]


def spec_of(records: Sequence[LogRecord]) -> types_pb2.SessionSpec | None:
    """The spec in a log's first record, if it has one."""
    if not records or records[0].kind != RecordKind.SESSION or not isinstance(records[0].body.get("spec"), bytes):
        return None
    try:
        return types_pb2.SessionSpec.FromString(records[0].body["spec"])
    except DecodeError:
        return None


def replayed(records: Sequence[LogRecord], spec: types_pb2.SessionSpec) -> tuple[Recovered | None, str]:
    """What records replay to, or why they do not; nothing is written, whatever the session's finder is."""
    flat = types_pb2.SessionSpec()
    flat.CopyFrom(spec)
    flat.search.finder = types_pb2.FINDER_KIND_FLAT
    first = replace(records[0], body={**records[0].body, "spec": flat.SerializeToString()})
    try:
        return recover([first, *records[1:]], flat, Path()), ""
    except CorruptLog as error:
        return None, str(error)
    except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
        # Records whose checksums hold and that no server wrote.
        return None, f"expected records that replay, got {type(error).__name__}: {error}"


def _is_there(folder: Path, record: LogRecord, storage: Storage) -> bool:
    try:
        ref = unpack_block(record.body)
    except CorruptLog:
        return True
    path = folder / segment_name(ref.segment)
    return path.is_file() and not problem_of(ref, bytes_at(path, ref.offset, ref.size_bytes, storage))


def _rows(index: StreamIndex, first: int) -> Int16Array:
    return index.exact_rows(first, len(index))
