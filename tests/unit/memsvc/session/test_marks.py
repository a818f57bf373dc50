"""Sessions that are half made or half deleted: nothing of them is left, and nothing of others goes."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from memsvc.errors import (
    CorruptLog,
    ManifestUnavailable,
    SessionHasForks,
    SessionHasSnapshots,
    SessionNotFound,
    StorageFailed,
)
from memsvc.manifest import SqliteManifest
from memsvc.storage import Machine, Storage, SystemStorage
from tests.session_driver import Node, Text, memory_of, session_spec

TEXT = Text(600)


class Refusing(SystemStorage):
    """A disk that refuses one kind of call, once it is told to.

    Attributes:
        refused: Name of the method.
    """

    def __init__(self) -> None:
        self.refused = ""

    def rename(self, path: Path, to: Path) -> None:
        """As the machine's."""
        self._refuse("rename")
        super().rename(path, to)

    def remove_tree(self, path: Path) -> None:
        """As the machine's."""
        self._refuse("remove_tree")
        super().remove_tree(path)

    def remove(self, path: Path) -> None:
        """As the machine's."""
        self._refuse("remove")
        super().remove(path)

    def _refuse(self, name: str) -> None:
        if self.refused == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def disk() -> Refusing:
    return Refusing()


@pytest.fixture
def frail(tmp_path: Path, disk: Refusing) -> Iterator[Node]:
    """A node on such a disk, with a session named book that has something in it."""
    node = _on(tmp_path / "data", disk)
    node.create()
    writer = node.open()
    writer.read(TEXT, [300])
    writer.save_tail()
    node.sessions.close_attachment("one")
    yield node
    disk.refused = ""
    node.close()


def _on(data: Path, disk: Storage) -> Node:
    return Node(data, machine=Machine(disk))


def _folders(node: Node) -> list[str]:
    return sorted(path.name for path in (node.data / "sessions").iterdir())


def test_a_session_with_forks_is_not_deleted(node: Node) -> None:
    """Proves that the error names the forks as they are called now, and that deleting the last frees the parent."""
    writer = node.open()
    writer.read(TEXT, [300])
    writer.save_tail()
    node.sessions.close_attachment("one")
    node.sessions.fork("book", "", "f1")
    node.sessions.fork("book", "", "f2")
    node.sessions.fork("f1", "", "deep")
    node.sessions.rename("f2", "second")
    with pytest.raises(SessionHasForks, match=r"'f1', 'second'$"):
        node.sessions.delete("book")
    with pytest.raises(SessionHasForks, match=r"'deep'$"):
        node.crash().sessions.delete("f1")
    assert node.sessions.get("book").info().tokens == 300
    for name in ("deep", "second", "f1", "book"):
        node.sessions.delete(name)
    assert _folders(node) == []


def test_a_session_with_snapshots_is_not_deleted(node: Node) -> None:
    """Proves that the error names them, whether the session is open or not, and that it goes once they are dropped."""
    for name in ("b", "a"):
        node.sessions.create_snapshot("book", name)
    with pytest.raises(SessionHasSnapshots, match=r"'a', 'b'$"):
        node.sessions.delete("book")
    again = node.crash()
    with pytest.raises(SessionHasSnapshots, match=r"'a', 'b'$"):
        again.sessions.delete("book")
    assert len(again.sessions.get("book").list_snapshots()) == 2
    for name in ("b", "a"):
        again.sessions.drop_snapshot("book", name)
    again.sessions.delete("book")
    assert _folders(node) == []
    again.close()


def test_a_damaged_session_is_deleted_whatever_it_named(node: Node) -> None:
    """Proves that snapshots which cannot be read any more do not keep a session for ever."""
    node.sessions.create_snapshot("book", "lost")
    node.crash().close()
    next(node.data.glob("sessions/*/log")).write_bytes(b"broken")
    again = node.crash()
    with pytest.raises(CorruptLog):
        again.sessions.get("book")
    again.sessions.delete("book")
    assert _folders(node) == []
    again.close()


@pytest.mark.parametrize("refused", ["rename", "remove_tree"])
def test_a_deletion_that_the_disk_refuses_is_not_forgotten(frail: Node, disk: Refusing, refused: str) -> None:
    """Proves that what could not be deleted is told, and is gone or there as a whole after a restart."""
    memory = memory_of(frail.sessions.get("book"))
    disk.refused = refused
    with pytest.raises(StorageFailed):
        frail.sessions.delete("book")
    disk.refused = ""
    again = frail.crash()
    if refused == "rename":
        assert memory_of(again.sessions.get("book")) == memory
        frail.sessions.delete("book")
    else:
        with pytest.raises(SessionNotFound):
            again.sessions.get("book")
    assert _folders(frail) == []
    assert frail.sessions.list(0, "") == ([], "")
    again.close()


def test_a_deletion_that_the_manifest_refuses_goes_on(frail: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a session which is marked as deleted leaves the manifest with the next call, or the next start."""

    def refuse(self: SqliteManifest, name: str) -> None:
        raise ManifestUnavailable("expected a manifest that answers, got none")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteManifest, "delete", refuse)
        with pytest.raises(ManifestUnavailable):
            frail.sessions.delete("book")
    assert len(_folders(frail)) == 1
    again = frail.crash()
    assert (again.sessions.list(0, ""), _folders(frail)) == (([], ""), [])
    again.create()
    with monkeypatch.context() as patch:
        patch.setattr(SqliteManifest, "delete", refuse)
        with pytest.raises(ManifestUnavailable):
            again.sessions.delete("book")
    again.sessions.delete("book")
    assert (again.sessions.list(0, ""), _folders(frail)) == (([], ""), [])
    again.close()


def test_a_making_that_a_crash_cut_off_is_collected(frail: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a session or fork that never came into the manifest is gone after a restart, and its parent free."""

    def die(self: SqliteManifest, entry: object) -> None:
        raise ManifestUnavailable("expected a manifest that answers, got none")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteManifest, "create", die)
        with pytest.raises(ManifestUnavailable):
            frail.create(name="other")
        with pytest.raises(ManifestUnavailable):
            frail.sessions.fork("book", "", "fork")
    assert len(_folders(frail)) == 3
    with pytest.raises(SessionHasForks):
        frail.sessions.delete("book")
    again = frail.crash()
    assert len(_folders(frail)) == 1
    again.sessions.delete("book")
    assert _folders(frail) == []
    again.close()


def test_a_session_whose_mark_stayed_is_kept(frail: Node, disk: Refusing) -> None:
    """Proves that a session which the manifest has is never collected, even if it is still marked as being made."""
    disk.refused = "remove"
    with pytest.raises(StorageFailed):
        frail.create(name="other")
    disk.refused = ""
    assert len(list(frail.data.glob("sessions/*/unfinished"))) == 1
    again = frail.crash()
    assert list(frail.data.glob("sessions/*/unfinished")) == []
    assert again.sessions.get("other").info().tokens == 0
    assert not again.sessions.create("other", session_spec())[1]
    again.close()


def test_a_folder_without_entry_and_mark_is_left_alone(frail: Node) -> None:
    """Proves that a manifest which was lost does not take the sessions with it."""
    frail.manifest.delete("book")
    stray = frail.data / "sessions" / "notes.txt"
    stray.write_text("by a person")
    (frail.data / "sessions" / ("0" * 32)).mkdir()
    before = _folders(frail)
    frail.crash().close()
    assert _folders(frail) == [name for name in before if name != "0" * 32]


def test_what_a_repair_put_aside_goes_with_its_session(node: Node) -> None:
    """Proves that quarantined files of a deleted session are deleted, and those of another one are not."""
    entry = node.manifest.get("book")
    assert entry is not None
    aside = node.data / "quarantine" / "0001" / "sessions"
    for name in (entry.id, "1" * 32):
        (aside / name).mkdir(parents=True)
        (aside / name / "log").write_bytes(b"damaged")
    node.sessions.delete("book")
    assert [path.name for path in aside.iterdir()] == ["1" * 32]


def test_forks_and_deletions_of_one_session_exclude_each_other(node: Node) -> None:
    """Proves that of a fork and a deletion at the same time one is refused, and that a fork made has all its blocks."""
    for turn in range(12):
        name = f"s{turn}"
        node.sessions.create(name, session_spec())
        writer = node.open(f"a{turn}", session=name)
        writer.read(TEXT, [150])
        writer.save_tail()
        node.sessions.close_attachment(f"a{turn}")
        outcomes: dict[str, str] = {}
        start = threading.Barrier(2)

        def attempt(
            what: str, name: str = name, start: threading.Barrier = start, told: dict[str, str] = outcomes
        ) -> None:
            start.wait()
            try:
                if what == "fork":
                    node.sessions.fork(name, "", "fork")
                else:
                    node.sessions.delete(name)
                told[what] = ""
            except (SessionHasForks, SessionNotFound) as error:
                told[what] = type(error).__name__

        threads = [threading.Thread(target=attempt, args=[what]) for what in ("fork", "delete")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if outcomes["fork"] == "":
            assert outcomes["delete"] == "SessionHasForks"
            view = node.open("v", view=True, session="fork")
            assert view.session.read_block(view.attachment, 1)
            node.sessions.delete("fork")
            node.sessions.delete(name)
        else:
            assert outcomes == {"fork": "SessionNotFound", "delete": ""}
