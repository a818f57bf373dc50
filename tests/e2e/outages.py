"""A generation that an outage meets: what it must say, and what it must say again once memory is back.

A model of random weights reads a text and is asked. While memory is out, what it says has to be, bit for bit, what the
same model says with sinks and window only; once memory is back, recalls have to be used again.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attn_client.hf.attach import Attached
from attn_client.memory import ClientSettings, MemorySession
from attn_client.reader import Reader, decode
from attn_client.residents import ResidentBlock, Residents
from attn_client.settings import ProbeSettings, RecallSettings, Settings, WindowSettings
from tests.e2e.models import random_ids, tiny_model
from tests.e2e.settings import SMALL

TEXT = random_ids(576, seed=201)
QUESTION = random_ids(40, seed=202)
STEPS = 5
# What a test that fails waits for; nothing waits so long in one that passes.
PATIENCE_S = 30.0

QUICK = Settings(
    window=WindowSettings(sink_tokens=64, window_tokens=128, chunk_tokens=64),
    recall=RecallSettings(top_blocks=2, neighbours=1, budget_blocks=4, timeout_s=0.4),
    probe=ProbeSettings(layer=1, salience_vocabulary=0),
    bookmarks=SMALL.bookmarks,
)
IMPATIENT = ClientSettings(
    reconnect_first_s=0.02, reconnect_max_s=0.1, stall_timeout_s=1.0, call_timeout_s=2.0, arena_bytes=4 << 20
)

Bytes = npt.NDArray[np.uint8]
Said = list[tuple[int, Tensor]]


@dataclass
class Attended:
    """What was put into memory and what was attended to, of one test."""

    put: dict[tuple[int, int], bytes] = field(default_factory=dict)
    blocks: list[tuple[int, int, bytes]] = field(default_factory=list)

    def check(self, *, some: bool = True) -> None:
        """Every block that was attended to has the bytes that its session was given."""
        assert self.blocks or not some
        wrong = [(session, block) for session, block, data in self.blocks if self.put[session, block] != data]
        assert wrong == []


@pytest.fixture(scope="module")
def model() -> Iterator[PreTrainedModel]:
    """One model for all, on one thread: so small a one gains nothing by more, and waits for them beside servers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_model("llama")
    torch.set_num_threads(threads)


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attended]:
    """Watches what readers put and attend to; checked at the end of the test."""
    seen = Attended()
    put_block, set_recalled, init = MemorySession.put_block, Residents.set_recalled, Reader.__init__
    owner: dict[int, int] = {}

    def put(session: MemorySession, block: int, data: Bytes, *, wait: bool) -> None:
        seen.put[id(session), block] = data.tobytes()
        put_block(session, block, data, wait=wait)

    def recalled(residents: Residents, blocks: tuple[ResidentBlock, ...], before: int) -> None:
        seen.blocks += [(owner[id(residents)], one.block, one.data.tobytes()) for one in blocks]
        set_recalled(residents, blocks, before)

    def made(reader: Reader, *arguments: object, **named: object) -> None:
        init(reader, *arguments, **named)  # type: ignore[arg-type]
        owner[id(reader.residents)] = id(reader.memory)

    monkeypatch.setattr(MemorySession, "put_block", put)
    monkeypatch.setattr(Residents, "set_recalled", recalled)
    monkeypatch.setattr(Reader, "__init__", made)
    yield seen
    seen.check()


def say(attached: Attached, reader: Reader, count: int) -> Said:
    """The likeliest next tokens and the logits they were chosen by; all but the last are read."""
    said, logits = [], reader.next_logits()
    for step in range(count):
        said.append((int(logits.argmax()), logits.clone()))
        if step + 1 < count:
            (logits,) = decode(attached.passes, [reader], [said[-1][0]])
    return said


def assert_same(came: Said, expected: Said) -> None:
    """Tokens and logits are equal, bit for bit."""
    assert [token for token, _ in came] == [token for token, _ in expected]
    assert all(torch.equal(one[1], other[1]) for one, other in zip(came, expected, strict=True))


def with_window_only(attached: Attached) -> Said:
    """What the same model says to the question without any memory."""
    control = attached.without_memory()
    control.read(TEXT)
    control.prompt(QUESTION)
    return say(attached, control, STEPS)


def twin_of(attached: Attached, reader: Reader) -> Reader:
    """A reader without memory, with what this one has on the device now."""
    twin = attached.without_memory()
    twin.residents = reader.residents.copy()
    twin._last_hidden, twin._logits, twin._last_id = reader._last_hidden, reader._logits, reader._last_id
    return twin


def recalls_again(reader: Reader) -> bool:
    """Ask until a recall is attended to; False: the session was given up."""
    recalls = reader.recalls
    assert recalls is not None
    deadline, turn = time.monotonic() + PATIENCE_S, 0
    while True:
        reader.prompt(random_ids(8, seed=300 + turn))
        if recalls.prompted is not None and recalls.prompted.blocks:
            return True
        if is_lost(reader):
            return False
        assert time.monotonic() < deadline, reader.degraded
        wait_until_up(reader)
        turn += 1


def decodes_with_recalls(attached: Attached, reader: Reader) -> None:
    """Decode until a token attends to what was recalled for decoding."""
    assert reader.recalls is not None
    deadline, used = time.monotonic() + PATIENCE_S, len(reader.recalls.answers)
    token = int(reader.next_logits().argmax())
    while reader.recalls.missing or not reader.residents.recalled_blocks or len(reader.recalls.answers) == used:
        assert time.monotonic() < deadline, reader.degraded
        wait_until_up(reader)
        token = int(decode(attached.passes, [reader], [token])[0].argmax())


def wait_until_up(reader: Reader) -> None:
    """Until its client is connected."""
    assert reader.memory is not None
    link = reader.memory._link
    with link.changed:
        assert link.changed.wait_for(lambda: link.up, PATIENCE_S)


def _wait_until_lost(reader: Reader) -> None:
    assert reader.memory is not None
    link, attachment = reader.memory._link, reader.memory._attachment
    with link.changed:
        assert link.changed.wait_for(lambda: attachment.lost is not None, PATIENCE_S)


def is_lost(reader: Reader) -> bool:
    """Whether memory will not take it back."""
    return any("the session is lost" in why for why in reader.degraded)


def client_is_over(reader: Reader) -> bool:
    """Whether its client will not connect any more."""
    assert reader.memory is not None
    with reader.memory._link.changed:
        return reader.memory._link.failure is not None


@contextmanager
def reading(attached: Attached) -> Iterator[Reader]:
    """A reader of a session of its own, which is gone afterwards."""
    with attached.temporary_writer(f"outage-{uuid.uuid4().hex}") as reader:
        yield reader


def generate_through(attached: Attached, outage: Callable[[bool], None], phase: str, *, lost: bool) -> None:
    """Read, ask and decode with an outage in one phase of it, checked; and recover.

    Args:
        outage: Begins it, or ends it.
        phase: When it begins: while the text is `read`, before the `prompt`, or in the middle of the `decode`.
        lost: The session is given up over it; then it is another one that recovers.
    """
    with reading(attached) as reader:
        if phase == "decode":
            _decode_through(attached, reader, outage)
        else:
            _answer_through(attached, reader, outage, phase)
        assert reader.degraded
        outage(False)
        if lost:
            reader.prompt(QUESTION)
            _wait_until_lost(reader)
        else:
            assert recalls_again(reader), reader.degraded
            decodes_with_recalls(attached, reader)
        assert is_lost(reader) == lost, reader.degraded
    if lost:
        wait_until_up(reader)
        with reading(attached) as another:
            another.read(TEXT)
            assert recalls_again(another), another.degraded


def _answer_through(attached: Attached, reader: Reader, outage: Callable[[bool], None], phase: str) -> None:
    if phase == "read":
        outage(True)
    reader.read(TEXT)
    if phase == "prompt":
        assert reader.memory is not None
        reader.memory.settle(PATIENCE_S)
        outage(True)
    reader.prompt(QUESTION)
    assert_same(say(attached, reader, STEPS), with_window_only(attached))


def _decode_through(attached: Attached, reader: Reader, outage: Callable[[bool], None]) -> None:
    reader.read(TEXT)
    assert recalls_again(reader), reader.degraded
    decodes_with_recalls(attached, reader)
    outage(True)
    # What was asked for before may still come.
    for _ in range(attached.settings.recall.lag_tokens + 2):
        say(attached, reader, 2)
    assert reader.residents.recalled_blocks == ()
    twin = twin_of(attached, reader)
    assert_same(say(attached, reader, STEPS), say(attached, twin, STEPS))
