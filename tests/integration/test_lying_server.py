"""A server that says what cannot be: the client refuses it in words, and goes on with what can."""

import time

import pytest

from attn_client.errors import MemoryUnavailable
from attn_client.memory import MemoryClient
from protos.memsvc.v1 import memory_pb2, types_pb2
from tests.integration.client_records import ASK, LONG_S, block_of, record, settings, settle, until_empty, writer
from tests.integration.scripted_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def _recall(scripted: ScriptedServer, **changes: object) -> dict[str, object]:
    block = memory_pb2.RecalledBlock(block=3, score=2.0, z=1.5, reached=memory_pb2.REACHED_TRAIL, via_block=3)
    given = {"attachment": scripted.steps[-1].attachment, "seq": scripted.steps[-1].seq, "blocks": [block]}
    return {**given, "asked_at_position": scripted.position - 1, **changes}


@pytest.mark.parametrize(
    "lie",
    [
        {"asked_at_position": 5},
        {"blocks": [memory_pb2.RecalledBlock(block=3, reached=memory_pb2.REACHED_UNSPECIFIED)]},
        {"blocks": [{"block": 3, "reached": 77}]},
    ],
    ids=["as of another token", "reached in no way", "reached in a way nobody knows"],
)
def test_an_answer_that_cannot_be_is_no_answer_and_the_next_one_is(
    lie: dict[str, object], scripted: ScriptedServer
) -> None:
    """Proves that one bad answer costs that recall, and neither the session nor the connection."""
    scripted.script.recalling = False
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        for first, changes in ((0, lie), (64, {})):
            seq = session.append(record(first, ask=ASK), wait=True)
            assert seq is not None
            scripted.wait_for(lambda first=first: scripted.position == first + 64)
            scripted.say(recall=_recall(scripted, **changes))
            answer = session.recall(seq, LONG_S)
            assert (answer is None) == bool(changes)
        assert session.degraded_reasons == ()


def test_a_server_that_answers_late_costs_one_wait_until_it_is_quick_again(scripted: ScriptedServer) -> None:
    """Proves that decoding does not wait at each step for a server that acknowledges steps and answers them late."""
    scripted.script.recalling = False
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)

        def asked() -> int:
            seq = session.append(record(session.position, ask=ASK), wait=True)
            until_empty(session)
            return seq or 0

        assert session.recall(asked(), 0.01, patient=False) is None
        # Both would go on until the end of their time if they waited.
        began = time.monotonic()
        assert session.recall(asked(), LONG_S, patient=False) is None
        assert session.recall(asked(), LONG_S, patient=False) is None
        assert time.monotonic() - began < LONG_S
        # Whoever insists waits and is answered, but not as soon as the first wait ended: later ones do not wait either.
        seq = asked()
        time.sleep(0.01)
        scripted.say(recall=_recall(scripted))
        assert session.recall(seq, LONG_S) is not None
        assert session.recall(asked(), LONG_S, patient=False) is None
        assert session._attachment.recalls.late
        # An answer within the patience of the last wait that ran out, also to a step that nobody waits for any more.
        session._attachment.recalls.ran_out(LONG_S)
        scripted.say(recall=_recall(scripted))
        with session._link.changed:
            assert session._link.changed.wait_for(lambda: not session._attachment.recalls.late, LONG_S)


def test_a_server_that_gives_no_credit_is_not_one_to_send_to(scripted: ScriptedServer) -> None:
    """Proves that limits of zero are refused at the greeting, where they would stop every step, and tried again."""
    scripted.script.welcome.credit_tokens = 0
    with pytest.raises(MemoryUnavailable, match=r"Welcome with credit and limits above 0, got \(0, 256, 1048576\)"):
        MemoryClient(scripted.address, settings(connect_timeout_s=0.3))
    scripted.script.welcome.credit_tokens = 1000
    with MemoryClient(scripted.address, settings(connect_timeout_s=LONG_S)) as client:
        settle(writer(client), 0)


def test_a_server_that_claims_more_blocks_than_there_are_is_not_counted_through(scripted: ScriptedServer) -> None:
    """Proves that a range of 2**60 stored blocks costs no time, and that what is in it counts as stored."""
    with MemoryClient(scripted.address, settings()) as client:
        session = writer(client)
        session.append(record(0), wait=True)
        session.put_block(0, block_of(0), wait=True)
        settle(session, 64)
        scripted.script.stored = [types_pb2.Range(first=0, count=2**60)]
        scripted.break_streams()
        scripted.wait_for(lambda: len(scripted.opened) == 2)
        session.append(record(64), wait=True)
        settle(session, 128)
        assert session.degraded_reasons == ()


def test_a_block_that_is_never_answered_for_goes_out_again(scripted: ScriptedServer) -> None:
    """Proves that an answer which is lost holds up no tail for ever: past a call's deadline the block is sent anew."""
    scripted.script.unanswered_puts = 1
    with MemoryClient(scripted.address, settings(call_timeout_s=0.2)) as client:
        session = writer(client)
        session.append(record(0), wait=True)
        session.put_block(0, block_of(0), wait=True)
        settle(session, 64)
        assert [block for block, _, _ in scripted.puts] == [0, 0]
        assert scripted.blocks == {0: block_of(0).tobytes()}
        assert session.degraded_reasons == ()
