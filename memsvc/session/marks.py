"""Folders of sessions that are being made or deleted, so that a crash in the middle leaves neither half a session nor
bytes that nobody will ever delete.

    {id}/unfinished         from before anything else is in the folder until the manifest has the session
    {id}/fork-of-{parent}   in the folder of a fork, for as long as it is there
    deleted-{id}            a folder from the moment its deletion is certain until its files are gone

A folder that is in no manifest and has no such mark is left alone: not the session is lost then, but the manifest.

Invariants:
    What is marked is never opened as a session.
    Whatever fails, doing the same again, here or when the node starts, goes on from there.
Must not know: logs, blocks, what is open.
"""

import contextlib
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from memsvc.disk import create_file, disk_call, make_folder, sync_folder
from memsvc.errors import SessionHasForks
from memsvc.manifest import Manifest, SessionEntry
from memsvc.session.lineage import named
from memsvc.storage import Storage

_UNFINISHED = "unfinished"
_FORK_OF = "fork-of-"
_DELETED = "deleted-"
# Where `memsvc repair` puts what is damaged: DATA/quarantine/NNNN/sessions/{id}.
_QUARANTINE = "quarantine"
# Entries that one look into the manifest gives.
_PAGE = 1000


class FolderMarks:
    """Marks of the folders of all sessions.

    Args:
        sessions: Holds them; exists.

    Attributes:
        forking: To be held around `begin` of a fork and a look whether its parent is there, and around
            `require_no_forks` and what is done if there are none.

    Raises (each method): StorageFailed; ManifestUnavailable where it says what the manifest has.
    """

    def __init__(self, sessions: Path, manifest: Manifest, storage: Storage) -> None:
        self.forking = threading.Lock()
        self._sessions, self._manifest, self._storage = sessions, manifest, storage

    def folder(self, session_id: str) -> Path:
        """Where a session's files are, or are to be."""
        return self._sessions / session_id

    def begin(self, session_id: str, parent_id: str) -> None:
        """Makes a session's folder, marked as unfinished, and as a fork if `parent_id` is not empty. Durable."""
        folder, storage = self.folder(session_id), self._storage
        make_folder(folder, storage)
        storage.close(create_file(folder / _UNFINISHED, b"", storage))
        if parent_id:
            storage.close(create_file(folder / f"{_FORK_OF}{parent_id}", b"", storage))

    def finish(self, session_id: str) -> None:
        """The manifest has the session. Where this fails the mark may still be there, which does no harm. Durable."""
        folder = self.folder(session_id)
        with disk_call("take a mark off", folder):
            self._storage.remove(folder / _UNFINISHED)
        sync_folder(folder, self._storage)

    def abandon(self, session_id: str) -> None:
        """Removes a folder that did not become a session, if the disk lets us; else the node does when it starts."""
        with contextlib.suppress(OSError):
            self._storage.remove_tree(self.folder(session_id))

    def require_no_forks(self, entry: SessionEntry) -> None:
        """Raises SessionHasForks if other sessions share files of this one, also if they are being made or deleted."""
        mark = f"{_FORK_OF}{entry.id}"
        ids = [name.removeprefix(_DELETED) for name, marks in self._marked() if mark in marks]
        if ids:
            known = self._entries_of(ids)
            names = named(known[own].name if own in known else own for own in ids)
            raise SessionHasForks(f"expected session {entry.name!r} without forks, got {names}")

    def mark_deleted(self, session_id: str) -> None:
        """From here on the session is gone, whatever fails; one that is marked already, or has no folder, is fine."""
        folder = self.folder(session_id)
        with disk_call("mark a folder as deleted", folder), contextlib.suppress(FileNotFoundError):
            self._storage.rename(folder, self.folder(f"{_DELETED}{session_id}"))
        sync_folder(self._sessions, self._storage)

    def remove_deleted(self, session_id: str) -> None:
        """Removes the files of a session that is marked as deleted, and those that a repair put aside. Durable."""
        self._remove(self.folder(f"{_DELETED}{session_id}"))
        aside = self._sessions.parent / _QUARANTINE
        for number in self._names_in(aside) or ():
            self._remove(aside / number / self._sessions.name / session_id)

    def _remove(self, folder: Path) -> None:
        if self._names_in(folder) is not None:
            with disk_call("delete a folder", folder):
                self._storage.remove_tree(folder)
            sync_folder(folder.parent, self._storage)

    def collect(self) -> None:
        """Brings to an end what a crash cut off; before anything is opened."""
        for name, marks in [*self._marked()]:
            session_id = name.removeprefix(_DELETED)
            if name != session_id:
                for entry in self._entries_of([session_id]).values():
                    self._manifest.delete(entry.name)
                self.remove_deleted(session_id)
            elif _UNFINISHED in marks or not marks:
                if not self._entries_of([session_id]):
                    with disk_call("remove what did not become a session", folder := self.folder(name)):
                        self._storage.remove_tree(folder)
                elif marks:
                    self.finish(session_id)

    def _marked(self) -> Iterator[tuple[str, list[str]]]:
        """Names of the folders there are, and of what is in each."""
        with disk_call("list sessions", self._sessions):
            names = self._storage.names(self._sessions)
        for name in names:
            if (inside := self._names_in(self.folder(name))) is not None:
                yield name, inside

    def _names_in(self, folder: Path) -> list[str] | None:
        """None for what is no folder, or is none any more."""
        with disk_call("list a session", folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._storage.names(folder)
        return None

    def _entries_of(self, ids: Collection[str]) -> dict[str, SessionEntry]:
        """Of these sessions, those that the manifest has, by id."""
        found: dict[str, SessionEntry] = {}
        after = ""
        while page := self._manifest.list(after, _PAGE):
            found |= {entry.id: entry for entry in page if entry.id in ids}
            after = page[-1].name
        return found
