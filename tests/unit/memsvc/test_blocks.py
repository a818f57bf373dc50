"""Blocks: the very bytes that were put come back, or a typed error does."""

import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.blocks import BlockRef, BlockStore, share_segments
from memsvc.errors import CorruptBlock, FormatVersion, StorageFailed
from tests.disk_faults import files_end_at, fsync_fails

# Bytes before a segment's first block, and before a block's data.
SEGMENT_HEAD_BYTES, BLOCK_HEAD_BYTES = 12, 28
FIRST = "blocks-000001.seg"


def _data(block: int, size_bytes: int = 1000) -> bytes:
    return random.Random(block).randbytes(size_bytes)


def _put(store: BlockStore, block: int, data: bytes | None = None) -> BlockRef:
    data = _data(block) if data is None else data
    return store.put(block, 0, data, google_crc32c.value(data))


def test_blocks_come_back_from_this_and_the_next_opening(tmp_path: Path) -> None:
    """Proves that whole, partial and empty blocks are read as put, in any order, and again after a restart."""
    store = BlockStore(tmp_path)
    blocks = {7: _data(7), 0: _data(0, 1), 2**64 - 1: _data(1), 3: b""}
    refs = {block: _put(store, block, data) for block, data in blocks.items()}
    assert {block: store.read(ref) for block, ref in refs.items()} == blocks
    store.close()
    again = BlockStore(tmp_path)
    assert {block: again.read(ref) for block, ref in reversed(refs.items())} == blocks


def test_a_reference_says_what_was_put(tmp_path: Path) -> None:
    """Proves that a reference carries block, partial tokens, size and checksum, and points at the data in its file."""
    store = BlockStore(tmp_path)
    data = _data(5)
    ref = store.put(5, 17, data, google_crc32c.value(data))
    assert replace(ref, offset=0) == BlockRef(5, 17, 1, 0, len(data), google_crc32c.value(data))
    assert (tmp_path / FIRST).read_bytes()[ref.offset : ref.offset + ref.size_bytes] == data


def test_memory_that_is_not_bytes_is_put_as_it_was(tmp_path: Path) -> None:
    """Proves that a writable view is taken, and that changing the memory afterwards changes nothing stored."""
    memory = bytearray(_data(1))
    store = BlockStore(tmp_path)
    ref = store.put(1, 0, memoryview(memory), google_crc32c.value(bytes(memory)))
    memory[:] = bytes(len(memory))
    assert store.read(ref) == _data(1)


def test_a_block_that_arrives_damaged_is_refused(tmp_path: Path) -> None:
    """Proves that the checksum is checked before anything is written, and that the message names both checksums."""
    store = BlockStore(tmp_path)
    computed = google_crc32c.value(b"data")
    with pytest.raises(CorruptBlock, match=f"expected CRC32C 00000001 of block 4, got {computed:08x}"):
        store.put(4, 0, b"data", 1)
    assert store.stored_bytes == 0
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(offset=st.integers(0, 99), mask=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_block_is_never_returned(offset: int, mask: int, cut: bool) -> None:
    """Proves that any byte changed, and any cut inside the data, is CorruptBlock; the block before is still read."""
    with tempfile.TemporaryDirectory() as name:
        store = BlockStore(Path(name))
        before, ref = _put(store, 0), _put(store, 1, _data(1, 100))
        store.close()
        content = bytearray((Path(name) / FIRST).read_bytes())
        if cut:
            del content[ref.offset + offset :]
        else:
            content[ref.offset + offset] ^= mask
        (Path(name) / FIRST).write_bytes(content)
        found = f"100 bytes of block 1, got {offset}," if cut else "CRC32C .* of block 1, got "
        with pytest.raises(CorruptBlock, match=f"expected {found}.* at offset {ref.offset} of "):
            store.read(ref)
        assert store.read(before) == _data(0)


def test_a_segment_that_is_gone_is_a_loss(tmp_path: Path) -> None:
    """Proves that blocks of a missing file are CorruptBlock, not a failure of the disk."""
    store = BlockStore(tmp_path)
    ref = _put(store, 0)
    (tmp_path / FIRST).unlink()
    with pytest.raises(CorruptBlock, match="expected block 0, got no segment"):
        store.read(ref)


def test_segments_end_at_their_limit(tmp_path: Path) -> None:
    """Proves that a segment holds what just fits, that one byte more begins the next, and that all are read."""
    two = SEGMENT_HEAD_BYTES + 2 * (BLOCK_HEAD_BYTES + 1000)
    fits, over = tmp_path / "fits", tmp_path / "over"
    for folder, limit, segments in ((fits, two, [1, 1, 2]), (over, two - 1, [1, 2, 3])):
        folder.mkdir()
        store = BlockStore(folder, segment_bytes_max=limit)
        refs = [_put(store, block) for block in range(3)]
        assert [ref.segment for ref in refs] == segments
        assert [store.read(ref) for ref in refs] == [_data(block) for block in range(3)]
        assert max(path.stat().st_size for path in folder.iterdir()) <= limit
        assert store.stored_bytes == sum(path.stat().st_size for path in folder.iterdir())
        store.close()


def test_a_block_longer_than_a_segment_gets_one_alone(tmp_path: Path) -> None:
    """Proves that the limit never refuses a block and leaves no segment empty."""
    store = BlockStore(tmp_path, segment_bytes_max=100)
    refs = [_put(store, block) for block in range(3)]
    assert [ref.segment for ref in refs] == [1, 2, 3]
    assert [store.read(ref) for ref in refs] == [_data(block) for block in range(3)]


def test_a_new_opening_appends_to_the_newest_segment(tmp_path: Path) -> None:
    """Proves that blocks of several openings share segments, and stored_bytes counts those of all."""
    refs = []
    for block in range(4):
        store = BlockStore(tmp_path, segment_bytes_max=SEGMENT_HEAD_BYTES + 3 * (BLOCK_HEAD_BYTES + 1000))
        refs.append(_put(store, block))
        assert store.stored_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
        store.close()
    assert [ref.segment for ref in refs] == [1, 1, 1, 2]
    assert [BlockStore(tmp_path).read(ref) for ref in refs] == [_data(block) for block in range(4)]


def test_blocks_survive_the_kill_of_their_process(tmp_path: Path) -> None:
    """Proves that a put that returned is there after kill -9, with nothing synced or closed."""
    program = (
        "import os, pathlib, sys, google_crc32c; from memsvc.blocks import BlockStore\n"
        "store = BlockStore(pathlib.Path(sys.argv[1]))\n"
        "ref = store.put(3, 0, bytes(range(256)), google_crc32c.value(bytes(range(256))))\n"
        "print(ref.offset, flush=True)\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, stdout=subprocess.PIPE)
    assert killed.returncode == -signal.SIGKILL
    data = bytes(range(256))
    ref = BlockRef(3, 0, 1, int(killed.stdout), len(data), google_crc32c.value(data))
    assert BlockStore(tmp_path).read(ref) == data


@pytest.mark.parametrize("left_bytes", [1, BLOCK_HEAD_BYTES, BLOCK_HEAD_BYTES + 500])
def test_what_a_crash_left_at_the_end_disturbs_nothing(tmp_path: Path, left_bytes: int) -> None:
    """Proves that blocks before and after a block written in part are read."""
    store = BlockStore(tmp_path)
    refs = [_put(store, 0), _put(store, 1)]
    store.close()
    os.truncate(tmp_path / FIRST, refs[1].offset - BLOCK_HEAD_BYTES + left_bytes)
    again = BlockStore(tmp_path)
    after = _put(again, 2)
    assert [again.read(refs[0]), again.read(after)] == [_data(0), _data(2)]
    with pytest.raises(CorruptBlock):
        again.read(refs[1])


@pytest.mark.parametrize(("left_bytes", "zeros"), [*((left, 0) for left in range(SEGMENT_HEAD_BYTES)), (0, 12)])
def test_a_segment_whose_maker_died_is_passed_over(tmp_path: Path, left_bytes: int, zeros: int) -> None:
    """Proves that a file without a whole head, or with zeros for one as power loss leaves it, takes no blocks: the next
    segment does."""
    store = BlockStore(tmp_path)
    refs = [_put(store, 0)]
    store.close()
    (tmp_path / "blocks-000002.seg").write_bytes(bytes(zeros) or (tmp_path / FIRST).read_bytes()[:left_bytes])
    again = BlockStore(tmp_path)
    refs.append(_put(again, 1))
    assert refs[1].segment == 3
    assert [again.read(ref) for ref in refs] == [_data(0), _data(1)]


def test_a_segment_of_another_format_is_refused(tmp_path: Path) -> None:
    """Proves that the store appends to its own version only, told from what is no segment, and leaves others alone."""
    path = tmp_path / FIRST
    for content, error, match in (
        (b"MEMSVBLK\x02\x00\x00\x00more", FormatVersion, "a segment of format version 1, got 2, at"),
        (b"MEMSVBLX\x01\x00\x00\x00more", CorruptBlock, "expected a segment that begins 4d454d535642"),
    ):
        path.write_bytes(content)
        with pytest.raises(error, match=match):
            BlockStore(tmp_path)
        assert path.read_bytes() == content


def test_a_block_that_may_not_be_durable_is_written_again(tmp_path: Path) -> None:
    """Proves that restoring counts as unsynced what it wrote, and says of a block that is not there that it is not."""
    store = BlockStore(tmp_path)
    ref = _put(store, 1)
    store.close()
    again = BlockStore(tmp_path)
    assert again.unsynced_bytes == 0
    assert again.restore(ref)
    assert again.unsynced_bytes == ref.size_bytes
    again.sync()
    assert again.unsynced_bytes == 0
    assert again.read(ref) == _data(1)
    assert not again.restore(replace(ref, offset=ref.offset + 1))
    assert not again.restore(replace(ref, segment=2))
    assert again.unsynced_bytes == 0


def test_blocks_are_found_without_the_log(tmp_path: Path) -> None:
    """Proves that the format drawn at the module's head is the one on disk: walking it finds each block again."""
    store = BlockStore(tmp_path)
    sizes = [0, 1, 77, 1000]
    refs = [_put(store, block, _data(block, size_bytes)) for block, size_bytes in enumerate(sizes)]
    content = (tmp_path / FIRST).read_bytes()
    assert content[:SEGMENT_HEAD_BYTES] == b"MEMSVBLK" + (1).to_bytes(4, "little")
    at, found = SEGMENT_HEAD_BYTES, []
    while at < len(content):
        magic, block, partial_tokens, size_bytes, crc, head_crc = struct.unpack_from("<4sQIIII", content, at)
        assert (magic, head_crc) == (b"BLK1", google_crc32c.value(content[at : at + 24]))
        found.append(BlockRef(block, partial_tokens, 1, at + BLOCK_HEAD_BYTES, size_bytes, crc))
        at += BLOCK_HEAD_BYTES + size_bytes
    assert found == refs


def test_a_store_knows_what_is_unsynced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that unsynced is true from a put to the next sync, and that an idle sync asks nothing of the disk."""
    store = BlockStore(tmp_path)
    assert not store.unsynced
    _put(store, 0)
    assert store.unsynced
    store.sync()
    assert not store.unsynced
    with fsync_fails(monkeypatch):
        store.sync()


def test_a_segment_is_durable_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a put which begins a segment fails if the one before cannot be synced, and so does all after it."""
    store = BlockStore(tmp_path, segment_bytes_max=100)
    ref = _put(store, 0)
    with fsync_fails(monkeypatch), pytest.raises(StorageFailed, match=f"fsync, .* at {tmp_path / FIRST}"):
        _put(store, 1)
    with pytest.raises(StorageFailed, match="out of use"):
        _put(store, 1)
    assert [path.name for path in tmp_path.iterdir()] == [FIRST]
    assert store.read(ref) == _data(0)


def test_an_fsync_that_fails_ends_storing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a failed sync is raised, stays raised though the disk works again, and does not end reading."""
    store = BlockStore(tmp_path)
    ref = _put(store, 0)
    with fsync_fails(monkeypatch), pytest.raises(StorageFailed, match="fsync, got Input/output error"):
        store.sync()
    for call in (lambda: _put(store, 1), store.sync):
        with pytest.raises(StorageFailed, match="out of use"):
            call()
    assert store.unsynced
    assert store.read(ref) == _data(0)
    store.close()


def test_a_write_that_fails_costs_its_own_block_only(tmp_path: Path) -> None:
    """Proves that after a full disk the same store goes on, over what the failed put left."""
    store = BlockStore(tmp_path)
    first = _put(store, 0)
    with files_end_at(store.stored_bytes + 500), pytest.raises(StorageFailed, match="got 500 written"):
        _put(store, 1)
    second = _put(store, 2)
    assert second.offset == first.offset + 1000 + BLOCK_HEAD_BYTES
    assert [store.read(first), store.read(second)] == [_data(0), _data(2)]


def test_a_segment_that_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    """Proves that a full disk at the start of a segment is no lasting failure."""
    store = BlockStore(tmp_path, segment_bytes_max=100)
    refs = [_put(store, 0)]
    with files_end_at(4), pytest.raises(StorageFailed):
        _put(store, 1)
    store.sync()
    refs.append(_put(store, 1))
    assert [store.read(ref) for ref in refs] == [_data(0), _data(1)]


def test_calls_may_overlap(tmp_path: Path) -> None:
    """Proves that puts, reads and syncs of four threads, over many segments, leave every block as it was put."""
    store = BlockStore(tmp_path, segment_bytes_max=10_000)

    def work(thread: int) -> list[BlockRef]:
        refs = []
        for block in range(100 * thread, 100 * thread + 100):
            refs.append(_put(store, block))
            assert store.read(refs[-1]) == _data(block)
            if block % 10 == 0:
                store.sync()
        return refs

    with ThreadPoolExecutor(4) as threads:
        refs = [ref for found in threads.map(work, range(4)) for ref in found]
    store.close()
    assert [BlockStore(tmp_path).read(ref) for ref in refs] == [_data(ref.block) for ref in refs]


def test_a_closed_store_takes_nothing(tmp_path: Path) -> None:
    """Proves that closing syncs, that a second close is fine, and that a put after it is an error."""
    store = BlockStore(tmp_path)
    _put(store, 0)
    store.close()
    store.close()
    assert not store.unsynced
    with pytest.raises(StorageFailed, match="closed"):
        _put(store, 1)


def test_stores_share_segments_without_writing_each_others(tmp_path: Path) -> None:
    """Proves that shared blocks are read from one file in both, and that what either puts later is its own."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one = BlockStore(folders[0], segment_bytes_max=2000)
    shared = [_put(one, block) for block in range(4)]
    one.sync()
    needed = {ref.segment for ref in shared}
    share_segments(folders[0], folders[1], needed)
    two = BlockStore(folders[1], segment_bytes_max=2000)
    own = _put(two, 4, _data(40))
    _put(one, 4)
    assert own.segment == max(needed) + 1
    assert [two.read(ref) for ref in shared] == [_data(ref.block) for ref in shared]
    assert two.read(own) == _data(40)
    assert all((folders[0] / path.name).samefile(path) for path in sorted(folders[1].glob("*.seg"))[:-1])
    two.close()
    one.close()
    for path in folders[0].iterdir():
        path.unlink()
    again = BlockStore(folders[1])
    assert [again.read(ref) for ref in (*shared, own)] == [*(_data(ref.block) for ref in shared), _data(40)]


def test_a_store_that_is_opened_again_writes_no_segment_that_is_shared(tmp_path: Path) -> None:
    """Proves that neither store appends to a file that has two names once it is opened, and both do when it has one."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one = BlockStore(folders[0])
    shared = _put(one, 0)
    one.close()
    share_segments(folders[0], folders[1], {1})
    stores = [BlockStore(folder) for folder in folders]
    own = [_put(store, 1 + at) for at, store in enumerate(stores)]
    assert [ref.segment for ref in own] == [2, 2]
    for store, ref in zip(stores, own, strict=True):
        assert [store.read(one) for one in (shared, ref)] == [_data(0), _data(ref.block)]
        store.close()
    (folders[0] / FIRST).unlink()
    (folders[1] / "blocks-000002.seg").unlink()
    assert _put(BlockStore(folders[1]), 5).segment == 1


def test_sharing_no_segment_leaves_a_store_empty(tmp_path: Path) -> None:
    """Proves that a store which shares nothing begins with its first segment."""
    (tmp_path / "two").mkdir()
    share_segments(tmp_path, tmp_path / "two", set())
    assert _put(BlockStore(tmp_path / "two"), 0).segment == 1


def test_a_segment_that_is_not_there_cannot_be_shared(tmp_path: Path) -> None:
    """Proves that a missing file is a typed error that names it."""
    (tmp_path / "two").mkdir()
    with pytest.raises(StorageFailed, match=r"blocks-000003\.seg"):
        share_segments(tmp_path, tmp_path / "two", {3})
