"""The recalls of one row over a memory session, against a scripted server."""

from collections.abc import Iterator

import pytest

from attn_client.memory import HopAsk, MemoryClient, MemorySession
from attn_client.recall import ANSWERS_KEPT, MISSED_KEPT, LaggedRecall
from attn_client.settings import BLOCK_TOKENS, RecallSettings
from tests.integration.client_records import LONG_S, block_of, record, settings, writer
from tests.integration.scripted_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture
def session(scripted: ScriptedServer) -> Iterator[MemorySession]:
    """A writer whose server holds the block that it recalls."""
    scripted.blocks[3] = block_of(3).tobytes()
    with MemoryClient(scripted.address, settings()) as client:
        yield writer(client)


def _recalls(session: MemorySession) -> LaggedRecall:
    return LaggedRecall(session, RecallSettings(lag_tokens=1, timeout_s=LONG_S))


def _asked(session: MemorySession, recalls: LaggedRecall) -> None:
    seq = session.append(record(session.position, 1, recalls.ask()), wait=True)
    assert seq is not None
    # Past the block that is recalled.
    recalls.asked(seq, session.position + 4 * BLOCK_TOKENS)


def test_links_are_asked_for_where_the_settings_say_so(session: MemorySession) -> None:
    """Proves that settings about hops reach the request, and that none are asked for by default."""
    assert _recalls(session).ask().hops is None
    asked = LaggedRecall(session, RecallSettings(hops=2, hop_blocks=3, link_half_life_tokens=4096)).ask()
    assert asked.hops == HopAsk(2, 3, 4096)


def test_a_long_decode_keeps_no_more_than_the_newest_answers(session: MemorySession) -> None:
    """Proves that what is remembered of used recalls does not grow with the tokens decoded."""
    recalls = _recalls(session)
    for _ in range(ANSWERS_KEPT + 10):
        _asked(session, recalls)
        recalls.due()
    assert len(recalls.answers) == ANSWERS_KEPT
    assert recalls.answers[-1].asked_at == session.position - 2
    assert recalls.degraded == ()


def test_recalls_that_never_come_are_told_first_in_words_then_as_a_number(
    scripted: ScriptedServer, session: MemorySession
) -> None:
    """Proves that a long decode beside a server that refuses says so in a bounded number of lines."""
    missed = MISSED_KEPT + 10
    scripted.script.recall_faults = dict.fromkeys(range(1, missed + 1), "DEADLINE_EXCEEDED")
    recalls = _recalls(session)
    for _ in range(missed):
        _asked(session, recalls)
        recalls.due()
    recalls.now()
    assert len(recalls.degraded) == MISSED_KEPT + 1
    assert recalls.degraded[0].startswith("recall 1 did not come")
    assert recalls.degraded[-1].startswith("10 more recalls")


def test_a_prompt_without_an_answer_does_not_show_an_earlier_one(
    scripted: ScriptedServer, session: MemorySession
) -> None:
    """Proves that what a prompt attended to is its own recall, and nothing where that did not come."""
    scripted.script.recall_faults = {2: "DEADLINE_EXCEEDED"}
    recalls = _recalls(session)
    _asked(session, recalls)
    assert recalls.now() is not None
    assert recalls.prompted is not None
    assert [block.block for block in recalls.prompted.blocks] == [3]
    _asked(session, recalls)
    assert recalls.now() is None
    assert recalls.prompted is None
