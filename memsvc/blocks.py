"""The bytes of a session's blocks: appended to segment files, never changed, checked whenever they are read.

    FOLDER/blocks-000001.seg, blocks-000002.seg, ...

    offset      field               little-endian
    0           magic               8 bytes, "MEMSVBLK"
    8           format version      u32, 1
    12          blocks, one after the other:

    0           magic               4 bytes, "BLK1"
    4           block               u64
    12          partial tokens      u32
    16          size                u32, bytes of the data
    20          CRC32C              u32, of the data
    24          CRC32C              u32, of bytes 0 to 23
    28          data                where a BlockRef's offset points

What a block's header says is in its BlockRef too, which the log holds: the header is for a repair that has no log.

Invariants:
    What `read` returns has the checksum that its reference names.
    Only the newest segment is written, and only past what it held when the store was opened.
    A segment is durable before the next one is begun.
    A segment with a second name (`share_segments`) is appended to by the store that has it open since before, and by no
    store that is opened later: what the references of either name stays.
    After an fsync failed, the store takes nothing more: what is durable is unknown until it is opened again.

Concurrency: any calls may overlap, but for `close`.
"""

import os
import re
import struct
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from memsvc.disk import create_file, disk_call, opened, sync_file, sync_folder, write_at
from memsvc.errors import CorruptBlock, FormatVersion, StorageFailed
from memsvc.storage import SYSTEM, Storage

_MAGIC, _VERSION = b"MEMSVBLK", 1
_HEAD = struct.pack("<8sI", _MAGIC, _VERSION)
_BLOCK_MAGIC = b"BLK1"
_BLOCK_HEAD = struct.Struct("<4sQIII")
_CRC = struct.Struct("<I")
_NAME = re.compile(r"blocks-(\d{6,})\.seg")


@dataclass(frozen=True, slots=True)
class BlockRef:
    """Where a block's bytes lie, and what they must be.

    Args:
        partial_tokens: Tokens of a block that is not whole, 1 to 63; 0 for a whole one.
        segment: Number of its file, from 1.
        offset: Where the data begins in it.
        crc32c: Of the data.
    """

    block: int
    partial_tokens: int
    segment: int
    offset: int
    size_bytes: int
    crc32c: int


class BlockStore:
    """The blocks of one session. Appends go to the end of the newest segment.

    Args:
        folder: Exists.
        segment_bytes_max: A block that would make a segment longer begins the next one.

    Durability: what an earlier process put survives power loss once the store is open.

    Raises:
        CorruptBlock: The newest segment is none.
        FormatVersion: It is of another version.
        StorageFailed: The disk refused.
    """

    def __init__(self, folder: Path, segment_bytes_max: int = 256 << 20, storage: Storage = SYSTEM) -> None:
        self._storage = storage
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        # One put at a time; never held while waiting for an fsync of `sync`.
        self._lock = threading.Lock()
        # Why nothing more is taken; empty while all is well.
        self._failure = ""
        # Bytes put so far, and how many of them survive power loss.
        self._put_bytes = self._synced_bytes = 0
        # The newest segment: its number, descriptor (-1 for none yet) and end; and the bytes of all older ones.
        self._segment, self._descriptor, self._end, self._older_bytes = 0, -1, 0, 0
        # Whether the newest segment is another store's, too.
        self._shared = False
        self._open_newest()

    @property
    def unsynced(self) -> bool:
        """Whether a power loss now could lose blocks."""
        return self._put_bytes != self._synced_bytes

    @property
    def unsynced_bytes(self) -> int:
        """Bytes that a power loss now could lose."""
        return self._put_bytes - self._synced_bytes

    @property
    def failure(self) -> str:
        """Why nothing more is taken; empty while all is well."""
        return self._failure

    @property
    def stored_bytes(self) -> int:
        """Bytes of all segments."""
        return self._older_bytes + self._end

    def put(self, block: int, partial_tokens: int, data: bytes | memoryview, crc32c: int) -> BlockRef:
        """Stores the bytes of a block, whether or not there are some already; returns where they are.

        Args:
            data: Below 4 GiB. Copied first if not bytes: whoever owns the memory may change it meanwhile.

        Durability: survives kill -9; power loss once `sync` returned.

        Raises:
            CorruptBlock: The bytes do not have this checksum; nothing was written.
            StorageFailed: The disk refused, now or at an earlier fsync.
        """
        data = bytes(data)
        if (computed := google_crc32c.value(data)) != crc32c:
            raise CorruptBlock(f"expected CRC32C {crc32c:08x} of block {block}, got {computed:08x}, as it arrived")
        head = _BLOCK_HEAD.pack(_BLOCK_MAGIC, block, partial_tokens, len(data), crc32c)
        head += _CRC.pack(google_crc32c.value(head))
        with self._lock:
            self._refuse_if_failed()
            size_bytes = len(head) + len(data)
            full = len(_HEAD) < self._end and self._end + size_bytes > self._segment_bytes_max
            if self._descriptor < 0 or self._shared or full:
                self._begin_segment()
            # A write that fails leaves the end where it was: the next one goes over what it left.
            write_at(self._descriptor, [head, data], self._end, self._path(self._segment), self._storage)
            ref = BlockRef(block, partial_tokens, self._segment, self._end + len(head), len(data), crc32c)
            self._end += size_bytes
            self._put_bytes += size_bytes
        return ref

    def read(self, ref: BlockRef) -> bytes:
        """The bytes of a block, exactly as they were put.

        Raises:
            CorruptBlock: They are gone, or shorter, or have another checksum.
            StorageFailed: The disk refused.
        """
        return _read_block(self._path(ref.segment), ref, self._storage)

    def restore(self, ref: BlockRef) -> bool:
        """Whether a block that an earlier process put, and may not have synced, is there; it is durable after `sync`.

        Raises:
            StorageFailed: The disk refused.
        """
        try:
            data = self.read(ref)
        except CorruptBlock:
            return False
        path = self._path(ref.segment)
        # After a failed fsync the system may hold bytes that it takes for stored: writing them again makes it store
        # them with the next one. Older segments were durable before the next one was begun.
        with self._lock:
            if ref.segment == self._segment:
                write_at(self._descriptor, [data], ref.offset, path, self._storage)
                self._put_bytes += len(data)
        return True

    def sync(self) -> None:
        """Waits until every block put before the call survives power loss.

        Raises:
            StorageFailed: The disk refused, now or earlier.
        """
        with self._lock:
            self._refuse_if_failed()
            if self._put_bytes == self._synced_bytes:
                return
            # A descriptor of its own: a put that begins the next segment closes the store's.
            put_bytes, path = self._put_bytes, self._path(self._segment)
            with disk_call("fsync", path):
                descriptor = self._storage.duplicate(self._descriptor)
        try:
            self._sync(descriptor, path)
        finally:
            self._storage.close(descriptor)
        with self._lock:
            self._synced_bytes = max(self._synced_bytes, put_bytes)

    def close(self) -> None:
        """Syncs, unless the store failed, and closes the newest segment. A second call does nothing.

        Raises:
            StorageFailed: The disk refused; the file is closed all the same.
        """
        try:
            if not self._failure:
                self.sync()
        finally:
            self._failure = self._failure or f"closed, at {self._folder}"
            if self._descriptor >= 0:
                self._storage.close(self._descriptor)
                self._descriptor = -1

    def _path(self, segment: int) -> Path:
        return self._folder / _name_of(segment)

    def _refuse_if_failed(self) -> None:
        if self._failure:
            raise StorageFailed(f"expected a store that takes blocks, got one that is out of use: {self._failure}")

    def _sync(self, descriptor: int, path: Path) -> None:
        try:
            sync_file(descriptor, path, self._storage)
        except StorageFailed as error:
            self._failure = str(error)
            raise

    def _open_newest(self) -> None:
        sizes = _segment_sizes(self._folder, self._storage)
        if not sizes:
            return
        self._segment = max(sizes)
        self._end = sizes.pop(self._segment)
        self._older_bytes = sum(sizes.values())
        path = self._path(self._segment)
        with disk_call("open a segment", path):
            descriptor = self._storage.open(path, os.O_RDWR)
        try:
            with disk_call("read a segment", path):
                head = self._storage.read(descriptor, len(_HEAD), 0)
                self._shared = self._storage.links(descriptor) > 1
            begun = len(head) == len(_HEAD) and any(head)
            if begun:
                _check_head(head, path)
            sync_file(descriptor, path, self._storage)
        except BaseException:
            self._storage.close(descriptor)
            raise
        self._descriptor = descriptor
        if not begun:
            # Its maker died, or power was lost, before the head was durable, and so before anything else was put.
            self._begin_segment()

    def _begin_segment(self) -> None:
        if self._descriptor >= 0:
            self._sync(self._descriptor, self._path(self._segment))
            self._synced_bytes = self._put_bytes
            self._storage.close(self._descriptor)
            self._descriptor = -1
        descriptor = create_file(self._path(self._segment + 1), _HEAD, self._storage)
        self._segment += 1
        self._shared = False
        self._older_bytes += self._end
        self._end = len(_HEAD)
        self._descriptor = descriptor


def share_segments(source: Path, folder: Path, segments: Collection[int], storage: Storage = SYSTEM) -> None:
    """Gives segments of one store to another that is not open and has none; it begins one of its own behind them.

    No byte is copied: the files get a name in the other folder, too (hard links). That is enough, since a block's bytes
    never change; and the file system counts the names, so that bytes go when the last store that has them is removed.

    Args:
        segments: Numbers; what is needed of them is durable.

    Durability: the names survive power loss.

    Raises:
        StorageFailed: The disk refused, or does not take hard links.
    """
    for number in segments:
        name = _name_of(number)
        with disk_call(f"share {source / name}", folder / name):
            storage.link(source / name, folder / name)
    sync_folder(folder, storage)


def _read_block(path: Path, ref: BlockRef, storage: Storage) -> bytes:
    place = f"at offset {ref.offset} of {path}"
    try:
        with disk_call(f"read block {ref.block}", path), opened(path, os.O_RDONLY, storage) as descriptor:
            data = storage.read(descriptor, ref.size_bytes, ref.offset)
    except StorageFailed as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise CorruptBlock(f"expected block {ref.block}, got no segment, {place}") from error
        raise
    if len(data) != ref.size_bytes:
        raise CorruptBlock(f"expected {ref.size_bytes} bytes of block {ref.block}, got {len(data)}, {place}")
    if (computed := google_crc32c.value(data)) != ref.crc32c:
        raise CorruptBlock(f"expected CRC32C {ref.crc32c:08x} of block {ref.block}, got {computed:08x}, {place}")
    return data


def _segment_sizes(folder: Path, storage: Storage) -> dict[int, int]:
    """Bytes of each segment."""
    with disk_call("list segments", folder):
        found = [_NAME.fullmatch(name) for name in storage.names(folder)]
        sizes = {}
        for number in (int(name[1]) for name in found if name):
            with opened(folder / _name_of(number), os.O_RDONLY, storage) as descriptor:
                sizes[number] = storage.size(descriptor)
    return sizes


def _name_of(segment: int) -> str:
    return f"blocks-{segment:06d}.seg"


def _check_head(head: bytes, path: Path) -> None:
    """Raises CorruptBlock or FormatVersion for the beginning of anything but a segment of this version."""
    if head[: len(_MAGIC)] != _MAGIC[: len(head)]:
        raise CorruptBlock(f"expected a segment that begins {_HEAD.hex()}, got {head.hex()}, at {path}")
    if head != _HEAD[: len(head)]:
        version = int.from_bytes(head[len(_MAGIC) :], "little")
        raise FormatVersion(f"expected a segment of format version {_VERSION}, got {version}, at {path}")
