"""Files of sealed shards on a disk that refuses."""

from pathlib import Path

import pytest

from memsvc.errors import StorageFailed
from memsvc.shards.files import store, stored
from tests.disk_faults import files_end_at, fsync_fails

DIGEST = "ab" * 16


def _write(path: str) -> None:
    Path(path).write_bytes(b"shard")


def test_what_was_stored_is_found_again_and_replaced(tmp_path: Path) -> None:
    """Proves that a file is found by what it was made of, and that another of the same place takes its name away."""
    path = store(tmp_path, "hnsw", 0, DIGEST, _write)
    assert stored(tmp_path, "hnsw", 0, DIGEST) == path
    other = store(tmp_path, "hnsw", 0, "cd" * 16, _write)
    assert list(tmp_path.iterdir()) == [other]
    assert stored(tmp_path, "hnsw", 0, DIGEST) is None


def test_a_shard_of_another_version_is_made_anew(tmp_path: Path) -> None:
    """Proves that a whole file of another version is not read, and that the one made instead takes its place."""
    path = store(tmp_path, "hnsw", 0, DIGEST, _write)
    assert path.name.endswith(".v1.bin")
    path.rename(tmp_path / path.name.replace(".v1.", ".v2."))
    assert stored(tmp_path, "hnsw", 0, DIGEST) is None
    again = store(tmp_path, "hnsw", 0, DIGEST, _write)
    assert list(tmp_path.iterdir()) == [again]


def test_a_disk_that_refuses_is_a_storage_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that neither a write, an fsync nor a missing folder shows as an error of the system, and that a later
    try succeeds."""
    with files_end_at(0), pytest.raises(StorageFailed, match="expected to write a shard, got File too large, at "):
        store(tmp_path, "hnsw", 0, DIGEST, _write)
    with fsync_fails(monkeypatch), pytest.raises(StorageFailed, match="expected to fsync, got Input/output error"):
        store(tmp_path, "hnsw", 0, DIGEST, _write)
    with pytest.raises(StorageFailed, match="expected to write a shard, got No such file or directory"):
        store(tmp_path / "gone", "hnsw", 0, DIGEST, _write)
    path = store(tmp_path, "hnsw", 0, DIGEST, _write)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_read_is_a_storage_failure(tmp_path: Path) -> None:
    """Proves that a shard which is there but unreadable is not taken for one that is missing."""
    (folder := tmp_path / f"hnsw-0-{DIGEST}-00000000.v1.bin").mkdir()
    with pytest.raises(StorageFailed, match=f"expected to read a shard, got Is a directory, at {folder}"):
        stored(tmp_path, "hnsw", 0, DIGEST)
