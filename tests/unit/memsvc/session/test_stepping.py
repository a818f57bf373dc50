"""Steps of writers and views: order, repetition, refusal, failure."""

import threading
from collections.abc import Callable

import pytest

from memsvc.errors import (
    AttachmentNotFound,
    EmbeddingInvalid,
    InvalidRequest,
    MemsvcError,
    PositionOutOfOrder,
    StaleEpoch,
    StorageFailed,
)
from protos.memsvc.v1 import memory_pb2, types_pb2
from tests.session_driver import Node, Text, memory_of

TEXT = Text(1200)
ASK = memory_pb2.RecallRequest(top_blocks=3, budget_blocks=6, deadline_ms=1000)


def test_a_step_is_acknowledged_with_what_it_made(node: Node) -> None:
    """Proves that the Ack names attachment, sequence, durability, and the bookmarks of the session then."""
    writer = node.open()
    step = writer.message(TEXT, 300)
    ack, pending = writer.session.apply(writer.attachment, step)
    assert (ack.attachment, ack.seq, ack.durability) == ("one", 1, types_pb2.DURABILITY_BUFFERED)
    assert ack.bookmarks == writer.session.info().bookmarks > 0
    assert pending is None


def test_a_synced_step_leaves_nothing_unsynced(node: Node) -> None:
    """Proves that SYNC waits for the disk, blocks included, and BUFFERED does not."""
    writer = node.open()
    writer.read(TEXT, [100])
    assert writer.session.core.files.unsynced
    step = writer.message(TEXT, 200)
    step.durability = types_pb2.DURABILITY_SYNC
    ack, _ = writer.session.apply(writer.attachment, step)
    assert ack.durability == types_pb2.DURABILITY_SYNC
    assert not writer.session.core.files.unsynced


def test_a_repeated_step_is_acknowledged_and_not_applied(node: Node) -> None:
    """Proves that resending changes nothing, and gives the same recall again while it is remembered."""
    writer = node.open()
    writer.read(TEXT, range(100, 500, 100))
    step = writer.message(TEXT, 500, ASK)
    _, first = writer.session.apply(writer.attachment, step)
    assert first is not None
    answer = writer.session.recall(first)
    before = memory_of(writer.session)
    writer.put([4, 5, 6])
    ack, again = writer.session.apply(writer.attachment, step)
    assert ack.seq == step.seq
    assert again is not None
    assert writer.session.recall(again) == answer
    assert {**memory_of(writer.session), "blocks": before["blocks"]} == before


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda step: setattr(step, "seq", 9), InvalidRequest),
        (lambda step: setattr(step, "seq", 0), InvalidRequest),
        (lambda step: setattr(step, "first_position", 99), PositionOutOfOrder),
        (lambda step: setattr(step, "gap_tokens", 1), PositionOutOfOrder),
        (lambda step: setattr(step, "epoch", 2), StaleEpoch),
        (
            lambda step: setattr(step.embeddings["s0"], "data", b"\xff" * len(step.embeddings["s0"].data)),
            EmbeddingInvalid,
        ),
        (lambda step: step.signals.pop("surprisal"), InvalidRequest),
    ],
)
def test_a_refused_step_changes_nothing(
    node: Node, change: Callable[[memory_pb2.Step], object], error: type[MemsvcError]
) -> None:
    """Proves that after any refusal the same step, put right, is taken, and the log has only that."""
    writer = node.open()
    writer.read(TEXT, [100])
    before, size = memory_of(writer.session), writer.session.core.files.stored_bytes
    bad = writer.message(TEXT, 150)
    change(bad)
    with pytest.raises(error):
        writer.session.apply(writer.attachment, bad)
    assert (memory_of(writer.session), writer.session.core.files.stored_bytes) == (before, size)
    writer.read(TEXT, [150])
    assert memory_of(node.crash().sessions.get("book")) == memory_of(writer.session)


def test_the_first_recall_freezes_the_centre(node: Node) -> None:
    """Proves that a recall before enough tokens came centres on those that did, and bookmarks are there from then."""
    writer = node.open()
    writer.send(TEXT, 70)
    assert writer.session.info().bookmarks == 0
    writer.send(TEXT, 90, ASK)
    assert writer.session.info().bookmarks > 0
    assert writer.session.core.state.vectors.centre is not None


def test_a_recall_waits_for_the_blocks_it_may_choose_from(node: Node) -> None:
    """Proves that it is ready once every earlier block is put or given up, and then sees those that were put."""
    writer = node.open()
    writer.send(TEXT, 400)
    writer.put(range(4))
    wanted = memory_pb2.RecallRequest(top_blocks=9, budget_blocks=9, blocks_through=6)
    pending = writer.send(TEXT, 450, wanted)
    assert pending is not None
    assert not writer.session.recall_ready(pending)
    step = writer.message(TEXT, 460)
    step.block_gaps.add(first=4, count=1)
    writer.session.apply(writer.attachment, step)
    writer.put([5])
    assert writer.session.recall_ready(pending)
    recall = writer.session.recall(pending)
    assert {block.block for block in recall.blocks} == {1, 2, 3, 5}
    assert recall.candidates == 4


def test_a_remembered_recall_holds_nothing_of_its_step(node: Node) -> None:
    """Proves that what it asked for is a copy: as a part of the step it would keep the embeddings in memory."""
    writer = node.open()
    message = writer.message(TEXT, 200, ASK)
    _, pending = writer.session.apply(writer.attachment, message)
    assert pending is not None
    message.recall.top_blocks = 1
    assert pending.ask == ASK


def test_resident_tokens_are_not_recalled(node: Node) -> None:
    """Proves that candidates end where the device's own tokens begin, and at the trail's view without them."""
    writer = node.open()
    writer.read(TEXT, range(100, 700, 100))
    step = writer.message(TEXT, 640, ASK)
    step.resident.first, step.resident.count = 300, 340
    _, pending = writer.session.apply(writer.attachment, step)
    assert pending is not None
    assert (pending.first_block, pending.blocks_end) == (1, 4)
    writer.seq, writer.position = writer.seq + 1, 640
    other = writer.send(TEXT, 641, ASK)
    assert other is not None
    assert other.blocks_end == (641 - 64) // 64


def test_a_view_votes_with_its_own_tokens_and_changes_nothing(node: Node) -> None:
    """Proves that two views that read different texts disturb neither each other nor the session."""
    writer = node.open()
    writer.read(TEXT, [640])
    writer.save_tail()
    before = memory_of(writer.session)
    one, two, twin = node.open("v1", view=True), node.open("v2", view=True), node.open("v3", view=True)
    other = Text(1200, seed=9)
    first = one.ask(TEXT, 700)
    second = two.ask(other, 700)
    again = twin.ask(TEXT, 700)
    assert first.candidates == second.candidates == 8
    assert [b.score for b in first.blocks] == [b.score for b in again.blocks] != [b.score for b in second.blocks]
    assert memory_of(writer.session) == before
    step = one.message(TEXT, 710)
    step.block_gaps.add(first=1, count=1)
    with pytest.raises(InvalidRequest, match="block_gaps"):
        one.session.apply(one.attachment, step)


def test_a_view_stays_at_its_cut_while_the_writer_goes_on(node: Node) -> None:
    """Proves that a view's recall is that of the cut, whatever was written since, or discarded."""
    writer = node.open()
    writer.read(TEXT, [640])
    writer.save_tail()
    early, late, last = (node.open(name, view=True) for name in ("v1", "v2", "v3"))
    answer = early.ask(TEXT, 700)
    writer.read(TEXT, [900])
    assert late.ask(TEXT, 700).blocks == answer.blocks
    node.sessions.worker_gone("w-one")
    node.open("two").read(Text(1200, seed=5), [1000])
    assert last.ask(TEXT, 700).blocks == answer.blocks


def test_a_view_of_an_empty_session_recalls_nothing(node: Node) -> None:
    """Proves that a view without a tail is taken, and gets empty answers even after the writer wrote."""
    view = node.open("v", view=True)
    node.open().read(TEXT, [640])
    recall = view.ask(TEXT, 300)
    assert (recall.candidates, len(recall.blocks), recall.asked_at_position) == (0, 0, 299)


def test_a_view_of_a_session_that_is_all_gaps_recalls_nothing(node: Node) -> None:
    """Proves that a tail at which no token has come yet can be read on from, as one of an empty session can."""
    writer = node.open()
    step = writer.message(TEXT, 128, gap=128)
    step.block_gaps.add(first=0, count=2)
    writer.session.apply(writer.attachment, step)
    writer.seq, writer.position = writer.seq + 1, 128
    writer.save_tail()
    recall = node.open("v", view=True).ask(TEXT, 300)
    assert (recall.candidates, len(recall.blocks), recall.asked_at_position) == (0, 0, 299)


def test_an_ended_view_takes_no_steps(node: Node) -> None:
    """Proves that a view whose worker is gone is not known any more."""
    view = node.open("v", view=True)
    node.sessions.worker_gone("w-v")
    with pytest.raises(AttachmentNotFound):
        view.send(TEXT, 10)
    with pytest.raises(AttachmentNotFound):
        node.sessions.attachment("v")


def test_a_write_that_fails_puts_the_session_out_of_use(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a step the disk refused is not visible, that nothing more is taken, and a reopened folder goes on."""
    writer = node.open()
    writer.read(TEXT, [300])
    before = memory_of(writer.session)

    def refuse(*_: object) -> None:
        raise StorageFailed("expected to write, got no space")

    monkeypatch.setattr(writer.session.core.files, "append", refuse)
    with pytest.raises(StorageFailed):
        writer.send(TEXT, 400)
    monkeypatch.undo()
    with pytest.raises(StorageFailed, match="no space"):
        writer.send(TEXT, 400)
    assert writer.session.list_bookmarks(0, 0).total == len(before["bookmarks"])
    assert "takes no writes" in writer.session.info().finder_status
    again = node.crash().open(resume_epoch=1)
    assert memory_of(again.session) == before
    again.read(TEXT, [400])


def test_steps_blocks_reads_and_syncs_may_overlap(node: Node) -> None:
    """Proves that with readers, puts and syncs from other threads the memory is that of a lone writer."""
    writer, done, failures = node.open(), threading.Event(), []

    def repeat(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                while not done.is_set():
                    work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    session = writer.session
    view = node.open("v", view=True)
    works = [
        node.sessions.sync,
        lambda: session.list_bookmarks(0, 100),
        lambda: session.graph([], 2, 100),
        lambda: session.read_tokens(types_pb2.Range(first=0, count=1000)),
        session.info,
        lambda: view.ask(Text(30), view.position + 1) if view.position < 30 else None,
    ]
    threads = [repeat(work) for work in works]
    writer.read(TEXT, range(20, 1201, 20))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert memory_of(node.crash().sessions.get("book")) == memory_of(session)
