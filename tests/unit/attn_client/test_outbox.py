"""What is on its way: order, room, gaps, and going back after a broken connection."""

import threading
import time

import numpy as np
import pytest

from attn_client.errors import MemoryUnavailable
from attn_client.memory.outbox import BlockQueue, Gaps, Outbox, PendingBlock, PendingStep, StepQueue
from protos.memsvc.v1 import memory_pb2, types_pb2


def _step(first: int, tokens: int = 4) -> PendingStep:
    request = memory_pb2.AttachRequest()
    request.steps.steps.add(first_position=first, count=tokens)
    return PendingStep(request, tokens, first + tokens, 100)


def _block(block: int, partial_tokens: int = 0) -> PendingBlock:
    end = block * 64 + (partial_tokens or 64)
    return PendingBlock(block, partial_tokens, end, 0, np.zeros(16, np.uint8), None)


def _sent(queue: StepQueue, count: int) -> list[tuple[int, int, int]]:
    """Wire seq, position and gap of the next steps as they go out."""
    steps = [queue.sent().step for _ in range(count)]
    return [(step.seq, step.first_position, step.gap_tokens) for step in steps]


def test_steps_leave_in_order_and_are_done_with_when_acknowledged() -> None:
    """Proves that an ack covers all steps up to it, and that tokens are in flight exactly between sending and ack."""
    queue = StepQueue(0)
    for first in (0, 4, 8):
        queue.add(_step(first))
    assert _sent(queue, 2) == [(1, 0, 0), (2, 4, 0)]
    assert (queue.in_flight_tokens, queue.acked_position, queue.position) == (8, 0, 12)
    assert [step.seq for step in queue.ack(2)] == [1, 2]
    assert (queue.in_flight_tokens, queue.acked_position, queue.idle) == (0, 8, False)
    # An ack for what was never sent acknowledges nothing.
    assert list(queue.ack(3)) == []


def test_dropped_tokens_are_declared_once_by_the_next_step() -> None:
    """Proves that drops before a step add up to its gap, and that positions go on as the model counts them."""
    queue = StepQueue(0)
    queue.add(_step(0))
    queue.drop(4)
    queue.drop(2)
    assert queue.has_undeclared
    queue.add(_step(10))
    queue.add(_step(14))
    assert _sent(queue, 3) == [(1, 0, 0), (2, 10, 6), (3, 14, 0)]
    assert queue.gaps.ranges == ((4, 6),)
    assert not queue.has_undeclared


def test_a_broken_connection_sends_again_what_was_not_applied() -> None:
    """Proves that after a rewind the same steps go out under the same numbers, without those that were applied."""
    queue = StepQueue(0)
    for first in (0, 4, 8, 12):
        queue.add(_step(first))
    assert len(_sent(queue, 3)) == 3
    assert [step.seq for step in queue.ack(1)] == [1]
    done, lost = queue.rewind(2, 8)
    assert ([step.seq for step in done], lost, queue.in_flight_tokens) == ([2], 0, 0)
    assert _sent(queue, 2) == [(3, 8, 0), (4, 12, 0)]


def test_steps_that_the_server_lost_become_a_gap() -> None:
    """Proves that a server that forgot acknowledged steps gets the rest renumbered behind a declared gap."""
    queue = StepQueue(0)
    for first in (0, 4, 8):
        queue.add(_step(first))
    assert len(_sent(queue, 2)) == 2
    assert len(list(queue.ack(2))) == 2
    assert queue.rewind(1, 4) == ([], 4)
    assert _sent(queue, 1) == [(2, 8, 4)]
    assert [step.seq for step in queue.ack(2)] == [3]
    assert (queue.ours(3), queue.gaps.ranges) == (4, ((4, 4),))


def test_a_view_opened_again_counts_from_one() -> None:
    """Proves that with nothing pending the loss is declared by the next step, under the new numbers."""
    queue = StepQueue(100)
    queue.add(_step(100))
    assert len(_sent(queue, 1)) == 1
    assert len(list(queue.ack(1))) == 1
    assert queue.rewind(0, 100) == ([], 4)
    queue.add(_step(104))
    assert _sent(queue, 1) == [(1, 104, 4)]


def test_a_server_ahead_of_us_is_told_by_a_negative_loss() -> None:
    """Proves that a position beyond anything sent is not taken for a gap."""
    assert StepQueue(8).rewind(0, 12) == ([], -4)


def test_blocks_wait_for_the_steps_that_cover_them() -> None:
    """Proves that a block leaves once its last token's step is acknowledged, a partial one likewise."""
    queue = BlockQueue()
    queue.add(_block(0))
    queue.add(_block(1, partial_tokens=10))
    assert queue.next_waiting(63) is None
    assert queue.next_waiting(64) is queue.sent()
    assert queue.next_waiting(73) is None
    assert queue.next_waiting(74) is not None
    assert queue.answered(0, 0) is not None
    assert queue.answered(0, 0) is None


def test_blocks_go_out_again_in_order_after_a_broken_connection() -> None:
    """Proves that those sent come before those that waited."""
    queue = BlockQueue()
    for block in range(3):
        queue.add(_block(block))
    queue.sent()
    queue.sent()
    queue.resend()
    assert [queue.sent().block for _ in range(3)] == [0, 1, 2]


def test_blocks_that_the_server_lost_become_gaps() -> None:
    """Proves that stored blocks missing from a resumed session are declared, and once."""
    queue = BlockQueue()
    for block in range(4):
        queue.add(_block(block))
        sent = queue.sent()
        assert queue.answered(block, 0) is sent
        queue.stored(sent)
    assert queue.rewind([types_pb2.Range(first=0, count=2)]) == 2
    assert queue.take_undeclared() == [2, 3]
    assert queue.rewind([types_pb2.Range(first=0, count=2)]) == 0
    assert (queue.take_undeclared(), queue.gaps.ranges) == ([], ((2, 2),))


def test_gaps_that_touch_are_one_range() -> None:
    """Proves that ranges join and the total counts each number once."""
    gaps = Gaps()
    for first, count in ((3, 2), (5, 1), (9, 4)):
        gaps.add(first, count)
    assert (gaps.ranges, gaps.total) == (((3, 3), (9, 4)), 7)


def test_the_outbox_takes_what_fits_and_one_byte_more_is_refused() -> None:
    """Proves the limit, and that something larger than all of it passes alone rather than never."""
    changed = threading.Condition()
    outbox = Outbox(changed, bytes_max=1000, stall_timeout_s=1.0)
    with changed:
        assert outbox.admit(600)
        assert outbox.admit(400)
        assert not outbox.admit(1)
        outbox.release(400)
        outbox.release(600)
        assert outbox.admit(5000)
        assert not outbox.admit(1)
    assert outbox.peak_bytes == 5000


def test_waiting_ends_when_nothing_is_acknowledged_for_the_stall_timeout() -> None:
    """Proves that a stall raises, not before the timeout, and says how full the outbox is."""
    changed = threading.Condition()
    outbox = Outbox(changed, bytes_max=1000, stall_timeout_s=0.05)
    began = time.monotonic()
    with changed:
        assert outbox.admit(900)
    with changed, pytest.raises(MemoryUnavailable, match=r"no acknowledgement for 0\.05 s \(900 of 1000 bytes"):
        outbox.wait_until(lambda: outbox.admit(200), "room")
    assert time.monotonic() - began >= 0.05


def test_waiting_goes_on_while_anything_is_acknowledged() -> None:
    """Proves that slow progress is no stall: each release begins the timeout anew."""
    changed = threading.Condition()
    outbox = Outbox(changed, bytes_max=1000, stall_timeout_s=5.0)
    waiting = threading.Event()

    def release_bit_by_bit() -> None:
        waiting.wait()
        for _ in range(10):
            with changed:
                outbox.release(100)

    releaser = threading.Thread(target=release_bit_by_bit)
    releaser.start()
    with changed:
        assert outbox.admit(1000)
        waiting.set()
        outbox.wait_until(lambda: outbox.admit(1000), "room for everything")
    releaser.join()
    assert outbox.held_bytes == 1000
