"""A memory server that dies, hangs, drains, lies or loses its disk in the middle of a generation, and comes back."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from attn_client.errors import MemoryRefused, MemoryUnavailable
from attn_client.hf.attach import attach
from attn_client.memory import MemoryClient
from attn_client.reader import Reader
from tests.e2e.outages import (
    IMPATIENT,
    QUESTION,
    QUICK,
    STEPS,
    TEXT,
    Attended,
    assert_same,
    attended,
    generate_through,
    is_lost,
    model,
    reading,
    recalls_again,
    say,
    with_window_only,
)
from tests.e2e.process import ServerProcess, stopped

__all__ = ["attended", "model"]

Outage = Callable[[ServerProcess], Callable[[bool], None]]


@pytest.fixture
def process(data: Path) -> Iterator[ServerProcess]:
    """A server of the test's own, not started yet."""
    server = ServerProcess(data)
    yield server
    server.kill()


def _killed(server: ServerProcess) -> Callable[[bool], None]:
    return lambda begins: server.kill() if begins else server.start()


def _stopped(server: ServerProcess) -> Callable[[bool], None]:
    return lambda begins: os.kill(server.pid, signal.SIGSTOP if begins else signal.SIGCONT)


def _drained(server: ServerProcess) -> Callable[[bool], None]:
    def change(begins: bool) -> None:
        if begins:
            assert server.stop() == 0
        else:
            server.start()

    return change


def _flapping(server: ServerProcess) -> Callable[[bool], None]:
    def change(begins: bool) -> None:
        if not begins:
            server.start()
            return
        for _ in range(2):
            server.kill()
            server.start()
        server.kill()

    return change


PROCESSES: list[tuple[str, Outage, str]] = [
    ("killed while reading", _killed, "read"),
    ("killed before a prompt", _killed, "prompt"),
    ("killed while decoding", _killed, "decode"),
    ("stopped before a prompt", _stopped, "prompt"),
    ("stopped while decoding", _stopped, "decode"),
    ("drained before a prompt", _drained, "prompt"),
    ("drained while decoding", _drained, "decode"),
    ("killed again and again", _flapping, "decode"),
]


@pytest.mark.parametrize(("outage", "phase"), [row[1:] for row in PROCESSES], ids=[row[0] for row in PROCESSES])
def test_a_generation_goes_on_without_its_server_and_takes_it_back(
    outage: Outage, phase: str, process: ServerProcess, model: PreTrainedModel, attended: Attended
) -> None:
    """Proves that a server's death, stop or drain changes nothing but what it would have given, until it is back."""
    process.start()
    with MemoryClient(process.address, IMPATIENT) as client, attach(model, client, QUICK) as attached:
        generate_through(attached, outage(process), phase, lost=False)


def _at(place: str, kind: str, **more: object) -> dict[str, Any]:
    return {"place": place, "kind": kind, **more}


# Name, rules of the server, when it begins to show, and whether the session is lost over it.
RULES: list[tuple[str, dict[str, Any], str, bool]] = [
    ("late answers", _at("attach.recall", "stall", ms=1500), "prompt", False),
    ("streams broken at each answer", _at("attach.recall", "error"), "prompt", False),
    ("fetches refused", _at("GetBlocks", "error", code="INTERNAL"), "prompt", False),
    ("checksums that do not hold", _at("get_blocks.block", "corrupt", field="crc32c"), "prompt", False),
    ("blocks that no session has", _at("attach.recall", "corrupt", field="block"), "prompt", False),
    ("puts that no longer are what was sent", _at("put_blocks.piece", "corrupt", field="crc32c"), "read", False),
    ("a disk that decays", _at("disk.read", "corrupt"), "prompt", False),
    ("a disk that cannot be read", _at("disk.read", "error"), "prompt", False),
    ("a full disk", _at("disk.write", "error", code="ENOSPC", after=24), "read", True),
]


def _start_with(process: ServerProcess, rule: dict[str, Any], folder: Path) -> None:
    rules = folder / "faults.json"
    rules.write_text(json.dumps({"seed": 3, "rules": [rule]}))
    process.arguments = ("--faults", str(rules), "--log-level", "error")
    process.start()


@pytest.mark.parametrize(("rule", "phase", "lost"), [row[1:] for row in RULES], ids=[row[0] for row in RULES])
def test_a_generation_goes_on_beside_a_server_with_faults_and_recovers_once_it_has_none(
    rule: dict[str, Any],
    phase: str,
    lost: bool,
    process: ServerProcess,
    model: PreTrainedModel,
    attended: Attended,
    tmp_path: Path,
) -> None:
    """Proves that a rehearsal with `--faults` is what an outage is, on the wire and on the disk, and that it ends."""
    _start_with(process, rule, tmp_path)

    def change(begins: bool) -> None:
        if not begins:
            process.kill()
            process.arguments = ()
            process.start()

    with MemoryClient(process.address, IMPATIENT) as client, attach(model, client, QUICK) as attached:
        generate_through(attached, change, phase, lost=lost)


def test_a_tail_that_cannot_be_made_durable_is_an_error_and_the_model_goes_on(
    process: ServerProcess, model: PreTrainedModel, tmp_path: Path
) -> None:
    """Proves that a disk that refuses to sync is told to whoever asks for durability, and to nobody else."""
    # Enough for a session to be made and opened.
    _start_with(process, _at("disk.sync", "error", after=12), tmp_path)
    with (
        MemoryClient(process.address, IMPATIENT) as client,
        attach(model, client, QUICK) as attached,
        reading(attached) as reader,
    ):
        with pytest.raises(MemoryRefused, match=r"got Input/output error|got an earlier failure"):
            _save_until_refused(reader)
        reader.read(TEXT[reader.position :])
        reader.prompt(QUESTION)
        assert_same(say(attached, reader, STEPS), with_window_only(attached))
        assert is_lost(reader)


def _save_until_refused(reader: Reader) -> None:
    while reader.position < len(TEXT):
        reader.read(TEXT[reader.position : reader.position + 64])
        reader.save_tail()


def test_a_prompt_that_memory_has_no_room_for_is_a_gap_and_a_text_an_error(
    process: ServerProcess, model: PreTrainedModel
) -> None:
    """Proves that a hung server and a full outbox fail whoever stores a text, and nobody who asks a question."""
    process.start()
    # Room for a chunk or two, and no block.
    small = dataclasses.replace(IMPATIENT, outbox_bytes_max=1 << 16, arena_bytes=0, stall_timeout_s=0.2)
    with (
        MemoryClient(process.address, small) as client,
        attach(model, client, QUICK) as attached,
        reading(attached) as reader,
        reading(attached) as another,
    ):
        control = attached.without_memory()
        control.prompt(TEXT)
        with stopped(process.pid):
            reader.prompt(TEXT)
            assert_same(say(attached, reader, STEPS), say(attached, control, STEPS))
            with pytest.raises(MemoryUnavailable, match="no acknowledgement"):
                another.read(TEXT)
        assert any("tokens are missing from memory" in why for why in reader.degraded)
        assert recalls_again(reader), reader.degraded


def test_a_server_that_is_away_at_the_start_is_told_and_the_model_goes_on_alone(
    process: ServerProcess, model: PreTrainedModel
) -> None:
    """Proves that opening a session raises within its timeout, and that window and model are untouched by that."""
    process.start()
    with MemoryClient(process.address, IMPATIENT) as client, attach(model, client, QUICK) as attached:
        before = with_window_only(attached)
        process.kill()
        with pytest.raises(MemoryUnavailable, match=r"^[^\n]*expected a memory server at[^\n]*$"):
            attached.temporary_writer("away").__enter__()
        assert_same(with_window_only(attached), before)
