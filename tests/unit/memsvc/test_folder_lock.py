"""One node a folder."""

import os
from pathlib import Path

import pytest

from memsvc.errors import StorageFailed, WrongState
from memsvc.folder_lock import FolderLock


def test_a_folder_is_locked_once_and_free_again(tmp_path: Path) -> None:
    """Proves that the second lock names folder and holder, and that closing the first lets the next one in."""
    folder = tmp_path / "new" / "folder"
    first = FolderLock(folder)
    with pytest.raises(WrongState, match=f"{folder}, held by process {os.getpid()}") as raised:
        FolderLock(folder)
    assert raised.value.reason == "DATA_FOLDER_LOCKED"
    first.close()
    FolderLock(folder).close()


def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    """Proves that a file in the folder's place is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match=f"got {tmp_path}/file"):
        FolderLock(tmp_path / "file")
