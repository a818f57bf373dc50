"""A disk that refuses one call, or every change from one call on: nothing false is promised, and reading goes on.

Does not show: what a failed fsync leaves in the system's cache; calls of SQLite and of the finder libraries.
"""

import errno
from pathlib import Path

import pytest

from memsvc.errors import ManifestUnavailable, MemsvcError, StorageFailed
from tests.crash.promises import check
from tests.crash.script import Place, Run, operations
from tests.crash.storages import FailingStorage, HookedStorage, Killed
from tests.crash.volume import volume

OPERATIONS = 200
SEED = 11
MODES = [(errno.EIO, False), (errno.EIO, True), (errno.ENOSPC, False), (errno.ENOSPC, True)]


def _calls(folder: Path) -> int:
    """Calls that the script makes on a disk that works."""
    storage = HookedStorage()
    run = Run(folder / "whole", storage)
    run.play(operations(SEED, OPERATIONS))
    assert run.refusals == []
    run.end()
    storage.close_all()
    return storage.calls


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("code", "for_ever"), MODES)
def test_a_refused_call_promises_nothing_false(tmp_path: Path, code: int, for_ever: bool) -> None:
    """Proves, for calls n of a 200-operation script, that every error is typed, that what was acknowledged is read back
    while the disk refuses, that a restart on that disk fails by a typed error, and that one on a disk that works finds
    what was acknowledged and nothing else."""
    calls = _calls(tmp_path)
    assert calls > OPERATIONS
    apart = calls // volume(5, calls)
    chosen = range(1 + SEED % apart, calls + 1, apart)
    refused = read = 0
    for number in chosen:
        data, storage = tmp_path / str(number), FailingStorage(number, code, for_ever)
        run = Run(data, storage)
        run.play(operations(SEED, OPERATIONS))
        assert storage.refused, number
        refused += bool(run.refusals)
        assert all(isinstance(error, MemsvcError) and "\n" not in str(error) for error in run.refusals)
        read += run.read_back
        if for_ever:
            _restart(data, storage)
        run.end()
        storage.close_all()
        check(data, run.book, run.book.acked)
    # A call that tidies up may be refused without anybody minding; most may not.
    assert refused > len(chosen) // 2
    assert read


def _restart(data: Path, storage: FailingStorage) -> None:
    """A node that starts on a disk that still refuses says so."""
    try:
        place = Place(data, storage)
    except StorageFailed:
        return
    try:
        place.sessions.list(1000, "")
        place.sessions.sync()
        place.close()
    except (StorageFailed, ManifestUnavailable):
        pass
    except Killed:
        raise AssertionError("expected a disk that refuses, got one that ends the process") from None
