"""Steps of a log that are replayed as one."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memsvc.session.joined_steps import JoinedSteps
from memsvc.session.records import Layout, RecordKind, StepRecord, pack_step, unpack_step
from memsvc.session.recovery import recover
from memsvc.session.state import SessionState
from memsvc.session.tokens import TokenText
from memsvc.session.vectors import RECENT_TOKENS
from tests.session_driver import Node, Text, memory_of


def _steps(node: Node, ends: Iterable[int]) -> list[StepRecord]:
    """The logged steps after centring of a text that is read up to these positions."""
    writer = node.open()
    writer.read(Text(2000), ends)
    layout = Layout.of(writer.session.core.spec)
    records = writer.session.core.files.reread()
    steps = [unpack_step(record.body, layout) for record in records if record.kind == RecordKind.STEP]
    return [own for own in steps if own.kept is not None]


def _with_text(own: StepRecord) -> StepRecord:
    sizes = own.step.ids % 5
    return replace(own, step=replace(own.step, text=TokenText(bytes(int(sizes.sum())), sizes)))


def test_a_joined_step_holds_what_its_steps_hold(node: Node) -> None:
    """Proves that the log of a joined step is that of its steps, one after the other, and that none is left."""
    steps, joined = [_with_text(own) for own in _steps(node, range(100, 500, 50))], JoinedSteps()
    for own in steps:
        assert joined.fits(own)
        joined.add(own)
    assert joined.end == 450
    whole = joined.take()
    assert not joined
    assert (whole.step.first_position, whole.step.count, whole.seq) == (100, 350, steps[0].seq)
    joined_keys = {"ids", "text", "text_sizes", "decided", "signal", "forced", "kept", "parents", "weights"}
    for key in joined_keys:
        assert pack_step(whole)[key] == b"".join(pack_step(own)[key] for own in steps)
    named_keys = {"signals", "measured", "rows"}
    for key in named_keys:
        for name, values in pack_step(whole)[key].items():
            assert values == b"".join(pack_step(own)[key][name] for own in steps)
    # Nothing else is in a step: what is added to one is to be joined, too.
    empty_keys = {"block_gaps", "raw", "centre"}
    assert not any(pack_step(whole)[key] for key in empty_keys)
    of_the_first = {"attachment", "seq", "first", "count", "gap"}
    assert set(pack_step(whole)) == joined_keys | named_keys | empty_keys | of_the_first


@pytest.mark.parametrize("ends", [[100, 400, 700, 1000], [100, 400, 995, 1000], [100, 990, *range(991, 1001)]])
def test_joined_steps_keep_the_vectors_that_one_step_would(node: Node, tmp_path: Path, ends: list[int]) -> None:
    """Proves that of older steps the vectors of bookmarks are kept, and those of the newest tokens of the last ones."""
    other, joined = Node(tmp_path / "other"), JoinedSteps()
    other.create()
    (whole,) = _steps(other, [100, 1000])
    other.close()
    for own in _steps(node, ends):
        joined.add(own)
    kept, expected = joined.take().kept, whole.kept
    assert kept is not None
    assert expected is not None
    assert set(expected.positions.tolist()) <= set(kept.positions.tolist())
    # What the last long step had as its newest tokens is kept as well.
    assert len(kept) <= len(expected) + RECENT_TOKENS
    assert np.array_equal(kept.at(expected.positions).rows["s0"], expected.rows["s0"])


@pytest.mark.parametrize(
    "what", ["a gap", "block gaps", "ids", "text", "signals", "measured", "not centred", "many tokens"]
)
def test_steps_of_another_form_are_taken_apart(node: Node, what: str) -> None:
    """Proves that a step joins only what it follows without a gap, with the same things in it, up to 4,096 tokens."""
    first, second = _steps(node, [100, 150, 200])
    step = second.step
    changed = {
        "a gap": replace(second, step=replace(step, first_position=step.first_position + 3, gap_tokens=3)),
        "block gaps": replace(second, step=replace(step, block_gaps=(range(1, 2),))),
        "ids": replace(second, step=replace(step, ids=np.empty(0, dtype=np.uint32))),
        "text": _with_text(second),
        "signals": replace(second, step=replace(step, signals={})),
        "measured": replace(second, measured={"distance": np.zeros(step.count, dtype=np.float32)}),
        "not centred": replace(second, kept=None),
        "many tokens": replace(second, step=replace(step, count=4096 - first.step.count + 1)),
    }
    joined = JoinedSteps()
    joined.add(first)
    assert joined.fits(second)
    assert not joined.fits(changed[what])


def test_a_long_step_is_taken_by_itself(node: Node) -> None:
    """Proves that more tokens than are joined are replayed all the same, after those that waited."""
    (own,) = _steps(node, [100, 150])
    joined = JoinedSteps()
    assert joined.fits(replace(own, step=replace(own.step, count=10_000)))


def test_a_session_of_many_short_steps_is_replayed_in_few(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that steps of a token each, with blocks and tails among them, come back as they were, 40 times fewer."""
    writer = node.open()
    writer.read(Text(2000), [200, *range(201, 700)])
    writer.save_tail()
    writer.send(Text(2000), 720, gap=7)
    writer.read(Text(2000), range(721, 1000))
    records, core = writer.session.core.files.reread(), writer.session.core
    taken: list[int] = []

    def noting(state: SessionState, record: StepRecord) -> None:
        taken.append(record.step.count)
        replay(state, record)

    replay = SessionState.replay_step
    monkeypatch.setattr(SessionState, "replay_step", noting)
    recovered = recover(records, core.spec, core.files.shards)
    logged = sum(record.kind == RecordKind.STEP for record in records)
    assert len(taken) * 40 < logged
    assert sum(taken) == recovered.state.tokens.received
    assert recovered.applied_seq == logged
    before = memory_of(writer.session)
    core.state = recovered.state
    assert memory_of(writer.session) == before
