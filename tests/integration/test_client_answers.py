"""What the server says back: recalls, faults, blocks, checksums. Against a scripted scripted."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from attn_client.errors import MemoryRefused, MemoryUnavailable
from attn_client.memory import MemoryClient
from protos import codec
from tests.integration.client_records import ASK, LONG_S, block_of, record, settings, settle, writer
from tests.integration.scripted_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_a_recall_is_answered_once_and_in_full(scripted: ScriptedServer) -> None:
    """Proves the way of an answer from the wire to its record, and what a writer's ask says about blocks."""
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0, 200), wait=True)
        seq = session.append(record(200, 64, ASK), wait=False)
        assert seq is not None
        answer = session.recall(seq, LONG_S)
        assert answer is not None
        assert (answer.asked_at, answer.candidates) == (263, 9)
        (block,) = answer.blocks
        assert (block.block, block.score, block.z, block.reached, block.via) == (3, 2.0, 1.5, "trail", 3)
        assert scripted.steps[-1].recall.blocks_through == 200 // 64
        # It is not kept.
        assert session.recall(seq, 0.0) is None
        assert session.stats.bookmarks == 2


def test_a_recall_that_is_refused_is_none_at_once_and_harms_nothing(scripted: ScriptedServer) -> None:
    """Proves that a fault after the ack ends the wait for the recall and not the session."""
    scripted.script.recall_faults = {1: "DEADLINE_EXCEEDED"}
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        seq = session.append(record(0, ask=ASK), wait=True)
        assert seq is not None
        began = time.monotonic()
        assert session.recall(seq, LONG_S) is None
        assert time.monotonic() - began < LONG_S / 2
        second = session.append(record(64, ask=ASK), wait=True)
        assert second is not None
        assert session.recall(second, LONG_S) is not None
        assert session.degraded_reasons == ()


def test_after_a_late_recall_nobody_waits_until_the_server_speaks_again(scripted: ScriptedServer) -> None:
    """Proves the breaker: one timeout, then None at once, then answers again."""
    scripted.script.acking = False
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        seqs = [session.append(record(first, ask=ASK), wait=False) for first in (0, 64, 128)]
        assert seqs == [1, 2, 3]
        assert session.recall(1, 0.05) is None
        began = time.monotonic()
        assert session.recall(2, LONG_S) is None
        with pytest.raises(MemoryUnavailable, match="does not answer"):
            session.fetch_blocks([0], LONG_S)
        assert time.monotonic() - began < LONG_S / 2
        scripted.wait_for(lambda: len(scripted.steps) == 3)
        scripted.release_acks()
        # The server speaks again with the first ack; the third answer may come after it.
        settle(session, 192)
        assert session.recall(3, LONG_S) is not None


def test_settling_waits_for_acknowledgements_and_not_for_a_server_that_gives_none(scripted: ScriptedServer) -> None:
    """Proves that it returns with the last ack, and that once none comes in time nobody waits any more."""
    scripted.script.acking = False
    with MemoryClient(scripted.address, settings()) as client, ThreadPoolExecutor(1) as pool:
        session = writer(client)
        session.append(record(0), wait=True)
        settling = pool.submit(session.settle, LONG_S)
        scripted.wait_for(lambda: len(scripted.steps) == 1)
        assert not settling.done()
        scripted.release_acks()
        settling.result(LONG_S)
        assert session.stats.outbox_bytes == 0
        scripted.script.acking = False
        seq = session.append(record(64, ask=ASK), wait=True)
        assert seq is not None
        session.settle(0.05)
        began = time.monotonic()
        assert session.recall(seq, LONG_S) is None
        assert time.monotonic() - began < LONG_S / 2


def test_a_step_that_is_refused_ends_its_session_and_no_other(scripted: ScriptedServer) -> None:
    """Proves that a refused step is told in the server's words, also by the tail, and that others go on."""
    scripted.script.step_faults = {2: "EMBEDDING_NOT_FINITE"}
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0), wait=True)
        session.append(record(64, ask=ASK), wait=True)
        assert session.recall(2, LONG_S) is None
        with pytest.raises(MemoryRefused, match="step 2 was refused: expected x") as refused:
            session.save_tail(128, None, None, None)
        assert refused.value.reason == "EMBEDDING_NOT_FINITE"
        assert session.append(record(128), wait=True) is None
        assert "lost" in session.degraded_reasons[0]
        assert session.stats.outbox_bytes == 0
        assert scripted.tails == []


@pytest.mark.parametrize("arena_bytes", [0, 1 << 20])
def test_blocks_go_out_once_their_tokens_are_acknowledged(scripted: ScriptedServer, arena_bytes: int) -> None:
    """Proves for both ways of travelling that no block overtakes its steps, and that its bytes arrive and come back."""
    scripted.script.acking = False
    scripted.script.welcome.arena_accepted = True
    with MemoryClient(scripted.address, settings(arena_bytes=arena_bytes)) as client:
        assert client.shares_memory == bool(arena_bytes)
        session = writer(client)
        session.append(record(0, 130), wait=True)
        data = block_of(0)
        session.put_block(0, data, wait=True)
        session.put_block(1, block_of(1), wait=True)
        # The bytes were copied: the caller's may change.
        data[:] = 0
        scripted.wait_for(lambda: len(scripted.steps) == 1)
        assert scripted.puts == []
        scripted.release_acks()
        session.save_tail(130, np.ones(5, np.float32), 129, block_of(2))
        assert [(block, partial) for block, partial, _ in scripted.puts] == [(0, 0), (1, 0), (2, 2)]
        fetched = session.fetch_blocks([2, 0, 1, 0], LONG_S)
        assert {block: bytes(data) for block, data in fetched.items()} == {b: block_of(b).tobytes() for b in range(3)}
        (tail,) = scripted.tails
        assert (tail.version, tail.position, tail.last_id) == (1, 130, 129)
        assert np.array_equal(codec.decode(tail.logits), np.ones(5))


def test_blocks_that_do_not_fit_the_arena_travel_in_messages(scripted: ScriptedServer) -> None:
    """Proves that a small arena slows nothing down to a stop: the rest is copied and fetched in turns."""
    scripted.script.acking = False
    scripted.script.welcome.arena_accepted = True
    # A page for the nonce, then seven for puts and seven for fetches.
    with MemoryClient(scripted.address, settings(arena_bytes=1 << 16)) as client:
        session = writer(client)
        session.append(record(0, 20 * 64), wait=True)
        for block in range(20):
            session.put_block(block, block_of(block), wait=True)
        scripted.release_acks()
        settle(session, 20 * 64)
        fetched = session.fetch_blocks(range(20), LONG_S)
        assert all(np.array_equal(fetched[block], block_of(block)) for block in range(20))
        assert session.stats.outbox_bytes == 0


def test_a_put_damaged_on_the_way_is_sent_again(scripted: ScriptedServer) -> None:
    """Proves that one CORRUPT_BLOCK is retried and a second one is a gap, declared before the tail."""
    scripted.script.put_refusals = ["CORRUPT_BLOCK", "", "CORRUPT_BLOCK", "CORRUPT_BLOCK"]
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0, 128), wait=True)
        session.put_block(0, block_of(0), wait=True)
        scripted.wait_for(lambda: len(scripted.puts) == 2)
        session.put_block(1, block_of(1), wait=True)
        settle(session, 128)
        assert [block for block, _, _ in scripted.puts] == [0, 0, 1, 1]
        assert session.stats.block_gaps == ((1, 1),)
        # Nothing follows that could declare it, so a step without tokens does.
        assert (scripted.steps[-1].count, scripted.steps[-1].first_position) == (0, 128)
        assert [(gap.first, gap.count) for gap in scripted.steps[-1].block_gaps] == [(1, 1)]


def test_a_block_that_is_refused_is_a_gap_of_the_next_step(scripted: ScriptedServer) -> None:
    """Proves that the session goes on without the block and says so."""
    scripted.script.put_refusals = ["INVALID_REQUEST"]
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0, 128), wait=True)
        session.put_block(1, block_of(1), wait=True)
        settle(session, 128)
        session.append(record(128), wait=True)
        settle(session, 192)
        declared = [(gap.first, gap.count) for step in scripted.steps for gap in step.block_gaps]
        assert declared == [(1, 1)]
        assert any("block 1" in reason for reason in session.degraded_reasons)


def test_a_block_dropped_while_decoding_is_a_gap_of_the_next_step(scripted: ScriptedServer) -> None:
    """Proves that put_block without wait never blocks, and that the server is told."""
    scripted.script.acking = False
    with MemoryClient(scripted.address, settings(outbox_bytes_max=1 << 18)) as client:
        session = writer(client)
        session.append(record(0, 40 * 64), wait=True)
        for block in range(40):
            session.put_block(block, block_of(block), wait=False)
        gaps = session.stats.block_gaps
        assert len(gaps) == 1
        assert sum(gaps[0]) == 40
        scripted.wait_for(lambda: len(scripted.steps) > 0)
        scripted.release_acks()
        session.append(record(40 * 64), wait=True)
        settle(session, 41 * 64)
        declared = [(gap.first, gap.count) for step in scripted.steps for gap in step.block_gaps]
        assert declared == list(gaps)
        assert sorted(scripted.blocks) == list(range(gaps[0][0]))


def test_a_missing_block_is_told_by_its_name(scripted: ScriptedServer) -> None:
    """Proves that a fetch gives all of what was asked or an error."""
    scripted.blocks = {0: block_of(0).tobytes()}
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        with pytest.raises(MemoryRefused, match="block 5") as refused:
            session.fetch_blocks([0, 5], LONG_S)
        assert refused.value.reason == "BLOCK_NOT_FOUND"


def test_bytes_that_miss_their_checksum_never_reach_the_caller(scripted: ScriptedServer) -> None:
    """Proves that a damaged slot is fetched again in pieces, and damaged pieces are CORRUPT_BLOCK."""
    scripted.script.welcome.arena_accepted = True
    scripted.blocks = {block: block_of(block).tobytes() for block in range(3)}
    scripted.script.damaged_slots = {1}
    with MemoryClient(scripted.address, settings(arena_bytes=1 << 20)) as client:
        session = writer(client)
        fetched = session.fetch_blocks([0, 1, 2], LONG_S)
        assert all(np.array_equal(fetched[block], block_of(block)) for block in range(3))
        scripted.script.damaged_pieces = {1}
        with pytest.raises(MemoryRefused, match="block 1") as refused:
            session.fetch_blocks([0, 1, 2], LONG_S)
        assert refused.value.reason == "CORRUPT_BLOCK"
