"""A whole data folder, read while no server runs in it: manifest, folders and sessions against each other."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from memsvc.disk import disk_call, opened
from memsvc.errors import StorageFailed, WrongState
from memsvc.manifest import SessionEntry
from memsvc.storage import SYSTEM, Storage
from memsvc.verify.findings import Finding, Report, Severity
from memsvc.verify.manifest_file import FILE_NAME, ManifestCheck, check_manifest_file
from memsvc.verify.reading import names_in
from memsvc.verify.session_check import SessionCheck, check_session
from protos.memsvc.v1 import types_pb2

_ID = re.compile(r"[0-9a-f]{32}")
# In the folder of a session whose making a crash cut off.
_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class FolderCheck:
    """What was read of a data folder; sessions by id."""

    manifest: ManifestCheck
    sessions: dict[str, SessionCheck]
    findings: tuple[Finding, ...]

    def report(self) -> Report:
        """The same for people and programs."""
        return Report(tuple(own.report() for own in self.sessions.values()), self.findings)


def verify_folder(data: Path, storage: Storage = SYSTEM) -> Report:
    """Reads a data folder and changes nothing.

    Raises:
        WrongState: A server runs in it (DATA_FOLDER_LOCKED).
        StorageFailed: It is none, or the disk refused.
    """
    with no_server(data, storage):
        return check_folder(data, storage).report()


def check_folder(data: Path, storage: Storage) -> FolderCheck:
    """As `verify_folder`, with the folder held already, and all that was read. Raises StorageFailed."""
    manifest = check_manifest_file(data)
    entries = {entry.id: entry for entry in manifest.entries}
    findings = [Finding(Severity.DAMAGE, FILE_NAME, "", manifest.problem)] if manifest.problem else []
    sessions = {}
    for name in names_in(data / "sessions", storage):
        folder = data / "sessions" / name
        if not _ID.fullmatch(name) or (name not in entries and (folder / _UNFINISHED).exists()):
            message = "expected the folder of a session, got one that a server removes when it starts"
            findings.append(Finding(Severity.NOTE, f"sessions/{name}", "", message))
            continue
        sessions[name] = check_session(folder, readable(entries.get(name)), storage)
    for entry in manifest.entries:
        findings += _against(entry, sessions.get(entry.id))
    for own in sessions.values():
        if own.id not in entries:
            message = f"expected an entry of session {own.name!r}, got none"
            findings.append(Finding(Severity.DAMAGE, FILE_NAME, f"id {own.id}", message))
    return FolderCheck(manifest, sessions, tuple(findings))


def readable(entry: SessionEntry | None) -> SessionEntry | None:
    """The entry, unless its spec is none."""
    if entry is None:
        return None
    try:
        types_pb2.SessionSpec.FromString(entry.spec)
    except DecodeError:
        return None
    return entry


@contextmanager
def no_server(data: Path, storage: Storage) -> Iterator[None]:
    """Keeps servers out of a data folder, without writing there.

    Raises:
        WrongState: A server runs in it (DATA_FOLDER_LOCKED).
        StorageFailed: It is no folder, or the disk refused.
    """
    if not data.is_dir():
        raise StorageFailed(f"data folder: expected a folder, got {data}")
    path = data / "lock"
    if not path.is_file():
        # No server ever ran here, and so none does.
        yield
        return
    with disk_call("look at a data folder's lock", path), opened(path, os.O_RDONLY, storage) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = storage.read(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            message = f"data folder: expected one without a server, got {data}, held by process {holder}"
            raise WrongState(f"{message}: ask the server, with --memory", reason="DATA_FOLDER_LOCKED") from error
        yield


def _against(entry: SessionEntry, session: SessionCheck | None) -> list[Finding]:
    """What manifest and folder say differently of one session; specs are compared with the session."""
    place = f"session {entry.name!r}"
    if session is None:
        message = f"expected folder sessions/{entry.id}, got none"
        return [Finding(Severity.DAMAGE, FILE_NAME, place, message)]
    found = []
    if readable(entry) is None:
        found.append(Finding(Severity.DAMAGE, FILE_NAME, place, "expected a spec, got bytes that are none"))
    if session.spec is not None and session.name != entry.name:
        # The manifest is written first; its own index vouches for the name.
        message = f"expected the name {session.name!r}, as its log says, got {entry.name!r}: a crash cut a rename off"
        found.append(Finding(Severity.NOTE, FILE_NAME, place, message))
    if entry.epoch < session.outline.epoch:
        message = f"expected an epoch of at least {session.outline.epoch}, as in its log, got {entry.epoch}"
        found.append(Finding(Severity.DAMAGE, FILE_NAME, place, message))
    return found
