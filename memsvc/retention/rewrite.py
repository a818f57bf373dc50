"""A session's log, and blocks of some of its segments, written anew and put in place.

    FOLDER/rewritten/{log, blocks-000001.seg ...}      written and synced
    FOLDER/blocks-N.seg ...                            named past the segments there are; nothing refers to them yet
    FOLDER/log                                         replaced: from here on the new files count

Invariants:
    A crash at any moment leaves the session as it was or as it is to be; what is left over is of no use to anybody.
    Old segments stay where they are: whoever asked removes them.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from memsvc.blocks import BlockRef, BlockStore
from memsvc.disk import disk_call, make_folder, sync_folder
from memsvc.errors import CorruptBlock
from memsvc.log import SessionLog
from memsvc.log_format import FILE_NAME, LogRecord
from memsvc.session.records import RecordKind, pack_block, unpack_block
from memsvc.session.recovery import live_records
from memsvc.storage import Storage
from memsvc.verify.reading import bytes_at
from memsvc.verify.segments import problem_of, segment_name

_WORK = "rewritten"


def rewrite(
    folder: Path, records: Sequence[LogRecord], moved: Collection[BlockRef], segments: int, storage: Storage
) -> None:
    """Replaces the log by these records, with new sequences, and copies blocks to new segments.

    Args:
        folder: Of the session, whose name is its id; nobody has it open.
        moved: Blocks to copy, which the records name as they are now.
        segments: Number of the newest segment there is; 0 for none.

    Durability: survives power loss.

    Raises:
        CorruptBlock: A block to copy is not as it was put; nothing changed.
        StorageFailed: The disk refused.
    """
    work = folder / _WORK
    with disk_call("remove what an earlier rewriting left", work):
        if work.exists():
            storage.remove_tree(work)
    make_folder(work, storage)
    places = _copy_blocks(folder, work, moved, segments, storage)
    log = SessionLog.create(work, folder.name, storage)
    try:
        for record in records:
            log.append(record.kind, record.epoch, _moved(record, places))
    finally:
        log.close()
    with disk_call("put rewritten files in place", folder):
        for number in sorted({ref.segment for ref in places.values()}):
            storage.rename(work / segment_name(number - segments), folder / segment_name(number))
    sync_folder(folder, storage)
    with disk_call("put a rewritten log in place", folder):
        storage.rename(work / FILE_NAME, folder / FILE_NAME)
    sync_folder(folder, storage)
    with disk_call("remove an empty folder", work):
        storage.remove_tree(work)


def needed_records(records: Sequence[LogRecord], refs: Collection[BlockRef]) -> list[LogRecord]:
    """The records that count, without those of blocks that are not among `refs`."""
    wanted = set(refs)
    return [
        record
        for record in live_records(records)
        if record.kind != RecordKind.BLOCK or unpack_block(record.body) in wanted
    ]


def _copy_blocks(
    folder: Path, work: Path, moved: Collection[BlockRef], segments: int, storage: Storage
) -> dict[BlockRef, BlockRef]:
    """Copies blocks; returns where each will be once the new segments are in place."""
    places: dict[BlockRef, BlockRef] = {}
    store = BlockStore(work, storage=storage)
    try:
        for ref in sorted(moved, key=lambda own: (own.segment, own.offset)):
            path = folder / segment_name(ref.segment)
            data = bytes_at(path, ref.offset, ref.size_bytes, storage)
            if problem := problem_of(ref, data):
                raise CorruptBlock(f"{problem}, at offset {ref.offset} of {path}")
            at = store.put(ref.block, ref.partial_tokens, data, ref.crc32c)
            places[ref] = replace(at, segment=segments + at.segment)
    finally:
        store.close()
    return places


def _moved(record: LogRecord, places: dict[BlockRef, BlockRef]) -> dict[str, object]:
    if record.kind != RecordKind.BLOCK:
        return dict(record.body)
    ref = unpack_block(record.body)
    return {**record.body, **pack_block(places.get(ref, ref))}
