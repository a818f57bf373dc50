"""Disks for tests, over real files: one that refuses a call, one that ends the process at a call, one that takes notes.

None of them really syncs: the page cache outlives all that happens here, and what it does not show a trace does.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from memsvc.storage import SystemStorage

# What changes the disk, or makes sure of it.
CHANGES = frozenset(("create", "write", "truncate", "sync", "make_folder", "link", "rename", "remove", "remove_tree"))


class Killed(BaseException):
    """The process is gone: no handler of the product may take this for an error."""


@dataclass(frozen=True)
class Call:
    """One call of a disk.

    Args:
        number: From 1.
        kind: Name of the method; `create` for an `open` that makes a file.
        path: Of the file or folder.
    """

    number: int
    kind: str
    path: Path

    @property
    def role(self) -> str:
        """What the file is to a session: log, blocks, shard, folder or other."""
        name = self.path.name
        if name == "log":
            return "log"
        if name.startswith("blocks-"):
            return "blocks"
        if name.endswith((".bin", ".tmp")):
            return "shard"
        return "other" if self.path.is_file() or name == "lock" else "folder"


class HookedStorage(SystemStorage):
    """A disk that tells of each call before and after it is carried out. Concurrency: one call at a time."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.RLock()
        self._paths: dict[int, Path] = {}

    def before(self, call: Call) -> None:
        """May raise, so that the call is not carried out."""

    def after(self, call: Call) -> None:
        """May raise, so that its caller does not learn that it was."""

    def taken(self, call: Call, size_bytes: int) -> int:
        """How many bytes of a write are carried out."""
        return size_bytes

    @contextmanager
    def _called(self, kind: str, path: Path) -> Iterator[Call]:
        with self._lock:
            self.calls += 1
            call = Call(self.calls, kind, path)
            self.before(call)
            yield call
            self.after(call)

    def open(self, path: Path, flags: int) -> int:
        with self._called("create" if flags & os.O_CREAT else "open", path):
            descriptor = super().open(path, flags)
            self._paths[descriptor] = path
            return descriptor

    def duplicate(self, descriptor: int) -> int:
        with self._called("duplicate", self._paths[descriptor]):
            copy = super().duplicate(descriptor)
            self._paths[copy] = self._paths[descriptor]
            return copy

    def close(self, descriptor: int) -> None:
        with self._lock:
            self._paths.pop(descriptor, None)
            super().close(descriptor)

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> int:
        with self._called("write", self._paths[descriptor]) as call:
            data = b"".join(pieces)
            return super().write(descriptor, [data[: self.taken(call, len(data))]], offset)

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        with self._called("read", self._paths[descriptor]):
            return super().read(descriptor, size_bytes, offset)

    def size(self, descriptor: int) -> int:
        with self._called("size", self._paths[descriptor]):
            return super().size(descriptor)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        with self._called("truncate", self._paths[descriptor]):
            super().truncate(descriptor, size_bytes)

    def sync(self, descriptor: int) -> None:
        with self._called("sync", self._paths[descriptor]):
            pass

    def names(self, folder: Path) -> list[str]:
        with self._called("names", folder):
            return super().names(folder)

    def make_folder(self, path: Path) -> None:
        with self._called("make_folder", path):
            super().make_folder(path)

    def link(self, path: Path, to: Path) -> None:
        with self._called("link", to):
            super().link(path, to)

    def rename(self, path: Path, to: Path) -> None:
        with self._called("rename", path):
            super().rename(path, to)

    def remove(self, path: Path) -> None:
        with self._called("remove", path):
            super().remove(path)

    def remove_tree(self, path: Path) -> None:
        with self._called("remove_tree", path):
            super().remove_tree(path)

    def close_all(self) -> None:
        """Lets go of every descriptor, as the end of a process does."""
        with self._lock:
            for descriptor in [*self._paths]:
                self.close(descriptor)


class FailingStorage(HookedStorage):
    """A disk that refuses its n-th call, or from then on every call that changes it.

    Args:
        code: Of the error. With ENOSPC a write takes its first half; the next one is refused.
    """

    def __init__(self, number: int, code: int, for_ever: bool) -> None:
        super().__init__()
        self._number, self._code, self._for_ever = number, code, for_ever
        self.refused = 0

    def _hit(self, call: Call) -> bool:
        if self._for_ever:
            return call.number >= self._number and call.kind in CHANGES
        return call.number == self._number

    def _short(self, call: Call) -> bool:
        return call.kind == "write" and self._code == errno.ENOSPC and not self.refused

    def before(self, call: Call) -> None:
        if self._hit(call) and not self._short(call):
            self.refused += 1
            raise OSError(self._code, os.strerror(self._code))

    def taken(self, call: Call, size_bytes: int) -> int:
        if self._hit(call) and self._short(call):
            self.refused += 1
            return size_bytes // 2
        return size_bytes


class CrashingStorage(HookedStorage):
    """A disk whose process ends at the n-th call that a crash point names; nothing reaches the disk afterwards.

    Args:
        hit: Whether a call is one that the point names.
        moment: "before" or "after" it is carried out, or "within", for a write of which a part is.
        share: Of that part.
    """

    def __init__(self, hit: Callable[[Call], bool], occurrence: int, moment: str, share: float = 0.5) -> None:
        super().__init__()
        self._hit, self._moment, self._share = hit, moment, share
        self._left = occurrence
        self.dead = False

    def before(self, call: Call) -> None:
        if self.dead:
            raise Killed
        if self._hit(call):
            self._left -= 1
            if self._left == 0 and self._moment == "before":
                self._die()

    def taken(self, call: Call, size_bytes: int) -> int:
        return int(size_bytes * self._share) if self._now(call) and self._moment == "within" else size_bytes

    def after(self, call: Call) -> None:
        if self._now(call) and self._moment != "before":
            self._die()

    def _now(self, call: Call) -> bool:
        return self._left == 0 and self._hit(call)

    def _die(self) -> None:
        self.dead = True
        raise Killed


@dataclass(frozen=True)
class Change:
    """One entry of a trace: what a call did to a path.

    Args:
        data: Of a write.
        offset: Of a write; the length that a truncate made.
        to: The new name of a rename or link.
    """

    kind: str
    path: Path
    data: bytes = b""
    offset: int = 0
    to: Path | None = None


@dataclass
class Trace:
    """All changes of a disk, in order."""

    changes: list[Change] = field(default_factory=list)


class RecordingStorage(HookedStorage):
    """A disk that keeps a trace of what changes it and of what is synced."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> int:
        with self._lock:
            written = super().write(descriptor, pieces, offset)
            self._note(Change("write", self._paths[descriptor], b"".join(pieces)[:written], offset))
            return written

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        with self._lock:
            super().truncate(descriptor, size_bytes)
            self._note(Change("truncate", self._paths[descriptor], offset=size_bytes))

    def link(self, path: Path, to: Path) -> None:
        with self._lock:
            super().link(path, to)
            self._note(Change("link", path, to=to))

    def rename(self, path: Path, to: Path) -> None:
        with self._lock:
            super().rename(path, to)
            self._note(Change("rename", path, to=to))

    def after(self, call: Call) -> None:
        if call.kind in ("create", "sync", "remove", "remove_tree"):
            self._note(Change(call.kind, call.path))

    def _note(self, change: Change) -> None:
        self.trace.changes.append(change)
