"""A slow memory slows reading down and never the model's answer; a lost one leaves a model that says so."""

import dataclasses
from pathlib import Path

from attn_client.generate import greedy
from attn_client.hf.attach import NO_MEMORY, attach
from attn_client.memory import ClientSettings, MemoryClient
from tests.e2e.models import random_ids, tiny_model
from tests.e2e.process import ServerProcess, slowed, stopped
from tests.e2e.settings import SMALL

OUTBOX_BYTES = 2 << 20


def test_reading_waits_for_a_slow_server_within_its_outbox(data: Path) -> None:
    """Proves back-pressure: at a tenth of the speed nothing is lost and the outbox stays within its limit."""
    model, ids = tiny_model("llama"), random_ids(1600, seed=71)
    settings = ClientSettings(outbox_bytes_max=OUTBOX_BYTES)
    with ServerProcess(data) as server, MemoryClient(server.address, settings) as client:
        with attach(model, client, SMALL) as attached, attached.writer("slow") as reader, slowed(server.pid, 0.1):
            reader.read(ids)
            reader.save_tail()
            assert reader.memory is not None
            stats = reader.memory.stats
        assert 0 < stats.outbox_bytes_peak <= OUTBOX_BYTES
        assert stats.token_gaps == ()
        assert client.get_session("slow").tokens == len(ids)


def test_a_prompt_waits_for_what_was_read_before_it(data: Path) -> None:
    """Proves that a prompt right after a text gets its recall from a slow server that still has much to take."""
    model, ids = tiny_model("llama"), random_ids(2000, seed=76)
    settings = dataclasses.replace(SMALL, recall=dataclasses.replace(SMALL.recall, timeout_s=1.0))
    with (
        ServerProcess(data) as server,
        attach(model, server.address, settings) as attached,
        attached.temporary_writer("prompted") as reader,
        slowed(server.pid, 0.05),
    ):
        reader.read(ids)
        assert reader.memory is not None
        assert reader.memory.stats.outbox_bytes
        reader.prompt(random_ids(40, seed=77))
        assert reader.degraded == ()
        assert reader.recalls is not None
        assert reader.recalls.prompted is not None


def test_decoding_goes_on_beside_a_stopped_server_and_records_the_gap(data: Path) -> None:
    """Proves that a step never waits for room, and that what was dropped is a gap the session shows later.

    Nor does such a gap in the window of a tail keep anyone from opening it: its tokens are not attended to.
    """
    model, ids = tiny_model("llama"), random_ids(640, seed=72)
    settings = dataclasses.replace(SMALL, recall=dataclasses.replace(SMALL.recall, timeout_s=0.2))
    # Room for a few dozen decode steps and no block.
    small = ClientSettings(outbox_bytes_max=1 << 16, arena_bytes=0)
    with (
        ServerProcess(data) as server,
        attach(model, server.address, settings) as attached,
        attached.writer("decoded") as reader,
    ):
        reader.read(ids)
    with ServerProcess(data) as server, MemoryClient(server.address, small) as client:
        with attach(model, client, settings) as attached, attached.writer("decoded") as reader:
            with stopped(server.pid):
                said = list(greedy(attached.passes, reader, 150, frozenset()))
            assert len(said) == 150
            assert reader.degraded
        info = client.get_session("decoded")
        assert sum(gap.count for gap in info.token_gaps) > 0
        assert sum(gap.count for gap in info.block_gaps) > 0
        assert info.tail_position == len(ids) + 149
        with attach(model, client, SMALL) as attached, attached.view("decoded") as reader:
            assert reader.position == len(ids) + 149
            reader.prompt(random_ids(40, seed=73))
            assert any("blocks of the window are missing" in why for why in reader.degraded)


def test_a_lost_server_leaves_the_window_and_says_so(data: Path) -> None:
    """Proves that a model worker never fails because memory failed, and that its answer is marked as degraded.

    A view's and a new text's, whose temporary session nobody can delete any more.
    """
    model, ids, question = tiny_model("llama"), random_ids(600, seed=74), random_ids(40, seed=75)
    server = ServerProcess(data)
    server.start()
    with attach(model, server.address, SMALL) as attached:
        with attached.writer("lost") as reader:
            reader.read(ids)
        with attached.temporary_writer("passing") as passing, attached.view("lost") as reader:
            passing.read(ids)
            server.kill()
            reader.prompt(question)
            said = list(greedy(attached.passes, reader, 8, frozenset()))
            assert reader.degraded
            passing.prompt(question)
            assert list(greedy(attached.passes, passing, 8, frozenset())) == said
            assert passing.degraded
    with attach(model, NO_MEMORY, SMALL) as attached:
        reader = attached.without_memory()
        reader.read(ids)
        reader.prompt(question)
        assert list(greedy(attached.passes, reader, 8, frozenset())) == said
