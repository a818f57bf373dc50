"""What was acknowledged survives kill -9: the same recalls and answers, and nothing is read again."""

from pathlib import Path

from attn_client.generate import greedy
from attn_client.hf.attach import Attached, attach
from attn_client.memory import MemoryClient, RecallAnswer
from tests.e2e.models import random_ids, tiny_model
from tests.e2e.process import ServerProcess
from tests.e2e.settings import SMALL

SESSION = "notes"


def _ask(attached: Attached, question: list[int]) -> tuple[list[int], list[RecallAnswer], int]:
    with attached.view(SESSION) as reader:
        begins = reader.position
        reader.prompt(question)
        said = list(greedy(attached.passes, reader, 10, frozenset()))
        assert reader.degraded == ()
        assert reader.recalls is not None
        return said, list(reader.recalls.answers), begins


def test_a_killed_server_answers_the_same_after_its_start(data: Path) -> None:
    """Proves that log and blocks alone bring back bookmarks, links, recalls and answers, bit for bit."""
    model, ids, question = tiny_model("llama"), random_ids(900, seed=31), random_ids(50, seed=32)
    server = ServerProcess(data)
    server.start()
    with attach(model, server.address, SMALL) as attached:
        with attached.writer(SESSION) as reader:
            reader.read(ids)
        before = _ask(attached, question)
        listed = attached.client.list_bookmarks(SESSION, 0, 10_000)
    server.kill()
    server.start()
    with attach(model, server.address, SMALL) as attached:
        after = _ask(attached, question)
        assert attached.client.list_bookmarks(SESSION, 0, 10_000) == listed
        info = attached.client.get_session(SESSION)
    server.stop()
    assert before == after
    assert before[1][0].blocks
    # Nothing was read again: the view began where the text ended, and the session holds what it held.
    assert after[2] == info.tokens == len(ids)


def test_two_processes_get_the_same_and_change_nothing(data: Path) -> None:
    """Proves that asking is reading: two clients get equal answers and the session is as it was."""
    model, ids, question = tiny_model("qwen3"), random_ids(900, seed=41), random_ids(50, seed=42)
    with ServerProcess(data) as server:
        with attach(model, server.address, SMALL) as attached:
            with attached.writer(SESSION) as reader:
                reader.read(ids)
            first = _ask(attached, question)
            before = attached.client.get_session(SESSION)
        with attach(tiny_model("qwen3"), server.address, SMALL) as attached:
            assert _ask(attached, question) == first
            assert attached.client.get_session(SESSION) == before


def test_a_new_writer_after_a_restart_goes_on_as_if_nothing_happened(data: Path) -> None:
    """Proves that the tail holds all that a writer needs: text read in two lives equals text read in one."""
    model, ids = tiny_model("llama"), random_ids(1000, seed=51)
    server = ServerProcess(data)
    server.start()
    with attach(model, server.address, SMALL) as attached, attached.writer("whole") as reader:
        reader.read(ids[:512])
        reader.save_tail()
        reader.read(ids[512:])
    with attach(model, server.address, SMALL) as attached, attached.writer(SESSION) as reader:
        reader.read(ids[:512])
    server.kill()
    server.start()
    with attach(model, server.address, SMALL) as attached, attached.writer(SESSION) as reader:
        assert reader.position == 512
        reader.read(ids[512:])
    with MemoryClient(server.address) as client:
        whole, parts = (client.list_bookmarks(name, 0, 10_000) for name in ("whole", SESSION))
    server.stop()
    assert whole == parts
    assert len(whole.bookmarks) > 50


def test_what_a_lost_writer_wrote_past_its_tail_is_not_there(data: Path) -> None:
    """Proves that a session is never half of two readings: a new writer starts at the newest tail."""
    model, ids = tiny_model("llama"), random_ids(900, seed=61)
    server = ServerProcess(data)
    server.start()
    with attach(model, server.address, SMALL) as attached:
        with attached.writer(SESSION) as reader:
            reader.read(ids[:400])
        lost = attached.writer(SESSION)
        reader = lost.__enter__()
        reader.read(ids[400:])
        server.kill()
        lost.gen.close()
    server.start()
    with attach(model, server.address, SMALL) as attached, attached.writer(SESSION) as reader:
        assert reader.position == 400
    server.stop()
