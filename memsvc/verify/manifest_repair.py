"""Makes the manifest's file agree with the sessions that are there.

Invariants:
    An epoch never falls: it is the largest that the log or the old manifest knows.
    A session keeps its name unless another one has it.
"""

from collections.abc import Iterable
from pathlib import Path

from memsvc.log_format import FILE_NAME as LOG
from memsvc.manifest import SessionEntry, SqliteManifest
from memsvc.verify.folder_check import FolderCheck, readable
from memsvc.verify.manifest_file import FILE_NAME
from memsvc.verify.quarantine import Quarantine
from memsvc.verify.session_check import SessionCheck

# What SQLite keeps beside its file.
_SUFFIXES = ("", "-wal", "-shm")


def repair_manifest(data: Path, check: FolderCheck, quarantine: Quarantine, done: list[str], lost: list[str]) -> None:
    """Repairs the manifest of a folder whose sessions are repaired; says in `done` and `lost` what became of it.

    Raises:
        ManifestUnavailable, StorageFailed: It cannot be written.
    """
    wanted = _wanted(data, check, lost)
    if not check.manifest.problem and sorted(wanted, key=_key) == sorted(check.manifest.entries, key=_key):
        return
    path = data / FILE_NAME
    kept = quarantine.move if check.manifest.problem else quarantine.copy
    for suffix in _SUFFIXES:
        if (own := path.with_name(path.name + suffix)).exists():
            kept(own)
    manifest = SqliteManifest(path)
    try:
        _write(manifest, () if check.manifest.problem else check.manifest.entries, wanted)
    finally:
        manifest.close()
    done.append(f"manifest: {len(wanted)} sessions, as their logs say")


def _wanted(data: Path, check: FolderCheck, lost: list[str]) -> list[SessionEntry]:
    """The entries that there should be."""
    old = {entry.id: entry for entry in check.manifest.entries}
    for entry in check.manifest.entries:
        if entry.id not in check.sessions:
            lost.append(f"session {entry.name}: its folder sessions/{entry.id} is gone, and so is its entry now")
    wanted: list[SessionEntry] = []
    # Those that had an entry first: they keep their names.
    for own in sorted(check.sessions.values(), key=lambda own: own.id not in old):
        made = _entry(data, own, old.get(own.id))
        if made is None:
            continue
        entry = made
        if entry.name in {other.name for other in wanted}:
            name = f"{entry.name[:100]}-{entry.id[:8]}"
            lost.append(f"session {entry.name}: its name, which another one has: it is {name} now")
            entry = SessionEntry(name, entry.id, entry.spec, entry.created_unix_ms, entry.epoch)
        wanted.append(entry)
    return wanted


def _entry(data: Path, session: SessionCheck, old: SessionEntry | None) -> SessionEntry | None:
    """What a session's entry should be; the old one where its log is not to be read by this version."""
    if session.spec is None:
        return old
    spec = session.spec.SerializeToString(deterministic=True)
    epoch = session.outline.epoch
    if old is not None:
        same = readable(old) is not None and session.spec.FromString(old.spec) == session.spec
        return SessionEntry(old.name, old.id, old.spec if same else spec, old.created_unix_ms, max(old.epoch, epoch))
    # No log says when its session was made; its folder's file was written since.
    created = int((data / "sessions" / session.id / LOG).stat().st_mtime * 1000)
    return SessionEntry(session.name or session.id, session.id, spec, created, epoch)


def _write(manifest: SqliteManifest, there: Iterable[SessionEntry], wanted: Iterable[SessionEntry]) -> None:
    kept = set(wanted)
    for entry in there:
        if entry not in kept:
            manifest.delete(entry.name)
    known = set(there)
    for entry in wanted:
        if entry not in known:
            manifest.create(entry)


def _key(entry: SessionEntry) -> str:
    return entry.id
