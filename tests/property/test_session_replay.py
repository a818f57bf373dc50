"""A session that was killed at any point is the session that its log says, and goes on as if nothing had happened."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memsvc.log_format import FILE_NAME
from protos.memsvc.v1 import memory_pb2
from tests.session_driver import POLICIES, Node, Reader, Text, memory_of, session_spec

TEXT, OTHER = Text(1200), Text(1200, seed=2)
SLOW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# What a writer does one after the other: (what, tokens).
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["read", "ask", "gap", "tail"]), st.integers(1, 90)), min_size=1, max_size=8
)
Actions = list[tuple[str, int]]


def _act(reader: Reader, actions: Actions, text: Text = TEXT) -> list[bytes]:
    """Carries actions out; returns the recalls as bytes."""
    recalls = []
    for what, tokens in actions:
        end = reader.position + tokens
        if what == "read":
            reader.read(text, [end])
        elif what == "ask":
            recalls.append(reader.ask(text, end).SerializeToString())
        elif what == "gap":
            missing = range(reader.position // 64, (reader.position + 7 + tokens) // 64)
            reader.send(text, end + 7, gap=7)
            reader.put(missing)
        else:
            reader.save_tail()
    return recalls


@pytest.mark.parametrize("policy", [*POLICIES])
@SLOW
@given(actions=ACTIONS, later=ACTIONS)
def test_a_killed_writer_resumes_where_it_was(policy: str, actions: Actions, later: Actions) -> None:
    """Proves that after a kill memory is the same bit for bit, and that what is then written and recalled is too."""
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Node(Path(folder) / "killed"), Node(Path(folder) / "whole")
        for node in (killed, whole):
            node.create(session_spec(policy))
        first, twin = killed.open(), whole.open()
        assert _act(first, actions) == _act(twin, actions)
        after = killed.crash()
        assert memory_of(after.sessions.get("book")) == memory_of(first.session)
        second = after.open(resume_epoch=first.opened.epoch)
        assert (second.position, second.seq) == (first.position, first.seq)
        assert _act(second, later) == _act(twin, later)
        assert memory_of(second.session) == memory_of(twin.session)
        for node in (after, whole):
            node.close()


@pytest.mark.parametrize("policy", [*POLICIES])
@SLOW
@given(kept=ACTIONS, lost=ACTIONS, later=ACTIONS, restarted=st.booleans())
def test_a_new_writer_starts_at_the_tail(
    policy: str, kept: Actions, lost: Actions, later: Actions, restarted: bool
) -> None:
    """Proves that what a lost writer wrote after the tail leaves no trace, in memory or in a later replay."""
    lost = [action for action in lost if action[0] != "tail"]
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Node(Path(folder) / "killed"), Node(Path(folder) / "whole")
        for node in (killed, whole):
            node.create(session_spec(policy))
        first, twin = killed.open(), whole.open()
        _act(first, [*kept, ("tail", 0)])
        _act(twin, [*kept, ("tail", 0)])
        _act(first, lost, OTHER)
        if restarted:
            killed = killed.crash()
        else:
            killed.sessions.worker_gone("w-one")
        second = killed.open("two")
        assert (second.position, second.seq, second.opened.epoch) == (twin.position, 0, 2)
        assert second.opened.tail.position == twin.position
        twin.save_tail()
        twin_recalls = [_without_origin(own) for own in _act(twin, later)]
        assert [_without_origin(own) for own in _act(second, later)] == twin_recalls
        assert memory_of(second.session) == memory_of(twin.session)
        assert memory_of(killed.crash().sessions.get("book")) == memory_of(twin.session)
        killed.close()
        whole.close()


def _without_origin(packed: bytes) -> bytes:
    recall = memory_pb2.Recall.FromString(packed)
    recall.attachment, recall.seq = "", 0
    return recall.SerializeToString()


@SLOW
@given(actions=ACTIONS, share=st.floats(0, 1))
def test_a_log_cut_at_any_byte_is_the_session_after_some_record(actions: Actions, share: float) -> None:
    """Proves that a write torn by a crash takes back whole records only, never a part of one."""
    actions = [action for action in actions if action[0] != "tail"]
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder) / "node")
        node.create()
        writer = node.open()
        log = next((Path(folder) / "node").glob(f"sessions/*/{FILE_NAME}"))
        lengths, memories = [log.stat().st_size], [memory_of(writer.session)]

        append = writer.session.core.files.append

        def noting(kind: int, epoch: int, body: dict) -> None:
            append(kind, epoch, body)
            lengths.append(log.stat().st_size)

        writer.session.core.files.append = noting
        for action in actions:
            steps = len(lengths)
            _act(writer, [action])
            # Blocks come in records of their own: only the last memory of an action is known.
            memories += [None] * (len(lengths) - steps - 1) + [memory_of(writer.session)] * (len(lengths) > steps)
        length = lengths[0] + round(share * (lengths[-1] - lengths[0]))
        copy = Path(folder) / "copy"
        shutil.copytree(Path(folder) / "node", copy)
        with next(copy.glob(f"sessions/*/{FILE_NAME}")).open("r+b") as file:
            file.truncate(length)
        whole = max(at for at, own in enumerate(lengths) if own <= length)
        reopened = Node(copy)
        memory = memory_of(reopened.sessions.get("book"))
        assert memories[whole] in (None, memory)
        reopened.close()
        node.close()
