"""A session that is deleted while somebody is in the middle of a call on it."""

import threading
from collections.abc import Callable

import pytest

from memsvc.errors import MemsvcError, SessionHasWriter, SessionNotFound, SnapshotNotFound
from protos.memsvc.v1 import session_pb2
from tests.session_driver import Node, Reader, Text, block_bytes

TEXT = Text(300)
# Longer than a delete takes; one that waits for the opening is not done by then.
DELETED_S = 0.5


def _lost_writer(node: Node) -> Reader:
    """A writer with a block, a tail and a step past it, whose stream broke off: its session may be deleted."""
    writer = node.open()
    writer.read(TEXT, [128])
    writer.save_tail()
    writer.read(TEXT, [150])
    writer.put_one(2, 22, block_bytes(2))
    node.sessions.worker_gone("w-one")
    return writer


@pytest.mark.parametrize("call", ["read", "commit"])
def test_a_call_on_a_session_that_goes_meanwhile_finds_none(
    node: Node, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Proves that a lost writer whose session's files are closed under it is told that the session is gone, and neither
    that the disk refused nor that stored bytes are damaged."""
    writer = _lost_writer(node)
    files = writer.session.core.files
    original: Callable[..., object] = getattr(files, call)

    def deleted_first(*arguments: object) -> object:
        node.sessions.delete("book")
        return original(*arguments)

    monkeypatch.setattr(files, call, deleted_first)
    own, tail = writer.attachment, session_pb2.Tail(version=1, position=150)
    calls = {
        "read": lambda: writer.session.read_block(own, 0),
        "commit": lambda: writer.session.save_tail(own, own.epoch, tail),
    }
    with pytest.raises(SessionNotFound):
        calls[call]()


def test_a_writer_that_opens_comes_before_a_delete_or_after_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a delete which begins while a writer reads the log again waits, and then finds that writer."""
    writer = _lost_writer(node)
    files = writer.session.core.files
    refused: list[MemsvcError] = []

    def delete() -> None:
        try:
            node.sessions.delete("book")
        except MemsvcError as error:
            refused.append(error)

    deleting = threading.Thread(target=delete)
    reread = files.reread

    def beside_a_delete() -> object:
        deleting.start()
        deleting.join(DELETED_S)
        return reread()

    monkeypatch.setattr(files, "reread", beside_a_delete)
    assert node.open("two").opened.epoch == 2
    deleting.join()
    assert [type(error) for error in refused] == [SessionHasWriter]


def test_a_fork_that_comes_to_nothing_keeps_no_delete_off(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a fork at a snapshot that is not there never holds its parent, not even while it is being refused."""
    begun: list[str] = []
    marks = node.sessions.folder._marks
    monkeypatch.setattr(marks, "begin", lambda session, parent: begun.append(parent))
    with pytest.raises(SnapshotNotFound):
        node.sessions.fork("book", "no-such", "fork")
    assert begun == []
