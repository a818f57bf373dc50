"""What power loss may leave of a folder: images made from the trace of a disk's changes, by seed.

Between two syncs of a file its sectors reach the disk at any time and in any order, each as it was at some moment; so
does its length. Names reach it in the order in which they were changed, as a journal keeps them, at the latest when
their folder is synced.

Does not model: a disk that lies about a sync, a sector that reads as bytes which were never written to it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.storages import Change

# How the sectors of what is not synced are chosen.
WAYS = ("none", "all", "one moment", "any moments", "any moments", "any moments")
SECTORS = (512, 4096)


@dataclass
class _File:
    """One file: as the last sync left it, and what was done to it since."""

    durable: bytes = b""
    since: list[Change] = field(default_factory=list)


@dataclass
class _Names:
    """Which file each path is, after each change of names; and after how many of them it is so for sure."""

    states: list[dict[Path, _File]]
    folders: list[set[Path]] = field(default_factory=lambda: [set()])
    durable: int = 0

    @property
    def now(self) -> dict[Path, _File]:
        """The newest state."""
        return self.states[-1]

    def change(self, state: dict[Path, _File]) -> None:
        """The names are these now."""
        changed = {path.parent for path in state.keys() ^ self.now.keys()}
        changed |= {path.parent for path in state.keys() & self.now.keys() if state[path] is not self.now[path]}
        if changed:
            self.states.append(state)
            self.folders.append(changed)

    def sync(self, folder: Path) -> None:
        """What was changed in the folder is durable."""
        self.durable = max([self.durable, *(at for at, own in enumerate(self.folders) if folder in own)])


def image(base: Mapping[Path, bytes], changes: Sequence[Change], seed: int) -> dict[Path, bytes]:
    """The files that are there after power was lost once these changes were made.

    Args:
        base: Files that were there before, all durable.
    """
    generator = random.Random(seed)
    names = _names(base, changes)
    left = generator.choice(
        [names.durable, len(names.states) - 1, generator.randint(names.durable, len(names.states) - 1)]
    )
    return {path: _content(file, generator) for path, file in names.states[left].items()}


def files_below(folder: Path) -> dict[Path, bytes]:
    """All files with their bytes."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _names(base: Mapping[Path, bytes], changes: Sequence[Change]) -> _Names:
    """The names and files that these changes lead to, with what is durable of each."""
    names = _Names([{path: _File(content) for path, content in base.items()}])
    for change in changes:
        if change.kind in ("write", "truncate"):
            names.now[change.path].since.append(change)
        elif change.kind == "sync" and change.path in names.now:
            file = names.now[change.path]
            file.durable, file.since = _moments(file)[-1], []
        elif change.kind == "sync":
            names.sync(change.path)
        else:
            names.change(_renamed(names.now, change))
    return names


def _renamed(now: Mapping[Path, _File], change: Change) -> dict[Path, _File]:
    """The names after a change of them; of a folder, all in it follow."""
    if change.kind == "create":
        return {change.path: _File(), **now}
    if change.kind == "link":
        assert change.to is not None
        return {**now, change.to: now[change.path]}
    inside = {path: file for path, file in now.items() if path.is_relative_to(change.path)}
    left = {path: file for path, file in now.items() if path not in inside}
    if change.kind == "rename":
        assert change.to is not None
        left |= {change.to / path.relative_to(change.path): file for path, file in inside.items()}
    return left


def _moments(file: _File) -> list[bytes]:
    """The file's bytes as last synced, and after each change since."""
    content = bytearray(file.durable)
    moments = [bytes(content)]
    for change in file.since:
        if change.kind == "truncate":
            content = content[: change.offset] + bytes(max(0, change.offset - len(content)))
        else:
            content += bytes(max(0, change.offset - len(content)))
            content[change.offset : change.offset + len(change.data)] = change.data
        moments.append(bytes(content))
    return moments


def _content(file: _File, generator: random.Random) -> bytes:
    """What is left of a file."""
    way, sector_bytes = generator.choice(WAYS), generator.choice(SECTORS)
    if not file.since or way == "none":
        return file.durable
    moments = _moments(file)
    if way == "all":
        return moments[-1]
    if way == "one moment":
        return generator.choice(moments)
    length = len(generator.choice(moments))
    sectors = []
    for start in range(0, length, sector_bytes):
        end = min(length, start + sector_bytes)
        own = generator.choice(moments)[start:end]
        sectors.append(own + bytes(end - start - len(own)))
    return b"".join(sectors)
