"""Disk calls: all of the work, or a StorageFailed that says what and where."""

import os
from pathlib import Path

import pytest

from memsvc.disk import create_file, sync_file, sync_folder, write_at
from memsvc.errors import StorageFailed
from tests.disk_faults import files_end_at, fsync_fails


def test_a_created_file_begins_with_its_head(tmp_path: Path) -> None:
    """Proves that the file has its head, can be read and written, and is the owner's alone."""
    descriptor = create_file(tmp_path / "file", b"head")
    write_at(descriptor, [b"ta", b"il"], 4, tmp_path / "file")
    assert os.pread(descriptor, 100, 0) == b"headtail"
    os.close(descriptor)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_file_that_exists_is_not_created_again(tmp_path: Path) -> None:
    """Proves that nothing is overwritten, and that the message names the path."""
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(StorageFailed, match=f"create a file, got File exists, at {path}"):
        create_file(path, b"head")
    assert path.read_bytes() == b"mine"


def test_a_file_whose_head_does_not_fit_is_removed(tmp_path: Path) -> None:
    """Proves that a creation that failed can be tried again."""
    with files_end_at(2), pytest.raises(StorageFailed):
        create_file(tmp_path / "file", b"head")
    assert list(tmp_path.iterdir()) == []
    os.close(create_file(tmp_path / "file", b"head"))


@pytest.mark.parametrize(("limit", "got"), [(2, "2 written"), (0, "File too large")])
def test_a_write_that_is_cut_short_is_an_error(tmp_path: Path, limit: int, got: str) -> None:
    """Proves that a part written is never taken for the whole."""
    descriptor = create_file(tmp_path / "file", b"")
    with files_end_at(limit), pytest.raises(StorageFailed, match=f"write 4 bytes at offset 0, got {got}"):
        write_at(descriptor, [b"ab", b"cd"], 0, tmp_path / "file")
    os.close(descriptor)


def test_an_fsync_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that neither a file nor a folder passes for synced when it is not."""
    descriptor = create_file(tmp_path / "file", b"")
    with fsync_fails(monkeypatch):
        with pytest.raises(StorageFailed, match="expected to fsync, got Input/output error"):
            sync_file(descriptor, tmp_path / "file")
        with pytest.raises(StorageFailed, match="expected to fsync a folder, got Input/output error"):
            sync_folder(tmp_path)
    os.close(descriptor)
