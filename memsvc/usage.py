"""What a tenant keeps in a data folder: counted from the manifest and the sizes of files, without opening a session."""

import os
from collections.abc import Iterator
from pathlib import Path

from memsvc.auth.names import SEPARATOR
from memsvc.auth.quotas import Usage
from memsvc.manifest import Manifest

_PAGE = 1000


def usage_of(data: Path, manifest: Manifest, tenant: str) -> Usage:
    """The tenant's sessions, and the bytes of their files; a file that several sessions share counts once.

    Raises:
        ManifestUnavailable: The manifest cannot be read.
    """
    names: list[str] = []
    files: dict[tuple[int, int], int] = {}
    prefix = after = f"{tenant}{SEPARATOR}"
    while entries := [one for one in manifest.list(after, _PAGE) if one.name.startswith(prefix)]:
        for entry in entries:
            names.append(entry.name)
            files.update(((one.st_dev, one.st_ino), one.st_size) for one in _files(data / "sessions" / entry.id))
        after = names[-1]
    return Usage(frozenset(names), sum(files.values()))


def _files(folder: Path) -> Iterator[os.stat_result]:
    """Of every file below a folder; what goes while it is looked at is left out."""
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(place, name).lstat()
            except FileNotFoundError:
                continue
