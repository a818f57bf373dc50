"""One node a data folder: an advisory lock on DIR/lock.

    DIR/lock    ASCII: process id of the node that holds it, for a person to read

Invariants:
    The kernel lets go of the lock when the process ends, however it ends; the file stays.
"""

import fcntl
import os
from pathlib import Path

from memsvc.errors import StorageFailed, WrongState


class FolderLock:
    """The lock of a data folder, held until `close`; makes the folder if it is not there.

    Raises:
        WrongState: Another node holds it (DATA_FOLDER_LOCKED).
        StorageFailed: The folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageFailed(f"data folder: expected one to write to, got {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            message = f"data folder: expected one without a node, got {folder}, held by process {holder}"
            raise WrongState(message, reason="DATA_FOLDER_LOCKED") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._descriptor)
