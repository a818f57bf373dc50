"""The sessions of a node: made, listed, deleted, damaged."""

import dataclasses
import errno
import itertools
import os
import threading
from pathlib import Path

import pytest

from memsvc.errors import (
    AttachmentNotFound,
    CorruptLog,
    InvalidRequest,
    LimitExceeded,
    SessionExists,
    SessionHasWriter,
    SessionNotFound,
    StorageFailed,
)
from memsvc.log_format import FILE_NAME
from protos.memsvc.v1 import types_pb2
from tests.session_driver import LIMITS, Node, Reader, Text, memory_of, session_spec

TEXT = Text(600)


def test_making_a_session_twice_finds_the_first(node: Node) -> None:
    """Proves that the same name and spec is the same session, and any other spec is refused by its first field."""
    info, created = node.sessions.create("book", session_spec())
    assert (info.name, created, info.tokens) == ("book", False, 0)
    assert info.spec == session_spec()
    with pytest.raises(SessionExists, match="policy") as raised:
        node.sessions.create("book", session_spec("every"))
    assert raised.value.reason == "SESSION_EXISTS"
    other = session_spec()
    other.fingerprint.probe_layer = 4
    with pytest.raises(SessionExists, match=r"fingerprint.probe_layer 0, .*got 4") as raised:
        node.sessions.create("book", other)
    assert raised.value.reason == "FINGERPRINT_MISMATCH"


def test_sessions_have_a_limit(node: Node) -> None:
    """Proves that the last one within the limit is made, and one past it is not."""
    for at in range(LIMITS.sessions_max - 1):
        node.create(name=f"n{at}")
    with pytest.raises(LimitExceeded, match="8 sessions"):
        node.create(name="more")
    node.create(name="book")
    node.sessions.delete("n0")
    node.create(name="more")


@pytest.mark.parametrize("fsync", range(1, 7))
def test_a_session_that_the_disk_refuses_leaves_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch, fsync: int
) -> None:
    """Proves that whichever fsync of its making fails, no folder and no open file is left, and the name is free."""
    folder, real = node.data / "sessions", os.fsync
    before = (sorted(folder.iterdir()), len(os.listdir("/proc/self/fd")))
    calls = itertools.count(1)

    def refuse(descriptor: int) -> None:
        if next(calls) == fsync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageFailed):
            node.create(name="refused")
    assert (sorted(folder.iterdir()), len(os.listdir("/proc/self/fd"))) == before
    node.create(name="refused")


def test_pages_list_every_session_once_in_order(node: Node) -> None:
    """Proves that tokens lead from page to page, to an empty one after the last."""
    for name in ("a", "c", "b", "Z"):
        node.create(name=name)
    names, token = [], ""
    while True:
        infos, token = node.sessions.list(2, token)
        names.append([info.name for info in infos])
        if not token:
            break
    assert names == [["Z", "a"], ["b", "book"], ["c"]]
    assert len(node.sessions.list(0, "")[0]) == 5
    with pytest.raises(InvalidRequest):
        node.sessions.list(1001, "")


def test_a_deleted_session_is_gone_with_its_files_and_views(node: Node) -> None:
    """Proves that a session with a writer stays, one without goes, and its name is free for another."""
    writer = node.open()
    writer.read(TEXT, [128])
    writer.save_tail()
    view = node.open("v", view=True)
    with pytest.raises(SessionHasWriter):
        node.sessions.delete("book")
    node.sessions.worker_gone("w-one")
    node.sessions.delete("book")
    assert list((node.data / "sessions").iterdir()) == []
    for gone in ("v", "one"):
        with pytest.raises(AttachmentNotFound):
            node.sessions.attachment(gone)
    for reader in (view, writer):
        with pytest.raises(SessionNotFound):
            reader.send(TEXT, 200)
    with pytest.raises(SessionNotFound):
        node.sessions.get("book")
    with pytest.raises(SessionNotFound):
        node.sessions.delete("book")
    node.create(session_spec("every"))
    assert node.open().position == 0


def test_a_session_is_deleted_without_being_read(tmp_path: Path) -> None:
    """Proves that one whose log is damaged can be deleted after a restart."""
    node = Node(tmp_path / "data")
    node.create()
    node.close()
    next(tmp_path.glob(f"data/sessions/*/{FILE_NAME}")).write_bytes(b"broken")
    again = Node(tmp_path / "data")
    with pytest.raises(CorruptLog):
        again.sessions.get("book")
    info = again.sessions.list(0, "")[0][0]
    assert (info.name, info.finder_status.split(":")[0]) == ("book", "unreadable")
    again.sessions.delete("book")
    assert again.sessions.list(0, "") == ([], "")
    again.close()


def test_a_log_of_another_spec_is_corrupt(node: Node) -> None:
    """Proves that manifest and log must agree."""
    entry = node.manifest.get("book")
    assert entry is not None
    node.manifest.delete("book")
    spec = session_spec("every").SerializeToString()
    node.manifest.create(type(entry)(entry.name, entry.id, spec, entry.created_unix_ms, 0))
    with pytest.raises(CorruptLog, match="spec"):
        node.crash().sessions.get("book")


def test_a_closed_node_gives_everything_back_to_the_next(tmp_path: Path) -> None:
    """Proves that close syncs, and that a new node sees the same memory."""
    node = Node(tmp_path / "data")
    node.create()
    writer = node.open()
    writer.read(TEXT, [100, 300, 600])
    memory = memory_of(writer.session)
    node.close()
    again = Node(tmp_path / "data")
    assert memory_of(again.sessions.get("book")) == memory
    again.close()


def test_syncing_leaves_out_what_failed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that one session's failed disk is told once, and the others are synced all the same."""
    node.create(name="other")
    writer = node.open()
    writer.read(TEXT, [100])
    other = node.sessions.get("other").core.files
    other.append(2, 1, {"attachment": "x", "worker": "y", "position": 0})

    def refuse() -> None:
        raise StorageFailed("expected an fsync, got EIO")

    monkeypatch.setattr(writer.session.core.files, "commit", refuse)
    with pytest.raises(StorageFailed, match="EIO"):
        node.sessions.sync()
    assert not other.unsynced
    node.sessions.sync()
    with pytest.raises(StorageFailed, match="EIO"):
        writer.send(TEXT, 200)


def test_one_session_object_serves_all_who_ask_at_once(tmp_path: Path) -> None:
    """Proves that a log is opened once, however many threads ask for it first."""
    node = Node(tmp_path / "data")
    node.create()
    node.close()
    again, found, start = Node(tmp_path / "data"), [], threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append(again.sessions.get("book"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(session) for session in found}) == 1
    again.close()


def test_sessions_that_nobody_uses_are_closed_and_read_again_when_asked_for(tmp_path: Path) -> None:
    """Proves that listing many keeps few in memory, and that a closed one has the memory, info and writer it had."""
    node = Node(tmp_path / "data", dataclasses.replace(LIMITS, sessions_open_max=2))
    node.create()
    writer = node.open()
    writer.read(TEXT, [300])
    writer.save_tail()
    writer.read(TEXT, [500])
    node.sessions.worker_gone("w-one")
    before, info = memory_of(writer.session), writer.session.info()
    for at in range(5):
        node.create(name=f"n{at}")
    assert len(node.sessions._folder.loaded()) == 2
    assert writer.session.core.ended
    listed, _ = node.sessions.list(10, "")
    assert len(listed) == 6
    assert listed[0] == info
    again = node.open(resume_epoch=writer.attachment.epoch)
    assert (again.position, again.seq) == (writer.position, writer.seq)
    assert memory_of(again.session) == before
    again.read(TEXT, [600])
    node.close()


def test_a_session_that_somebody_uses_is_not_closed(tmp_path: Path) -> None:
    """Proves that writers and views that are there keep their session, however many others are asked for."""
    node = Node(tmp_path / "data", dataclasses.replace(LIMITS, sessions_open_max=1))
    node.create()
    writer = node.open()
    writer.read(TEXT, [300])
    writer.save_tail()
    node.create(name="n1")
    writer.read(TEXT, [400])
    view = node.open("v", view=True)
    node.sessions.close_attachment("one")
    node.create(name="n2")
    assert view.ask(TEXT, 350).candidates
    node.sessions.close_attachment("v")
    node.create(name="n3")
    node.sessions.get("n1")
    assert view.session.core.ended
    node.close()


def test_sessions_are_opened_and_closed_by_many_at_once(tmp_path: Path) -> None:
    """Proves that threads that open, write, list and leave more sessions than stay open lose nothing."""
    node = Node(tmp_path / "data", dataclasses.replace(LIMITS, sessions_open_max=2))
    names = [f"n{at}" for at in range(6)]
    for name in names:
        node.create(name=name)
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for turn in range(1, 8):
                request = node.request("one")
                request.session, request.attachment, request.worker = name, f"{name}-{turn}", f"w-{name}"
                writer = Reader(node, node.sessions.open(request), request.attachment)
                assert writer.position == 20 * (turn - 1)
                writer.read(TEXT, [20 * turn])
                writer.save_tail()
                node.sessions.list(10, "")
                node.sessions.worker_gone(request.worker)
        except BaseException as error:
            failures.append(error)

    node.create()
    threads = [threading.Thread(target=write, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [node.sessions.get(name).info().tokens for name in names] == [140] * 6
    node.close()


def test_figures_of_a_session_count_what_came(node: Node) -> None:
    """Proves that tokens, gaps, blocks, bookmarks, links and chains are those that were written."""
    writer = node.open()
    writer.read(TEXT, [192])
    step = writer.message(TEXT, 300, gap=20)
    step.block_gaps.add(first=3, count=1)
    writer.session.apply(writer.attachment, step)
    info = writer.session.info()
    bookmarks = writer.session.list_bookmarks(0, 10_000).bookmarks
    assert (info.tokens, info.blocks, info.tail_position) == (280, 3, 0)
    assert [(own.first, own.count) for own in info.token_gaps] == [(192, 20)]
    assert [(own.first, own.count) for own in info.block_gaps] == [(3, 1)]
    assert info.bookmarks == len(bookmarks)
    assert info.links == sum(len(bookmark.links) for bookmark in bookmarks)
    assert info.chains == len({bookmark.chain for bookmark in bookmarks})
    folder = next((node.data / "sessions").iterdir())
    assert info.stored_bytes == sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    assert info.created_unix_ms > 0
    assert isinstance(info, types_pb2.SessionInfo)
