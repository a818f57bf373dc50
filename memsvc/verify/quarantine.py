"""Where repairs set damaged files aside: nothing is ever deleted.

    DIR/quarantine/0001/...         of the first repair that had something to do; paths as they were in DIR
    DIR/quarantine/0001/report.txt  what was done, and what was lost

No server looks there. Who has what is needed removes it; until then it holds bytes of sessions that may be deleted by
now.
"""

from collections.abc import Iterable
from pathlib import Path

from memsvc.disk import create_file, disk_call, make_folder, reading, sync_file, sync_folder, write_at
from memsvc.storage import Storage
from memsvc.verify.reading import names_in

_FOLDER = "quarantine"
_READ_BYTES = 1 << 20


class Quarantine:
    """The folder of one repair, made when it is needed first.

    Attributes:
        path: None as long as nothing was set aside.
    """

    def __init__(self, data: Path, storage: Storage) -> None:
        self.path: Path | None = None
        self._data = data
        self._storage = storage

    def move(self, path: Path) -> None:
        """Sets a file or a folder aside. Durable. Raises StorageFailed."""
        target = self._target(path)
        with disk_call("set aside", path):
            self._storage.rename(path, target)
        for folder in (target.parent, path.parent):
            sync_folder(folder, self._storage)

    def copy(self, path: Path) -> None:
        """Keeps a copy of a file that is to be replaced. Durable. Raises StorageFailed."""
        target = self._target(path)
        descriptor = create_file(target, b"", self._storage)
        try:
            with disk_call("copy a file", path), reading(path, self._storage) as file:
                at = 0
                while piece := file.read(_READ_BYTES):
                    write_at(descriptor, [piece], at, target, self._storage)
                    at += len(piece)
            sync_file(descriptor, target, self._storage)
        finally:
            self._storage.close(descriptor)

    def note(self, lines: Iterable[str]) -> None:
        """Writes down what was done, where anything was set aside. Raises StorageFailed."""
        if self.path is None:
            return
        text = "".join(f"{line}\n" for line in lines).encode()
        path = self.path / "report.txt"
        self._storage.close(create_file(path, text, self._storage))

    def _target(self, path: Path) -> Path:
        if self.path is None:
            self.path = self._begin()
        target = self.path / path.relative_to(self._data)
        make_folder(target.parent, self._storage)
        return target

    def _begin(self) -> Path:
        numbers = [int(name) for name in names_in(self._data / _FOLDER, self._storage) if name.isdigit()]
        path = self._data / _FOLDER / f"{max(numbers, default=0) + 1:04d}"
        make_folder(path, self._storage)
        for folder in (self._data, path.parent):
            sync_folder(folder, self._storage)
        return path
