"""Memory that is down, slow, flapping or lying in the middle of a generation: the model goes on and says so."""

import dataclasses
import json
import os
import random
from typing import Any

import pytest
from transformers import PreTrainedModel

from attn_client.embedded import EmbeddedServer
from attn_client.hf.attach import attach
from attn_client.memory import MemoryClient
from protos.faults import CODES, MESSAGES, PLACES, FaultPlan, Faults, Kind
from tests.e2e.outages import (
    IMPATIENT,
    QUESTION,
    QUICK,
    TEXT,
    Attended,
    attended,
    client_is_over,
    generate_through,
    model,
    reading,
    recalls_again,
    say,
    wait_until_up,
)

__all__ = ["attended", "model"]

Rules = list[dict[str, Any]]


def _at(place: str, kind: str, **more: object) -> dict[str, Any]:
    return {"place": place, "kind": kind, **more}


# Longer than a recall may take.
LATE_MS = 900
DOWN = [_at(place, "error") for place in ("attach.step", "attach.ack", "attach.recall", "call")]

# Name, rules in the client, and when the outage begins.
OUTAGES: list[tuple[str, Rules, str]] = [
    ("down while reading", DOWN, "read"),
    ("down before a prompt", DOWN, "prompt"),
    ("down while decoding", DOWN, "decode"),
    ("mute", [_at("attach.ack", "drop"), _at("attach.recall", "drop")], "prompt"),
    ("no credit while decoding", [_at("attach.ack", "drop"), _at("attach.recall", "drop")], "decode"),
    ("late answer", [_at("attach.recall", "delay", ms=LATE_MS)], "prompt"),
    ("late answers", [_at("attach.recall", "stall", ms=LATE_MS)], "decode"),
    ("late steps", [_at("attach.step", "delay", ms=LATE_MS)], "decode"),
    ("late blocks", [_at("get_blocks.block", "delay", ms=LATE_MS)], "prompt"),
    ("late fetch", [_at("GetBlocks", "delay", ms=LATE_MS)], "prompt"),
    ("lost answer", [_at("attach.recall", "drop")], "prompt"),
    ("lost fetch", [_at("GetBlocks", "drop")], "prompt"),
    ("lost blocks", [_at("get_blocks.block", "drop")], "prompt"),
    ("fetch refused", [_at("GetBlocks", "error", code="NOT_FOUND")], "prompt"),
    ("fetch failed", [_at("GetBlocks", "error", code="INTERNAL")], "prompt"),
    ("fetch broken off", [_at("get_blocks.block", "error")], "prompt"),
    ("flapping at each answer", [_at("attach.recall", "error")], "prompt"),
    ("flapping at each step", [_at("attach.step", "error")], "decode"),
    ("answer of another session", [_at("attach.recall", "corrupt", field="attachment")], "prompt"),
    ("answer to another step", [_at("attach.recall", "corrupt", field="seq")], "prompt"),
    ("answer as of another token", [_at("attach.recall", "corrupt", field="asked_at_position")], "prompt"),
    ("blocks that are not", [_at("attach.recall", "corrupt", field="block")], "prompt"),
    ("blocks that are not, decoding", [_at("attach.recall", "corrupt", field="block")], "decode"),
    ("scores that are none", [_at("attach.recall", "corrupt", field="z")], "prompt"),
    ("reached in no way", [_at("attach.recall", "corrupt", field="reached")], "decode"),
    ("other bytes", [_at("get_blocks.block", "corrupt", field="chunk")], "prompt"),
    ("other checksum", [_at("get_blocks.block", "corrupt", field="crc32c")], "prompt"),
    ("another block", [_at("get_blocks.block", "corrupt", field="block")], "prompt"),
    ("blocks lost on their way out", [_at("put_blocks.piece", "drop")], "read"),
    ("blocks damaged on their way out", [_at("put_blocks.piece", "corrupt", field="crc32c")], "read"),
    ("blocks never acknowledged", [_at("put_blocks.answer", "drop"), _at("attach.recall", "drop")], "read"),
    ("puts broken off", [_at("PutBlocks", "error")], "read"),
]
# Outages that are drawn, one a seed: a few in an ordinary run.
SEEDS = range(int(os.environ.get("OUTAGES", "6")))
# Those after which the server and the client no longer agree on the session.
LOSSES: list[tuple[str, Rules, str]] = [
    ("a step is lost", [_at("attach.step", "drop")], "decode"),
]


def _connected(server: EmbeddedServer, rules: Rules, seed: int = 5) -> tuple[MemoryClient, Faults]:
    faults = Faults(FaultPlan.parse(json.dumps({"seed": seed, "rules": rules}), PLACES))
    faults.switch(False)
    # In shared memory no message holds any bytes.
    in_messages = any(rule.get("field") == "chunk" for rule in rules)
    settings = dataclasses.replace(IMPATIENT, arena_bytes=0) if in_messages else IMPATIENT
    return MemoryClient(server.address, settings, faults=faults), faults


@pytest.mark.parametrize(("rules", "phase"), [row[1:] for row in OUTAGES], ids=[row[0] for row in OUTAGES])
def test_a_generation_goes_through_an_outage_and_recovers(
    rules: Rules, phase: str, server: EmbeddedServer, model: PreTrainedModel, attended: Attended
) -> None:
    """Proves that each way to fail costs what memory would have given, is told, and ends when the outage does."""
    client, faults = _connected(server, rules)
    with client, attach(model, client, QUICK) as attached:
        generate_through(attached, faults.switch, phase, lost=False)
        assert faults.made


@pytest.mark.parametrize(("rules", "phase"), [row[1:] for row in LOSSES], ids=[row[0] for row in LOSSES])
def test_a_session_that_is_lost_is_told_and_the_next_one_is_whole(
    rules: Rules, phase: str, server: EmbeddedServer, model: PreTrainedModel, attended: Attended
) -> None:
    """Proves that a generation ends well though its session cannot, and that the client serves others after it."""
    client, faults = _connected(server, rules)
    with client, attach(model, client, QUICK) as attached:
        generate_through(attached, faults.switch, phase, lost=True)
        assert faults.made


def _drawn(seed: int) -> Rules:
    """One to three rules, of any kind at any place of streams, fetches and connecting that every generation passes."""
    draw, rules = random.Random(seed), []
    passed = [place for place in MESSAGES if place not in ("attach.fault", "attach.drain")]
    for _ in range(draw.randint(1, 3)):
        place = draw.choice([*passed, "call", "GetBlocks", "PutBlocks", "OpenSession", "Attach"])
        kind = draw.choice(sorted(PLACES[place]))
        rule = _at(place, kind, probability=draw.choice([1.0, 0.5, 0.2]), after=draw.choice([0, 3, 20]))
        if kind in (Kind.DELAY, Kind.STALL):
            rule["ms"] = draw.choice([20, 600])
        if kind == Kind.ERROR:
            rule["code"] = draw.choice(CODES)
        rules.append(rule)
    return rules


@pytest.mark.parametrize("seed", SEEDS)
def test_a_generation_ends_whatever_goes_wrong_and_the_next_recalls(
    seed: int, server: EmbeddedServer, model: PreTrainedModel, attended: Attended
) -> None:
    """Proves for outages that nobody thought of that nothing raises, no wrong byte is attended to, and all is over
    once the outage is: with the same session, or, where that was given up, with the next."""
    client, faults = _connected(server, _drawn(seed), seed)
    with client, attach(model, client, QUICK) as attached:
        with reading(attached) as reader:
            faults.switch(True)
            reader.read(TEXT)
            reader.prompt(QUESTION)
            assert all(logits.isfinite().all() for _, logits in say(attached, reader, 30))
            faults.switch(False)
            recovered = recalls_again(reader)
            assert recovered or reader.degraded
        if client_is_over(reader):
            # A greeting of another version, which no client goes on after.
            return
        wait_until_up(reader)
        with reading(attached) as another:
            another.read(TEXT)
            assert recalls_again(another)
