"""Gives the disk its room back: writes log and segments anew without what is void or left.

The log keeps every step that counts: a policy's next decision follows from all before it, so they are replayed.

Must not know: who has the session open: nobody may.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from memsvc.blocks import BlockRef
from memsvc.disk import disk_call, sync_folder
from memsvc.errors import CorruptLog
from memsvc.log_format import FILE_NAME
from memsvc.retention.rewrite import needed_records, rewrite
from memsvc.storage import Storage
from memsvc.verify.log_scan import scan_log
from memsvc.verify.outline import outline_of
from memsvc.verify.reading import bytes_of, size_of
from memsvc.verify.segments import segment_name, segment_numbers
from memsvc.verify.session_check import promised_records, spec_of

# A segment is written anew once this share of it is of no use to anybody.
_UNUSED_SHARE = 0.25


@dataclass(frozen=True)
class Compacted:
    """Bytes of log and segments before and after."""

    before_bytes: int
    after_bytes: int


def compact(folder: Path, storage: Storage) -> Compacted:
    """Compacts the files of a session that nobody has open; nothing happens where there is nothing to gain.

    Args:
        folder: Of the session, whose name is its id.

    Durability: survives power loss; a crash leaves the session as it was, or compacted.

    Raises:
        CorruptLog, CorruptBlock: Something is damaged; nothing changed.
        StorageFailed: The disk refused.
    """
    data = bytes_of(folder / FILE_NAME, storage)
    scan = None if data is None else scan_log(data, folder.name)
    records = promised_records(folder, scan, storage) if scan is not None else []
    spec = spec_of(records)
    if scan is None or not scan.whole or spec is None:
        raise CorruptLog(f"expected a whole log to compact, got damage, at {folder}: memsvc verify says where")
    before_bytes = _size_of(folder, storage)
    refs = outline_of(records, spec).refs()
    numbers = segment_numbers(folder, storage)
    sizes = {number: size_of(folder / segment_name(number), storage) for number in numbers}
    old = _worth_rewriting(sizes, refs)
    needed = needed_records(records, refs)
    if old or len(needed) < len(records):
        moved = [ref for ref in refs if ref.segment in old]
        rewrite(folder, needed, moved, max(numbers, default=0), storage)
        for number in sorted(old):
            with disk_call("remove a segment", path := folder / segment_name(number)):
                storage.remove(path)
        sync_folder(folder, storage)
    return Compacted(before_bytes, _size_of(folder, storage))


def _worth_rewriting(sizes: Mapping[int, int], refs: Sequence[BlockRef]) -> set[int]:
    """Segments whose blocks are to move."""
    used: dict[int, int] = defaultdict(int)
    for ref in refs:
        used[ref.segment] += ref.size_bytes
    return {number for number, size in sizes.items() if size - used[number] > _UNUSED_SHARE * size}


def _size_of(folder: Path, storage: Storage) -> int:
    paths = [folder / FILE_NAME, *(folder / segment_name(number) for number in segment_numbers(folder, storage))]
    return sum(size_of(path, storage) for path in paths)
