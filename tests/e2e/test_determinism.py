"""The same embeddings give the same memory, whatever the step size, the delay or who else reads."""

import uuid
from collections.abc import Sequence

import pytest
import torch

from attn_client.embedded import EmbeddedServer
from attn_client.generate import greedy
from attn_client.hf.attach import Attached, attach
from attn_client.memory import MemoryClient, RecallAnswer, RecallAsk
from attn_client.settings import BookmarkSettings
from tests.e2e.models import random_ids, tiny_model
from tests.e2e.process import slowed
from tests.e2e.settings import SMALL
from tests.e2e.streams import Stream, send, stream_of

ASK = RecallAsk(top_blocks=4, neighbours=1, budget_blocks=12, deadline_ms=20_000)


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Embeddings, signals and blocks of 1,500 tokens, made once."""
    return stream_of(tokens=1500, seed=11)


@pytest.mark.parametrize("policy", ["every", "fixed", "surprisal"])
def test_bookmarks_links_and_recalls_do_not_depend_on_the_step_size(
    policy: str, stream: Stream, client: MemoryClient
) -> None:
    """Proves bit-for-bit equality of all that the server decided over five ways to cut the same stream."""
    seen = []
    for sizes in ([256], [1], [7, 64, 3, 200], [63], [1500]):
        name = f"steps-{uuid.uuid4().hex}"
        spec = stream.spec(BookmarkSettings(policy=policy, coverage=0.2, centring_tokens=300))
        client.create_session(name, spec)
        session = client.open_writer(name, spec.fingerprint)
        answers = send(session, stream, sizes, ask_at=[500, 999, 1499], ask=ASK)
        session.save_tail(1500, None, 0, stream.block(1500 // 64))
        session.close()
        listed = client.list_bookmarks(name, 0, 10_000)
        seen.append((answers, [bookmark.SerializeToString(deterministic=True) for bookmark in listed.bookmarks]))
        client.delete_session(name)
    assert len(seen[0][1]) > 20
    assert any(answer.blocks for answer in seen[0][0])
    assert all(one == seen[0] for one in seen)


def test_the_same_text_gives_the_same_answer_again(client: MemoryClient) -> None:
    """Proves that a second reading of the same ids gives the same tokens and recalls."""
    model, ids = tiny_model("llama"), random_ids(700, seed=5)
    with attach(model, client, SMALL) as attached:
        first, second = _read_and_answer(attached, ids), _read_and_answer(attached, ids)
    assert first == second
    assert first[1]


def test_a_slow_server_changes_nothing_but_the_time(client: MemoryClient, server: EmbeddedServer) -> None:
    """Proves that delays within the deadline show in no token and no recall."""
    model, ids = tiny_model("llama"), random_ids(700, seed=8)
    with attach(model, client, SMALL) as attached:
        fast = _read_and_answer(attached, ids)
        with slowed(server.pid, 0.3):
            slow = _read_and_answer(attached, ids)
    assert slow == fast
    assert fast[1]


def _read_and_answer(attached: Attached, ids: Sequence[int]) -> tuple[list[int], list[RecallAnswer]]:
    with attached.temporary_writer(f"again-{uuid.uuid4().hex}") as reader:
        reader.read(ids[:600])
        reader.prompt(ids[600:])
        said = list(greedy(attached.passes, reader, 10, frozenset()))
        assert reader.recalls is not None
        return said, list(reader.recalls.answers)


def test_eight_readers_beside_each_other_get_what_one_gets(client: MemoryClient) -> None:
    """Proves that views of one session do not disturb each other's trail, answer or the session."""
    model, ids = tiny_model("llama"), random_ids(700, seed=6)
    name = f"readers-{uuid.uuid4().hex}"
    questions = [random_ids(40, seed=100 + number) for number in range(8)]
    with attach(model, client, SMALL) as attached:
        with attached.writer(name) as reader:
            reader.read(ids)
        before = client.get_session(name)
        alone = []
        for question in questions:
            with attached.view(name) as reader:
                reader.prompt(question)
                alone.append(list(greedy(attached.passes, reader, 6, frozenset())))
        opened = [attached.view(name) for _ in questions]
        readers = [one.__enter__() for one in opened]
        for reader, question in zip(readers, questions, strict=True):
            reader.prompt(question)
        together = [list(greedy(attached.passes, reader, 6, frozenset())) for reader in readers]
        for one in opened:
            one.__exit__(None, None, None)
    assert together == alone
    assert client.get_session(name) == before


def test_two_sessions_never_see_each_others_blocks(client: MemoryClient) -> None:
    """Proves that what is recalled in one session is that session's, bit for bit, beside one of the same positions."""
    model = tiny_model("llama")
    ids = [random_ids(700, seed=21), random_ids(700, seed=22)]
    with attach(model, client, SMALL) as attached:
        alone = [_read_and_answer(attached, one) for one in ids]
        opened = [attached.temporary_writer(f"two-{uuid.uuid4().hex}") for _ in ids]
        readers = [one.__enter__() for one in opened]
        for reader, one in zip(readers, ids, strict=True):
            reader.read(one[:600])
        for reader, one in zip(readers, ids, strict=True):
            reader.prompt(one[600:])
        said = [list(greedy(attached.passes, reader, 10, frozenset())) for reader in readers]
        held = [reader.recalls._held if reader.recalls is not None else {} for reader in readers]
        stored = [
            reader.memory.fetch_blocks(list(blocks), 5.0) if reader.memory is not None else {}
            for reader, blocks in zip(readers, held, strict=True)
        ]
        for one in opened:
            one.__exit__(None, None, None)
    assert [tokens for tokens, _ in alone] == said
    for blocks, own in zip(held, stored, strict=True):
        assert blocks
        assert all(torch.equal(torch.from_numpy(data), torch.from_numpy(own[block])) for block, data in blocks.items())
