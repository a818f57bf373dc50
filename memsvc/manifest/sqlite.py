"""The embedded manifest: one SQLite file.

    application_id  0x4d454d53, "MEMS"
    user_version    1
    sessions        name TEXT PRIMARY KEY, id TEXT UNIQUE, spec BLOB, created_unix_ms INTEGER, epoch INTEGER

Invariants:
    Each call is one transaction of one statement, written ahead (WAL) and fsynced (synchronous=FULL) before it returns.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from memsvc.errors import ManifestUnavailable, SessionExists, SessionNotFound
from memsvc.manifest.base import SessionEntries, SessionEntry

_APPLICATION_ID = 0x4D454D53
_SCHEMA_VERSION = 1
# How long another process that has the file open may keep us waiting.
_BUSY_TIMEOUT_S = 5.0
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE sessions (
    name TEXT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    spec BLOB NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    epoch INTEGER NOT NULL
) STRICT;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""
_COLUMNS = "name, id, spec, created_unix_ms, epoch"

# Set here because the class has a method called list.
_Rows = list[tuple[Any, ...]]


class SqliteManifest:
    """The sessions of a node, in the file at `path`; made if it is not there.

    Raises:
        ManifestUnavailable: The file cannot be opened, or is of another format or schema version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._errors_translated():
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors_translated():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def create(self, entry: SessionEntry) -> None:
        """Adds a session. Raises SessionExists if the name is taken; then nothing changed."""
        added = self._run(
            f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING RETURNING name",
            (entry.name, entry.id, entry.spec, entry.created_unix_ms, entry.epoch),
        )
        if not added:
            raise SessionExists(f"expected a name that is free, got {entry.name!r}")

    def get(self, name: str) -> SessionEntry | None:
        """The session of that name, if there is one."""
        rows = self._run(f"SELECT {_COLUMNS} FROM sessions WHERE name = ?", (name,))
        return SessionEntry(*rows[0]) if rows else None

    def list(self, after: str, count: int) -> SessionEntries:
        """The first `count` sessions whose names come after `after`, by name; "" comes before all."""
        rows = self._run(f"SELECT {_COLUMNS} FROM sessions WHERE name > ? ORDER BY name LIMIT ?", (after, count))
        return [SessionEntry(*row) for row in rows]

    def next_epoch(self, name: str, at_least: int) -> int:
        """Raises a session's epoch by one, or to `at_least` if that is more; returns it. Raises SessionNotFound."""
        rows = self._run(
            "UPDATE sessions SET epoch = max(epoch + 1, ?) WHERE name = ? RETURNING epoch", (at_least, name)
        )
        if not rows:
            raise SessionNotFound(f"expected the name of a session, got {name!r}")
        return int(rows[0][0])

    def raise_epoch(self, name: str, epoch: int) -> None:
        """Makes a session's epoch this one, if it is lower. Raises SessionNotFound."""
        if not self._run("UPDATE sessions SET epoch = max(epoch, ?) WHERE name = ? RETURNING epoch", (epoch, name)):
            raise SessionNotFound(f"expected the name of a session, got {name!r}")

    def require_held(self, name: str, epoch: int) -> None:
        """Passes everybody: the folder's lock keeps other nodes away, the session's own epoch earlier writers."""

    def check(self) -> None:
        """Passes if the file can be read."""
        self._run("SELECT 1 FROM sessions LIMIT 1", ())

    def announce(self, address: str) -> None:
        """Does nothing: no other node looks here."""

    def rename(self, name: str, to: str) -> None:
        """Gives a session another name; id, spec, time and epoch stay. Raises SessionNotFound, SessionExists."""
        # One statement: it changes nothing where the other name is taken, which the second one then tells apart.
        free = "NOT EXISTS (SELECT * FROM sessions WHERE name = ?1)"
        if not self._run(f"UPDATE sessions SET name = ?1 WHERE name = ?2 AND {free} RETURNING name", (to, name)):
            if self.get(name) is None:
                raise SessionNotFound(f"expected the name of a session, got {name!r}")
            raise SessionExists(f"expected a name that is free, got {to!r}")

    def delete(self, name: str) -> None:
        """Removes a session, and every trace of it. Raises SessionNotFound if there is none of that name."""
        if not self._run("DELETE FROM sessions WHERE name = ? RETURNING name", (name,)):
            raise SessionNotFound(f"expected the name of a session, got {name!r}")
        # What was written ahead holds rows as they were.
        self._run("PRAGMA wal_checkpoint(TRUNCATE)", ())

    def close(self) -> None:
        """Closes the file. A second call does nothing."""
        with self._lock, self._errors_translated():
            self._connection.close()

    def _prepare(self) -> None:
        run = self._connection.execute
        application_id = run("PRAGMA application_id").fetchone()[0]
        version = run("PRAGMA user_version").fetchone()[0]
        if (application_id, version) == (0, 0) and not run("SELECT * FROM sqlite_schema").fetchall():
            self._connection.executescript(_SCHEMA)
        elif (application_id, version) != (_APPLICATION_ID, _SCHEMA_VERSION):
            raise ManifestUnavailable(
                f"expected a manifest of schema version {_SCHEMA_VERSION} (application {_APPLICATION_ID:#x}), "
                f"got version {version} ({application_id:#x}), at {self._path}"
            )
        run("PRAGMA journal_mode = WAL").fetchall()
        run("PRAGMA synchronous = FULL")
        # What is deleted or renamed is overwritten: no byte of it stays in a page.
        run("PRAGMA secure_delete = ON").fetchall()

    def _run(self, statement: str, values: tuple[str | int | bytes, ...]) -> _Rows:
        """All rows of one statement; it is committed once its last row is read."""
        with self._lock, self._errors_translated(), closing(self._connection.cursor()) as cursor:
            rows: _Rows = cursor.execute(statement, values).fetchall()
        return rows

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ManifestUnavailable(f"expected a manifest that answers, got {error}, at {self._path}") from error
