"""Who may attach, and what they are told."""

import os
from pathlib import Path

import pytest

from memsvc.errors import (
    FingerprintMismatch,
    InvalidRequest,
    LimitExceeded,
    ManifestUnavailable,
    SessionHasWriter,
    SessionNotFound,
    StaleEpoch,
)
from protos.memsvc.v1 import session_pb2
from tests.session_driver import LIMITS, Node, Text, memory_of

TEXT = Text(1200)


def _ranges(opened: session_pb2.OpenSessionResponse) -> list[tuple[int, int]]:
    return [(own.first, own.count) for own in opened.stored_blocks]


def test_the_first_writer_starts_at_nothing(node: Node) -> None:
    """Proves that an empty session has no tail, epoch 1, and names its writer."""
    opened = node.open().opened
    assert (opened.epoch, opened.position, opened.applied_seq, opened.HasField("tail")) == (1, 0, 0, False)
    assert (opened.session.name, opened.session.epoch, opened.session.writer) == ("book", 1, "w-one")


def test_a_second_writer_waits_for_the_first_to_go(node: Node) -> None:
    """Proves that a live writer is never displaced, and a closed one is, from the tail on."""
    writer = node.open()
    writer.read(TEXT, [200])
    writer.save_tail()
    writer.read(TEXT, [300])
    with pytest.raises(SessionHasWriter, match="attachment one of worker w-one"):
        node.open("two")
    node.sessions.close_attachment("one")
    node.sessions.close_attachment("one")
    opened = node.open("two").opened
    assert (opened.epoch, opened.position, opened.tail.position, _ranges(opened)) == (2, 200, 200, [(0, 3)])
    assert opened.session.tokens == 200


def test_the_same_request_gets_the_same_answer(node: Node) -> None:
    """Proves that opening is safe to retry, for writers and views, whatever they did since."""
    writer = node.open()
    writer.read(TEXT, [128])
    writer.save_tail()
    again = node.open()
    assert again.attachment is writer.attachment
    assert (again.position, again.seq, again.opened.epoch) == (128, 1, 1)
    view = node.open("v", view=True)
    assert node.open("v", view=True).attachment is view.attachment
    view.send(TEXT, 200)
    opened = node.open("v", view=True).opened
    assert (opened.position, opened.applied_seq, opened.epoch, _ranges(opened)) == (200, 1, 0, [(0, 2)])


def test_a_writer_that_was_cut_off_resumes_all_it_wrote(node: Node) -> None:
    """Proves that with its epoch it goes on without a loss, after its stream broke and after a restart."""
    writer = node.open()
    writer.read(TEXT, [200, 300])
    node.sessions.worker_gone("w-one")
    assert node.sessions.get("book").info().writer == ""
    for where in (node, node.crash()):
        again = where.open(resume_epoch=1)
        assert (again.position, again.seq, again.opened.epoch) == (300, 2, 1)
        assert (again.opened.HasField("tail"), _ranges(again.opened)) == (False, [(0, 4)])
        assert again.opened.session.writer == "w-one"


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_stale_epoch_does_not_resume(node: Node, taken_over: bool) -> None:
    """Proves that another epoch, worker or attachment, or one that was closed, cannot go on."""
    node.open().read(TEXT, [200])
    if taken_over:
        node.sessions.worker_gone("w-one")
        node.open("two")
    requests = [node.request("one", resume_epoch=2), node.request("three", resume_epoch=1)]
    if taken_over:
        requests.append(node.request("one", resume_epoch=1))
    else:
        other = node.request("one", resume_epoch=1)
        other.worker = "w-other"
        with pytest.raises(InvalidRequest, match="attachment id"):
            node.sessions.open(other)
        node.sessions.close_attachment("one")
        requests.append(node.request("one", resume_epoch=1))
    for request in requests:
        with pytest.raises(StaleEpoch):
            node.sessions.open(request)


def test_another_fingerprint_is_refused_by_field(node: Node) -> None:
    """Proves that nobody opens a session of another model."""
    request = node.request("one")
    request.fingerprint.probe_layer = 3
    with pytest.raises(FingerprintMismatch, match=r"expected probe_layer 0, .*got 3"):
        node.sessions.open(request)


def test_a_bad_request_opens_nothing(node: Node) -> None:
    """Proves that mode, ids and session name are checked, and an id in use elsewhere is not taken."""
    for change, error in [
        ({"mode": 0}, InvalidRequest),
        ({"attachment": ""}, InvalidRequest),
        ({"worker": "a b"}, InvalidRequest),
        ({"session": "other"}, SessionNotFound),
        ({"mode": session_pb2.OPEN_MODE_VIEW, "resume_epoch": 1}, InvalidRequest),
    ]:
        request = node.request("one")
        for name, value in change.items():
            setattr(request, name, value)
        with pytest.raises(error):
            node.sessions.open(request)
    node.open()
    with pytest.raises(InvalidRequest, match="the writer of session 'book'"):
        node.open("one", view=True)


def test_views_have_a_limit(node: Node) -> None:
    """Proves that one past the limit is refused and the place of an ended view is free again."""
    for at in range(LIMITS.views_max):
        node.open(f"v{at}", view=True)
    with pytest.raises(LimitExceeded, match="256 views"):
        node.open("more", view=True)
    node.sessions.close_attachment("v7")
    node.open("more", view=True)


def test_a_takeover_that_fails_leaves_the_lost_writer_its_place(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that nothing is discarded before the manifest gave the new epoch."""
    writer = node.open()
    writer.read(TEXT, [200])
    before = memory_of(writer.session)
    node.sessions.worker_gone("w-one")

    def refuse(name: str, at_least: int) -> int:
        raise ManifestUnavailable(f"expected an epoch of {name} from {at_least}, got a lock")

    monkeypatch.setattr(node.manifest, "next_epoch", refuse)
    with pytest.raises(ManifestUnavailable):
        node.open("two")
    assert node.open(resume_epoch=1).position == 200
    assert memory_of(writer.session) == before


def test_an_epoch_rises_above_what_the_log_knows(node: Node) -> None:
    """Proves that a manifest that forgot does not give an epoch twice."""
    node.open()
    node.sessions.close_attachment("one")
    node.open("two")
    entry = node.manifest.get("book")
    assert entry is not None
    node.manifest.delete("book")
    node.manifest.create(type(entry)(entry.name, entry.id, entry.spec, entry.created_unix_ms, 0))
    assert node.crash().open("three").opened.epoch == 3


@pytest.mark.parametrize("crashed", [False, True])
def test_bytes_of_blocks_are_durable_before_the_records_that_name_them(
    node: Node, monkeypatch: pytest.MonkeyPatch, crashed: bool
) -> None:
    """Proves the order in which a takeover and a restart make durable what was only buffered."""
    node.open().read(TEXT, [300])
    node.sessions.worker_gone("w-one")
    other = node.crash() if crashed else node
    synced: list[str] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    other.open("two")
    assert synced.index("blocks-000001.seg") < synced.index("log")
