"""Shared memory: leases never overlap, and no file outlives its owner."""

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attn_client.memory.arena import PAGE_BYTES, Arena, Region, Slot, remove_abandoned

OWNER = """
import sys, pathlib
from attn_client.memory.arena import Arena
arena = Arena(1 << 16, pathlib.Path(sys.argv[1]))
print(arena.name, flush=True)
sys.stdin.read()
"""


def test_leases_never_overlap_and_all_come_back() -> None:
    """Proves with random leases and releases that live slots are disjoint and that freed stretches join again."""
    rng, region, leased = random.Random(5), Region(PAGE_BYTES, 65 * PAGE_BYTES), []
    for _ in range(3000):
        if leased and rng.random() < 0.5:
            region.release(leased.pop(rng.randrange(len(leased))))
            continue
        slot = region.lease(rng.randint(1, 9 * PAGE_BYTES))
        if slot is not None:
            leased.append(slot)
        spans = sorted((one.offset, one.offset + one.size_bytes) for one in leased)
        assert all(end <= first for (_, end), (first, _) in itertools.pairwise(spans))
        assert all(first >= PAGE_BYTES and end <= 65 * PAGE_BYTES for first, end in spans)
    region.release_all(leased)
    assert region.lease(64 * PAGE_BYTES) == Slot(PAGE_BYTES, 64 * PAGE_BYTES)


def test_a_region_that_is_full_leases_nothing() -> None:
    """Proves the limit: exactly what fits is leased, and one byte more is not."""
    region = Region(0, 2 * PAGE_BYTES)
    assert region.lease(2 * PAGE_BYTES + 1) is None
    assert region.lease(PAGE_BYTES) is not None
    assert region.lease(PAGE_BYTES + 1) is None
    assert region.lease(1) is not None
    assert (region.lease(1), region.free_bytes) == (None, 0)


def test_puts_and_fetches_never_share_a_byte(tmp_path: Path) -> None:
    """Proves that a late write into the fetch half cannot reach what is being put."""
    arena = Arena(1 << 20, tmp_path)
    try:
        half = arena.puts.free_bytes
        put, fetch = arena.puts.lease(half), arena.fetches.lease(half)
        assert put is not None
        assert fetch is not None
        arena.view(put)[:] = 7
        arena.view(fetch)[:] = 9
        assert (arena.view(put) == 7).all()
        stored = (tmp_path / arena.name).read_bytes()
        assert len(stored) == arena.size_bytes
        assert stored.startswith(arena.nonce)
        assert stored[put.offset : put.offset + half] == bytes([7]) * half
    finally:
        arena.close()


def test_a_closed_arena_leaves_no_file_and_keeps_its_bytes(tmp_path: Path) -> None:
    """Proves that closing unlinks, that a view taken before stays readable, and that closing twice is fine."""
    arena = Arena(1 << 16, tmp_path)
    slot = arena.puts.lease(100)
    assert slot is not None
    view = arena.view(slot)
    view[:] = 3
    arena.close()
    arena.close()
    assert list(tmp_path.iterdir()) == []
    assert np.array_equal(view, np.full(100, 3))


def test_a_file_system_without_room_is_an_error_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a full /dev/shm is an OSError before use rather than a SIGBUS in it, and leaves no file."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        Arena(1 << 16, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_arena_that_is_dropped_unclosed_is_unlinked(tmp_path: Path) -> None:
    """Proves that the file goes with its object, so that an error half-way leaves nothing."""
    arena = Arena(1 << 16, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    del arena
    assert list(tmp_path.iterdir()) == []


def test_only_arenas_of_dead_owners_are_removed(tmp_path: Path) -> None:
    """Proves with real processes that a killed owner's file is removed, and a live one's and a stranger's are not."""
    (tmp_path / "attnother").write_bytes(b"")
    owners = [
        subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        names = [one.stdout.readline().strip() for one in owners if one.stdout is not None]
        assert [name.split("-")[1] for name in names] == [str(one.pid) for one in owners]
        assert remove_abandoned(tmp_path) == 0
        owners[0].send_signal(signal.SIGKILL)
        owners[0].wait()
        assert remove_abandoned(tmp_path) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[1], "attnother"])
        # The live owner leaves in good order, and so does its file.
        owners[1].communicate("")
        assert [path.name for path in tmp_path.iterdir()] == ["attnother"]
    finally:
        for one in owners:
            one.kill()
            one.wait()
            for stream in (one.stdin, one.stdout):
                if stream is not None:
                    stream.close()
