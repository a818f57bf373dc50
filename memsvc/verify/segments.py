"""Segments of a session's blocks, read against the references that its log holds.

`memsvc.blocks` draws the format. A reference says where a block's data is and what it must be; the header before it
says the same once more, for a repair that has no log. Bytes that no reference names are walked by their headers.
"""

import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from memsvc.blocks import BlockRef
from memsvc.storage import Storage
from memsvc.verify.reading import bytes_at, names_in, size_of

_HEAD = struct.pack("<8sI", b"MEMSVBLK", 1)
_BLOCK_HEAD = struct.Struct("<4sQIII")
_BLOCK_HEAD_BYTES = _BLOCK_HEAD.size + 4
_NAME = re.compile(r"blocks-(\d{6,})\.seg")


@dataclass(frozen=True, slots=True)
class SegmentCheck:
    """What one segment holds.

    Args:
        number: From 1.
        lost: References whose data is not there as it was put, and what came instead.
        flaws: Offsets and what is wrong there, where no data is hurt.
        leftovers: Offsets and what is wrong there, where nothing refers to: a write that a crash cut off, mostly.
        unused_bytes: That no reference names.
    """

    number: int
    size_bytes: int
    lost: tuple[tuple[BlockRef, str], ...]
    flaws: tuple[tuple[int, str], ...]
    leftovers: tuple[tuple[int, str], ...]
    unused_bytes: int

    @property
    def name(self) -> str:
        """Of its file."""
        return segment_name(self.number)


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"blocks-{number:06d}.seg"


def segment_numbers(folder: Path, storage: Storage) -> list[int]:
    """Segments that are there, ascending. Raises StorageFailed."""
    return sorted(int(found[1]) for name in names_in(folder, storage) if (found := _NAME.fullmatch(name)))


def check_segments(folder: Path, refs: Iterable[BlockRef], storage: Storage) -> list[SegmentCheck]:
    """Reads every segment that is there or that a reference names. Raises StorageFailed."""
    wanted: dict[int, set[BlockRef]] = defaultdict(set)
    for ref in refs:
        wanted[ref.segment].add(ref)
    there = set(segment_numbers(folder, storage))
    checks = []
    for number in sorted(there | wanted.keys()):
        own = sorted(wanted[number], key=lambda ref: ref.offset)
        if number in there:
            checks.append(_check(folder / segment_name(number), number, own, storage))
        else:
            lost = tuple((ref, "expected a segment, got no file") for ref in own)
            checks.append(SegmentCheck(number, 0, lost, (), (), 0))
    return checks


def problem_of(ref: BlockRef, data: bytes) -> str:
    """What is wrong with the bytes at a reference; empty if nothing is."""
    if len(data) != ref.size_bytes:
        return f"expected {ref.size_bytes} bytes of block {ref.block}, got {len(data)}"
    if (crc := google_crc32c.value(data)) != ref.crc32c:
        return f"expected CRC32C {ref.crc32c:08x} of block {ref.block}, got {crc:08x}"
    return ""


def pieces_of(path: Path, number: int, start: int, end: int, storage: Storage) -> Iterator[BlockRef]:
    """The blocks that stand between two offsets of a segment by what their headers say, up to the first bad header."""
    at = start
    while at + _BLOCK_HEAD_BYTES <= end:
        head = bytes_at(path, at, _BLOCK_HEAD_BYTES, storage)
        if len(head) < _BLOCK_HEAD_BYTES or not _head_holds(head):
            return
        _, block, partial, size_bytes, crc = _BLOCK_HEAD.unpack_from(head)
        yield BlockRef(block, partial, number, at + _BLOCK_HEAD_BYTES, size_bytes, crc)
        at += _BLOCK_HEAD_BYTES + size_bytes


def first_piece_offset() -> int:
    """Where the first block's header stands in a segment."""
    return len(_HEAD)


def _check(path: Path, number: int, refs: list[BlockRef], storage: Storage) -> SegmentCheck:
    size_bytes = size_of(path, storage)
    lost: list[tuple[BlockRef, str]] = []
    flaws: list[tuple[int, str]] = []
    leftovers: list[tuple[int, str]] = []
    head = bytes_at(path, 0, len(_HEAD), storage)
    if head != _HEAD and (refs or len(head) == len(_HEAD)):
        flaws.append((0, f"expected a segment that begins {_HEAD.hex()}, got {head.hex() or 'nothing'}"))
    at, unused = len(_HEAD), 0
    for ref in refs:
        start = ref.offset - _BLOCK_HEAD_BYTES
        unused += max(0, start - at)
        leftovers += _walked(path, number, at, start, storage)
        piece = bytes_at(path, start, _BLOCK_HEAD_BYTES + ref.size_bytes, storage)
        if problem := problem_of(ref, piece[_BLOCK_HEAD_BYTES:]):
            lost.append((ref, problem))
        elif piece[:_BLOCK_HEAD_BYTES] != _head_of(ref):
            got = piece[:_BLOCK_HEAD_BYTES].hex()
            flaws.append((start, f"expected header {_head_of(ref).hex()} of block {ref.block}, got {got}"))
        at = max(at, ref.offset + ref.size_bytes)
    unused += max(0, size_bytes - at)
    leftovers += _walked(path, number, at, size_bytes, storage)
    return SegmentCheck(number, size_bytes, tuple(lost), tuple(flaws), tuple(leftovers), unused)


def _walked(path: Path, number: int, start: int, end: int, storage: Storage) -> list[tuple[int, str]]:
    """What is wrong with bytes that no reference names."""
    at, flaws = start, []
    for ref in pieces_of(path, number, start, end, storage):
        at = ref.offset + ref.size_bytes
        if at <= end and (problem := problem_of(ref, bytes_at(path, ref.offset, ref.size_bytes, storage))):
            flaws.append((ref.offset, f"{problem}, which nothing refers to"))
    if at != end and start < end:
        flaws.append((min(at, end), f"expected a block that nothing refers to, got {abs(end - at)} other bytes"))
    return flaws


def _head_of(ref: BlockRef) -> bytes:
    head = _BLOCK_HEAD.pack(b"BLK1", ref.block, ref.partial_tokens, ref.size_bytes, ref.crc32c)
    return head + int(google_crc32c.value(head)).to_bytes(4, "little")


def _head_holds(head: bytes) -> bool:
    crc = int(google_crc32c.value(head[: _BLOCK_HEAD.size])).to_bytes(4, "little")
    return head[:4] == b"BLK1" and head[_BLOCK_HEAD.size :] == crc
