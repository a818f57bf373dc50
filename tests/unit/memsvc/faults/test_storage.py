"""A disk under rules, on real files."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from memsvc.blocks import BlockStore
from memsvc.errors import CorruptBlock, StorageFailed
from memsvc.faults import FaultyStorage
from memsvc.metrics import Metrics
from protos.faults import DISK_PLACES, FaultPlan, Faults

DATA = bytes(range(256)) * 4


def _storage(*rules: dict[str, Any]) -> tuple[FaultyStorage, Faults]:
    faults = Faults(FaultPlan.parse(json.dumps({"rules": list(rules)}), DISK_PLACES))
    faults.switch(False)
    return FaultyStorage(faults, Metrics()), faults


def test_a_block_of_which_a_bit_is_read_wrong_is_refused_and_read_right_again(tmp_path: Path) -> None:
    """Proves that decay is found by the checksum wherever it hits, and that what is stored is untouched by it."""
    storage, faults = _storage({"place": "disk.read", "kind": "corrupt", "count": 20})
    store = BlockStore(tmp_path, storage=storage)
    ref = store.put(3, 0, DATA, google_crc32c.value(DATA))
    faults.switch(True)
    for _ in range(20):
        with pytest.raises(CorruptBlock):
            store.read(ref)
    assert store.read(ref) == DATA
    store.close()


def test_a_write_that_is_refused_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Proves that a full disk takes nothing, and has the system's own error."""
    storage, faults = _storage({"place": "disk.write", "kind": "error", "code": "ENOSPC"})
    descriptor = storage.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    storage.write(descriptor, [b"before"], 0)
    faults.switch(True)
    with pytest.raises(OSError, match="No space left") as raised:
        storage.write(descriptor, [b"after"], 0)
    assert raised.value.errno == errno.ENOSPC
    assert storage.read(descriptor, 100, 0) == b"before"
    storage.close(descriptor)


def test_a_refused_sync_ends_a_stores_writes_and_not_its_reads(tmp_path: Path) -> None:
    """Proves that the rule reaches what syncs, as a failing disk does."""
    storage, faults = _storage({"place": "disk.sync", "kind": "error", "count": 1})
    store = BlockStore(tmp_path, storage=storage)
    ref = store.put(3, 0, DATA, google_crc32c.value(DATA))
    faults.switch(True)
    with pytest.raises(StorageFailed, match="Input/output error"):
        store.sync()
    with pytest.raises(StorageFailed, match="out of use"):
        store.put(4, 0, DATA, google_crc32c.value(DATA))
    assert store.read(ref) == DATA
    store.close()


def test_a_slow_disk_takes_at_least_its_time(tmp_path: Path) -> None:
    """Proves that a delay is waited for, and that the call is made after it."""
    storage, faults = _storage({"place": "disk.read", "kind": "delay", "ms": 30, "count": 1})
    (tmp_path / "file").write_bytes(DATA)
    descriptor = storage.open(tmp_path / "file", os.O_RDONLY)
    faults.switch(True)
    began = time.monotonic()
    assert storage.read(descriptor, 4, 0) == DATA[:4]
    assert time.monotonic() - began >= 0.03
    storage.close(descriptor)
