"""One node a data folder: an advisory lock on DIR/lock.

    DIR/lock    ASCII: process id of the node that holds it, for a person to read

Invariants:
    The kernel lets go of the lock when the process ends, however it ends; the file stays.
"""

import fcntl
import os
from pathlib import Path

from memsvc.errors import StorageFailed, WrongState
from memsvc.storage import SYSTEM, Storage


class FolderLock:
    """The lock of a data folder, held until `close`; makes the folder if it is not there.

    Raises:
        WrongState: Another node holds it (DATA_FOLDER_LOCKED).
        StorageFailed: The folder cannot be made or written.
    """

    def __init__(self, folder: Path, storage: Storage = SYSTEM) -> None:
        self._storage = storage
        try:
            storage.make_folder(folder)
            self._descriptor = storage.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StorageFailed(f"data folder: expected one to write to, got {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = storage.read(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            storage.close(self._descriptor)
            message = f"data folder: expected one without a node, got {folder}, held by process {holder}"
            raise WrongState(message, reason="DATA_FOLDER_LOCKED") from error
        storage.truncate(self._descriptor, 0)
        storage.write(self._descriptor, [f"{os.getpid()}\n".encode()], 0)

    def close(self) -> None:
        """Let go of the folder."""
        self._storage.close(self._descriptor)
