"""For every policy and metric the log gives the session back, bit for bit and without a search, and it goes on."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memsvc.policy.earlier import EarlierBookmarks
from tests.session_driver import METRICS, POLICIES, Node, Text, memory_of, session_spec

TEXT = Text(3000)
# Far longer than what a step's record keeps of its vectors, and shorter.
STEPS = st.lists(st.sampled_from([1, 3, 64, 200, 450]), min_size=1, max_size=5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=STEPS, after=st.lists(st.sampled_from([1, 64, 150]), min_size=1, max_size=4), tail=st.booleans())
def test_a_replay_gives_the_same_session(
    policy: str, metric: str, before: list[int], after: list[int], tail: bool
) -> None:
    """Proves that memory is the same after a kill, and after going on from there, as without one."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder) / "node")
        node.create(session_spec(policy, metric=metric))
        writer = node.open()
        writer.read(TEXT, _ends(before, 0))
        if tail:
            writer.save_tail()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EarlierBookmarks, "best", _unasked)
            replayed = node.crash()
            resumed = replayed.open(resume_epoch=writer.opened.epoch)
        assert memory_of(resumed.session) == memory_of(writer.session)
        for reader in (writer, resumed):
            # Each would write to the log of the other's node: their folders part here.
            reader.session.core.files.append = lambda kind, epoch, body: None
            for end in _ends(after, reader.position):
                reader.send(TEXT, end)
        assert memory_of(resumed.session) == memory_of(writer.session)
        replayed.close()
        node.close()


def _ends(steps: list[int], position: int) -> list[int]:
    return [position + sum(steps[: at + 1]) for at in range(len(steps))]


def _unasked(*_: object) -> None:
    raise AssertionError("expected a replay that compares nothing")
