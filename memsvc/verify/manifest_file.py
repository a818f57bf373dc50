"""The manifest's file, read as it is: a copy of it is opened, since SQLite writes beside what it reads."""

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from memsvc.disk import disk_call
from memsvc.manifest import SessionEntry

FILE_NAME = "manifest.sqlite"
# What SQLite keeps beside a file in WAL mode; the -shm is rebuilt from it.
WAL_SUFFIX = "-wal"

_APPLICATION_ID, _SCHEMA_VERSION = 0x4D454D53, 1


@dataclass(frozen=True, slots=True)
class ManifestCheck:
    """What the file holds.

    Args:
        entries: By name; those that can be read if it is damaged.
        problem: What is wrong with the file; empty if nothing is.
    """

    entries: tuple[SessionEntry, ...]
    problem: str


def check_manifest_file(data: Path) -> ManifestCheck:
    """Reads the manifest of a data folder. Raises StorageFailed."""
    path = data / FILE_NAME
    if not path.is_file():
        return ManifestCheck((), "expected a manifest, got no file")
    with disk_call("copy a manifest", path), tempfile.TemporaryDirectory(prefix="memsvc-") as folder:
        copy = Path(folder) / FILE_NAME
        for suffix in ("", WAL_SUFFIX):
            if (own := path.with_name(path.name + suffix)).is_file():
                shutil.copyfile(own, copy.with_name(copy.name + suffix))
        return _read(copy)


def _read(path: Path) -> ManifestCheck:
    entries: list[SessionEntry] = []
    try:
        with closing(sqlite3.connect(path)) as connection:
            run = connection.execute
            found = run("PRAGMA application_id").fetchone()[0], run("PRAGMA user_version").fetchone()[0]
            expected = _APPLICATION_ID, _SCHEMA_VERSION
            problem = "" if found == expected else f"expected application id and version {expected}, got {found}"
            for row in run("SELECT name, id, spec, created_unix_ms, epoch FROM sessions ORDER BY name"):
                entries.append(SessionEntry(*row))
            told = [str(row[0]) for row in run("PRAGMA integrity_check")]
            if told != ["ok"]:
                problem = problem or f"expected a whole database, got {' '.join(told[0].split())}"
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        problem = f"expected a database, got {error}"
    return ManifestCheck(tuple(own for own in entries if _is_entry(own)), problem or _odd(entries))


def _odd(entries: Sequence[SessionEntry]) -> str:
    """What SQLite lets pass and no server wrote."""
    odd = [own for own in entries if not _is_entry(own)]
    return f"expected rows of sessions, got {odd[0].name!r:.160}" if odd else ""


def _is_entry(entry: SessionEntry) -> bool:
    types = (entry.name, str), (entry.id, str), (entry.spec, bytes), (entry.created_unix_ms, int), (entry.epoch, int)
    if not all(isinstance(value, expected) for value, expected in types):
        return False
    return len(entry.id) == 32 and all(digit in "0123456789abcdef" for digit in entry.id)
