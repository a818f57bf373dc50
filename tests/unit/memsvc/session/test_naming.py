"""Snapshots of a session: named, kept, looked at, dropped; and names of the session itself."""

import dataclasses
from pathlib import Path

import pytest

from memsvc.errors import (
    BlockNotFound,
    InvalidRequest,
    LimitExceeded,
    SessionExists,
    SessionHasWriter,
    SessionNotFound,
    SnapshotExists,
    SnapshotNotFound,
)
from protos.memsvc.v1 import session_pb2
from tests.session_driver import LIMITS, Node, Text, block_bytes, memory_of, session_spec

TEXT, OTHER = Text(900), Text(900, seed=2)


def test_a_snapshot_names_the_newest_tail(node: Node) -> None:
    """Proves that what came after the tail is not in it, that asking again changes nothing, and that info counts it."""
    writer = node.open()
    writer.read(TEXT, [150])
    writer.save_tail()
    writer.read(TEXT, [300])
    snapshot, created = node.sessions.create_snapshot("book", "first")
    assert (snapshot.name, snapshot.position, created) == ("first", 150, True)
    assert snapshot.bookmarks == writer.session.core.state.cut.bookmarks > 0
    assert node.sessions.create_snapshot("book", "first") == (snapshot, False)
    assert writer.session.info().snapshots == 1
    writer.save_tail()
    with pytest.raises(SnapshotExists, match=r"position 300.* at position 150"):
        node.sessions.create_snapshot("book", "first")
    node.sessions.create_snapshot("book", "second")
    assert [own.position for own in writer.session.list_snapshots()] == [150, 300]


def test_snapshots_survive_a_crash_and_another_writer(node: Node) -> None:
    """Proves that a name given between a lost writer's void steps is there after recovery and after a take-over."""
    node.sessions.create_snapshot("book", "empty")
    writer = node.open()
    writer.read(TEXT, [150])
    writer.save_tail()
    writer.read(TEXT, [200])
    node.sessions.create_snapshot("book", "first")
    writer.read(TEXT, [300])
    expected = writer.session.list_snapshots()
    assert [(own.name, own.position) for own in expected] == [("empty", 0), ("first", 150)]
    again = node.crash()
    assert again.sessions.get("book").list_snapshots() == expected
    taken = again.open("two")
    assert taken.position == 150
    assert again.sessions.get("book").list_snapshots() == expected
    taken.read(OTHER, [260])
    taken.save_tail()
    once_more = again.crash()
    assert once_more.sessions.get("book").list_snapshots() == expected
    for one in (again, once_more):
        one.close()


def test_a_view_at_a_snapshot_sees_its_cut(node: Node) -> None:
    """Proves that blocks, partial block, tail and recalls are those of the cut, whatever was written since."""
    writer = node.open()
    writer.read(TEXT, [300])
    writer.save_tail()
    node.sessions.create_snapshot("book", "first")
    at_tail = node.open("then", view=True)
    expected = at_tail.ask(OTHER, 340)
    writer.read(TEXT, [420, 700])
    writer.save_tail()
    view = node.open("now", view=True, snapshot="first")
    assert (view.opened.position, view.opened.tail.position, view.opened.epoch) == (300, 300, 0)
    assert [(own.first, own.count) for own in view.opened.stored_blocks] == [(0, 4)]
    assert view.session.read_block(view.attachment, 3)[0] == block_bytes(3)
    partial = view.session.read_block(view.attachment, 4)
    assert (partial[0], partial[2]) == (block_bytes(4, 1000 + 300 % 64), 300 % 64)
    with pytest.raises(BlockNotFound):
        view.session.read_block(view.attachment, 5)
    answer = view.ask(OTHER, 340)
    answer.attachment, answer.seq = expected.attachment, expected.seq
    assert answer == expected
    assert node.open("newest", view=True).opened.position == 700


def test_a_view_at_a_snapshot_is_the_same_after_recovery(node: Node) -> None:
    """Proves that a recall at an old cut is answered alike by a node that replayed the log."""
    writer = node.open()
    writer.read(TEXT, [300])
    writer.save_tail()
    node.sessions.create_snapshot("book", "first")
    writer.read(TEXT, [700])
    writer.save_tail()
    expected = node.open("v", view=True, snapshot="first").ask(OTHER, 340)
    again = node.crash()
    assert again.open("v", view=True, snapshot="first").ask(OTHER, 340) == expected
    again.close()


def test_only_views_open_at_a_snapshot_that_exists(node: Node) -> None:
    """Proves that a writer at a snapshot and a view at an unknown one are refused."""
    node.sessions.create_snapshot("book", "first")
    with pytest.raises(InvalidRequest, match="WRITER without snapshot"):
        node.open("w", snapshot="first")
    with pytest.raises(SnapshotNotFound, match="'second'"):
        node.open("v", view=True, snapshot="second")
    with pytest.raises(SessionNotFound):
        node.sessions.create_snapshot("novel", "first")


def test_a_dropped_snapshot_is_gone_and_its_views_go_on(node: Node) -> None:
    """Proves that the name is free for another cut, and that who looked at the cut still does."""
    writer = node.open()
    writer.read(TEXT, [150])
    writer.save_tail()
    node.sessions.create_snapshot("book", "first")
    view = node.open("v", view=True, snapshot="first")
    writer.read(TEXT, [300])
    writer.save_tail()
    node.sessions.drop_snapshot("book", "first")
    with pytest.raises(SnapshotNotFound):
        node.sessions.drop_snapshot("book", "first")
    assert view.ask(TEXT, 200).candidates
    assert node.sessions.create_snapshot("book", "first")[0].position == 300
    assert [own.position for own in node.crash().sessions.get("book").list_snapshots()] == [300]


def test_snapshots_have_a_limit(tmp_path: Path) -> None:
    """Proves that one past the limit is refused, and that dropping one makes room."""
    node = Node(tmp_path / "data", dataclasses.replace(LIMITS, snapshots_max=2))
    node.create()
    for name in ("a", "b"):
        node.sessions.create_snapshot("book", name)
    with pytest.raises(LimitExceeded, match="2 snapshots"):
        node.sessions.create_snapshot("book", "c")
    node.sessions.drop_snapshot("book", "a")
    node.sessions.create_snapshot("book", "c")
    node.close()


def test_a_snapshot_is_durable_when_it_is_told(node: Node) -> None:
    """Proves that nothing of the session waits for an fsync once a snapshot was made, BUFFERED steps included."""
    writer = node.open()
    writer.read(TEXT, [150])
    assert writer.session.core.files.unsynced
    node.sessions.create_snapshot("book", "first")
    assert not writer.session.core.files.unsynced


def test_a_renamed_session_is_what_it_was(node: Node) -> None:
    """Proves that memory, snapshots and views stay, that the old name is free, and that a restart knows the new one."""
    writer = node.open()
    writer.read(TEXT, [150])
    writer.save_tail()
    node.sessions.create_snapshot("book", "first")
    view = node.open("v", view=True)
    with pytest.raises(SessionHasWriter):
        node.sessions.rename("book", "novel")
    node.sessions.close_attachment("one")
    memory, before = memory_of(writer.session), writer.session.info()
    after = node.sessions.rename("book", "novel")
    before.name, before.writer = "novel", ""
    before.stored_bytes = after.stored_bytes
    assert after == before
    assert view.ask(TEXT, 200).candidates
    with pytest.raises(SessionNotFound):
        node.sessions.get("book")
    node.create(session_spec("every"))
    assert [info.name for info in node.sessions.list(0, "")[0]] == ["book", "novel"]
    again = node.crash()
    assert memory_of(again.sessions.get("novel")) == memory
    assert again.open(session="novel").position == 150
    again.close()


def test_a_name_that_is_taken_or_unknown_stays_so(node: Node) -> None:
    """Proves that renaming onto another session, from no session and to no name change nothing."""
    node.create(name="other")
    with pytest.raises(SessionExists):
        node.sessions.rename("book", "other")
    with pytest.raises(SessionNotFound):
        node.sessions.rename("missing", "free")
    with pytest.raises(InvalidRequest):
        node.sessions.rename("book", "a b")
    assert node.sessions.rename("book", "book").name == "book"
    assert [info.name for info in node.sessions.list(0, "")[0]] == ["book", "other"]


def test_a_renaming_that_a_crash_cut_off_is_finished(node: Node) -> None:
    """Proves that a log which still tells the former name is told the manifest's, once the session is read."""
    node.manifest.rename("book", "novel")
    again = node.crash()
    assert again.sessions.get("novel").core.lineage.name == "novel"
    once_more = again.crash()
    assert once_more.sessions.get("novel").core.files.sequence == 2
    for one in (again, once_more):
        one.close()


def test_an_open_response_at_a_snapshot_repeats(node: Node) -> None:
    """Proves that opening the same view twice gives the same answer."""
    writer = node.open()
    writer.read(TEXT, [150])
    writer.save_tail()
    node.sessions.create_snapshot("book", "first")
    request = node.request("v", view=True, snapshot="first")
    answers: list[session_pb2.OpenSessionResponse] = [node.sessions.open(request) for _ in range(2)]
    assert answers[0] == answers[1]
