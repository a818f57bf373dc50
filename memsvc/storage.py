"""The disk, as the server calls it: one door, so that a test can refuse, lose or record any call.

Each method is one thing that a disk may refuse, with the meaning of the system call of that kind, and raises OSError.

Two kinds of bytes do not pass here: SQLite writes the manifest's file itself, and a finder library the file of a sealed
shard. A shard is checked when it is read back, and its sync and its name do pass.

Must not know: what the bytes mean; errors of the server, which `memsvc.disk` makes of OSError.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from memsvc.clock import Clock, SystemClock


class Storage(Protocol):
    """Files and folders; a descriptor is one that `open` or `duplicate` returned."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor, as os.open gives it; a file that this makes is its owner's alone."""
        ...

    def duplicate(self, descriptor: int) -> int:
        """Another descriptor of the same opening: it learns of the same failed writes."""
        ...

    def close(self, descriptor: int) -> None:
        """Lets go of a descriptor. Nothing is made durable."""
        ...

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> int:
        """Writes the pieces one after the other; returns how many bytes were taken."""
        ...

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """The bytes there are, at most so many."""
        ...

    def size(self, descriptor: int) -> int:
        """Length of the file in bytes."""
        ...

    def links(self, descriptor: int) -> int:
        """How many names the file has."""
        ...

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Makes the file so long."""
        ...

    def sync(self, descriptor: int) -> None:
        """Waits until what was written to the file, or the names in the folder, survive power loss."""
        ...

    def names(self, folder: Path) -> list[str]:
        """Names of what is in a folder."""
        ...

    def make_folder(self, path: Path) -> None:
        """Makes a folder and those above it; one that is there is fine."""
        ...

    def link(self, path: Path, to: Path) -> None:
        """Gives a file one more name."""
        ...

    def rename(self, path: Path, to: Path) -> None:
        """Gives a file or folder another name, in place of a file that has it."""
        ...

    def remove(self, path: Path) -> None:
        """Removes a file."""
        ...

    def remove_tree(self, path: Path) -> None:
        """Removes a folder with all that is in it."""
        ...


class SystemStorage:
    """The machine's own disk."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor, as os.open gives it; a file that this makes is its owner's alone."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def duplicate(self, descriptor: int) -> int:
        """Another descriptor of the same opening: it learns of the same failed writes."""
        return os.dup(descriptor)

    def close(self, descriptor: int) -> None:
        """Lets go of a descriptor. Nothing is made durable."""
        os.close(descriptor)

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> int:
        """Writes the pieces one after the other; returns how many bytes were taken."""
        return os.pwritev(descriptor, pieces, offset)

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """The bytes there are, at most so many."""
        return os.pread(descriptor, size_bytes, offset)

    def size(self, descriptor: int) -> int:
        """Length of the file in bytes."""
        return os.fstat(descriptor).st_size

    def links(self, descriptor: int) -> int:
        """How many names the file has."""
        return os.fstat(descriptor).st_nlink

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Makes the file so long."""
        os.ftruncate(descriptor, size_bytes)

    def sync(self, descriptor: int) -> None:
        """Waits until what was written to the file, or the names in the folder, survive power loss."""
        os.fsync(descriptor)

    def names(self, folder: Path) -> list[str]:
        """Names of what is in a folder."""
        return os.listdir(folder)

    def make_folder(self, path: Path) -> None:
        """Makes a folder and those above it; one that is there is fine."""
        path.mkdir(parents=True, exist_ok=True)

    def link(self, path: Path, to: Path) -> None:
        """Gives a file one more name."""
        to.hardlink_to(path)

    def rename(self, path: Path, to: Path) -> None:
        """Gives a file or folder another name, in place of a file that has it."""
        path.rename(to)

    def remove(self, path: Path) -> None:
        """Removes a file."""
        path.unlink()

    def remove_tree(self, path: Path) -> None:
        """Removes a folder with all that is in it."""
        shutil.rmtree(path)


@dataclass(frozen=True)
class Machine:
    """The disk and the clock that a node works with; the system's if nothing else is said."""

    storage: Storage = field(default_factory=SystemStorage)
    clock: Clock = field(default_factory=SystemClock)


# Neither has any state: one of each is enough.
MACHINE = Machine()
SYSTEM = MACHINE.storage
