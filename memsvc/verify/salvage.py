"""Which records of a damaged log still count.

whole  whole  [damage]  whole ...      the damage is made good where it is known what stood there:
                                           the first record, from the manifest's entry
                                           a block's record, from the block's own header
                                       or passed over where all of it was void anyway
whole  whole  [damage]  ...            else the log ends before it: what comes later was decided by what is lost,
                                       but for blocks of tokens that are left
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import google_crc32c
import msgpack

from memsvc.blocks import BlockRef
from memsvc.geometry import BLOCK_TOKENS
from memsvc.log_format import LogRecord
from memsvc.manifest import SessionEntry
from memsvc.session.records import LASTING, RecordKind, pack_block, pack_session, unpack_block
from memsvc.storage import Storage
from memsvc.verify.log_scan import LogDamage, LogScan
from memsvc.verify.outline import outline_of
from memsvc.verify.reading import size_of
from memsvc.verify.segments import first_piece_offset, pieces_of, segment_name, segment_numbers
from memsvc.verify.session_check import promised_records, spec_of
from protos.memsvc.v1 import types_pb2

_HEAD_BYTES, _CRC_BYTES = 21, 4
# A block's header vouches for the block; that its record stood here is told by all but so few bytes of it.
_DIFFERING_BYTES_MAX = 16
# As long as any time of now, where the time itself is damaged.
_SOME_UNIX_MS = 1 << 41


@dataclass(frozen=True)
class Salvaged:
    """Records that go on from the first, and what was made of the damage between them."""

    records: tuple[LogRecord, ...]
    done: tuple[str, ...]
    lost: tuple[str, ...]


def salvage(folder: Path, scan: LogScan, entry: SessionEntry | None, storage: Storage) -> Salvaged:
    """The records of a damaged log that still count; none if not even the first does. Raises StorageFailed.

    Args:
        folder: Of the session, whose name is its id.
        entry: Of the manifest, if it has one with a spec.
    """
    records = promised_records(folder, scan, storage)
    done: list[str] = []
    lost: list[str] = []
    for at, damage in enumerate(scan.damages):
        after = _after(scan, at)
        rebuilt = _rebuilt(folder, scan, damage, records, entry, storage)
        if rebuilt is not None:
            records += [rebuilt, *after]
            done.append(
                f"record {damage.sequence} made again, {RecordKind(rebuilt.kind).name} at offset {damage.offset}"
            )
            continue
        if (end := _void_end(records, after, bool(damage.missing))) is not None:
            records += [own for own in after[:end] if own.kind in LASTING] + after[end:]
            done.append(f"record {damage.sequence} at offset {damage.offset} passed over: it was void")
            continue
        rest = [own.record for own in scan.records if own.offset >= damage.end]
        blocks = _blocks_of(records, rest)
        records += blocks
        gone = len(rest) - len(blocks)
        lost.append(f"record {damage.sequence} at offset {damage.offset} of its log, and {gone} records after it")
        break
    return Salvaged(tuple(records), tuple(done), tuple(lost))


def _after(scan: LogScan, at: int) -> list[LogRecord]:
    """The records between a damage and the next one."""
    first = scan.damages[at].end
    end = scan.damages[at + 1].offset if at + 1 < len(scan.damages) else None
    return [own.record for own in scan.records if own.offset >= first and (end is None or own.offset < end)]


def _rebuilt(
    folder: Path,
    scan: LogScan,
    damage: LogDamage,
    records: Sequence[LogRecord],
    entry: SessionEntry | None,
    storage: Storage,
) -> LogRecord | None:
    """What one damaged record was, if that is known."""
    if damage.missing > 1:
        return None
    if damage.sequence == 1:
        return _session_of(entry) if damage.missing else None
    epoch = records[-1].epoch if records else 0
    known = {unpack_block(own.record.body) for own in scan.records if own.record.kind == RecordKind.BLOCK}
    alike: list[LogRecord] = []
    for ref in _blocks_in(folder, storage):
        for body in _bodies(ref, damage) if ref not in known else ():
            made = LogRecord(RecordKind.BLOCK, damage.sequence, epoch, body)
            content = _content(made)
            crc = google_crc32c.extend(_seed(folder.name), content).to_bytes(_CRC_BYTES, "little")
            if len(content) + _CRC_BYTES != len(damage.data):
                continue
            if damage.data[-_CRC_BYTES:] == crc:
                return made
            if sum(a != b for a, b in zip(content, damage.data, strict=False)) <= _DIFFERING_BYTES_MAX:
                alike.append(LogRecord(RecordKind.BLOCK, damage.sequence, epoch, pack_block(ref)))
    return alike[0] if len({own.body["offset"] for own in alike}) == 1 else None


def _session_of(entry: SessionEntry | None) -> LogRecord | None:
    """A log's first record, as the manifest tells it; a fork's origin is not among that."""
    if entry is None:
        return None
    return LogRecord(RecordKind.SESSION, 1, 0, pack_session(entry.name, types_pb2.SessionSpec.FromString(entry.spec)))


def _bodies(ref: BlockRef, damage: LogDamage) -> Iterable[dict[str, int]]:
    """What the body of a block's record may have been: when it was put stands in the log alone."""
    body = dict(pack_block(ref))
    yield body
    place = damage.data.find(msgpack.packb("unix_ms"))
    stored = int.from_bytes(damage.data[-_CRC_BYTES - 8 : -_CRC_BYTES], "big") if place >= 0 else _SOME_UNIX_MS
    yield {**body, "unix_ms": stored}


def _content(record: LogRecord) -> bytes:
    """A record's bytes but for its checksum."""
    packed = msgpack.packb(dict(record.body))
    head = (_HEAD_BYTES + len(packed) + _CRC_BYTES, record.kind, record.sequence, record.epoch)
    return struct.pack("<IBQQ", *head) + bytes(packed)


def _seed(session_id: str) -> int:
    return int(google_crc32c.value(struct.pack("<8sI16s", b"MEMSVLOG", 1, UUID(session_id).bytes)))


def _blocks_in(folder: Path, storage: Storage) -> Iterable[BlockRef]:
    """Every block that the headers in the segments tell of."""
    for number in segment_numbers(folder, storage):
        path = folder / segment_name(number)
        yield from pieces_of(path, number, first_piece_offset(), size_of(path, storage), storage)


def _void_end(records: Sequence[LogRecord], after: Sequence[LogRecord], counted: bool) -> int | None:
    """How many of the records after a damage are void with it; None if not all of the damage was.

    A writer opened after it at the newest tail before it, and no tail came between: so whatever was written is void.
    """
    spec = spec_of(records)
    if spec is None or not counted:
        return None
    for at, record in enumerate(after):
        if record.kind == RecordKind.TAIL:
            return None
        if record.kind == RecordKind.OPENED:
            return at if record.body.get("position") == outline_of(records, spec).tail_position else None
    return None


def _blocks_of(records: Sequence[LogRecord], rest: Sequence[LogRecord]) -> list[LogRecord]:
    """Records of blocks that hold tokens of the records that are left, put by the same writer; for those alone."""
    spec = spec_of(records)
    if spec is None:
        return []
    outline = outline_of(records, spec)
    found: dict[int, LogRecord] = {}
    for record in rest:
        if record.kind != RecordKind.BLOCK or record.epoch != records[-1].epoch:
            continue
        ref = unpack_block(record.body)
        known = outline.blocks.get(ref.block)
        whole_left = not ref.partial_tokens and BLOCK_TOKENS * (ref.block + 1) <= outline.position
        missing = known is None or known.partial_tokens
        if whole_left and missing and outline.blocks.gaps.end_of_range_at(ref.block) is None:
            found.setdefault(ref.block, replace(record))
    return list(found.values())
