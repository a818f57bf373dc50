"""`model.generate` over a memory: the same tokens as our own loop, alone and in batches of sessions."""

import uuid

import pytest
import torch

from attn_client.errors import UnsupportedCall
from attn_client.generate import greedy
from attn_client.hf.attach import Attached, attach
from attn_client.hf.streaming import RecallStreamer
from attn_client.memory import MemoryClient, RecallAnswer
from tests.e2e.models import byte_tokenizer, random_ids, tiny_model
from tests.e2e.settings import SMALL

NEW_TOKENS = 12


def _by_own_loop(attached: Attached, ids: list[int]) -> list[int]:
    with attached.temporary_writer(f"own-{uuid.uuid4().hex}") as reader:
        reader.prompt(ids)
        return list(greedy(attached.passes, reader, NEW_TOKENS, frozenset()))


def test_generate_gives_the_tokens_of_our_own_loop(client: MemoryClient) -> None:
    """Proves that generate reaches the memory through its cache argument alone."""
    model, ids = tiny_model("llama"), random_ids(500, seed=1)
    with attach(model, client, SMALL) as attached:
        expected = _by_own_loop(attached, ids)
        with attached.temporary_writer(f"generate-{uuid.uuid4().hex}") as reader:
            output = model.generate(
                torch.tensor([ids]),
                past_key_values=attached.cache(reader),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )
            assert reader.recalls is not None
            assert reader.recalls.answers
    assert output[0, len(ids) :].tolist() == expected


def test_a_batch_of_sessions_of_their_own_lengths_answers_as_each_alone(client: MemoryClient) -> None:
    """Proves that rows of a padded batch neither see each other nor each other's padding."""
    model = tiny_model("qwen3")
    texts = [random_ids(count, seed=count) for count in (420, 333, 90)]
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    with attach(model, client, SMALL) as attached:
        alone = [_by_own_loop(attached, text) for text in texts]
        readers, sessions = [], []
        for _ in texts:
            sessions.append(attached.temporary_writer(f"batch-{uuid.uuid4().hex}"))
            readers.append(sessions[-1].__enter__())
        output = model.generate(
            ids,
            attention_mask=mask,
            past_key_values=attached.cache(*readers),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        for session in sessions:
            session.__exit__(None, None, None)
    assert output[:, longest:].tolist() == alone


def test_generate_without_our_cache_is_refused(client: MemoryClient) -> None:
    """Proves that a call which would silently attend to nothing is refused while attached."""
    model = tiny_model("llama")
    with attach(model, client, SMALL), pytest.raises(RuntimeError, match="expected a pass of an attached model"):
        model.generate(torch.tensor([random_ids(10, seed=1)]), max_new_tokens=2, do_sample=False)


def test_beam_search_is_refused(client: MemoryClient) -> None:
    """Proves that a search which would need several histories of one session is refused by name."""
    model, ids = tiny_model("llama"), random_ids(100, seed=2)
    with (
        attach(model, client, SMALL) as attached,
        attached.temporary_writer(f"beam-{uuid.uuid4().hex}") as reader,
        pytest.raises(UnsupportedCall, match="one"),
    ):
        model.generate(
            torch.tensor([ids]),
            past_key_values=attached.cache(reader),
            max_new_tokens=2,
            num_beams=2,
            do_sample=False,
            pad_token_id=0,
        )


def test_generate_in_a_readers_block_goes_to_that_reader(client: MemoryClient) -> None:
    """Proves that three lines are enough: attach, open a session, and the call that people have already."""
    model, ids = tiny_model("llama"), random_ids(500, seed=3)
    with attach(model, client, SMALL) as attached:
        expected = _by_own_loop(attached, ids)
        with attached.temporary_writer(f"plain-{uuid.uuid4().hex}"):
            output = model.generate(torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    assert output[0, len(ids) :].tolist() == expected
    assert "generate" not in vars(model)


def test_generate_asks_which_reader_where_several_are_open(client: MemoryClient) -> None:
    """Proves that a call is never sent to a session by chance."""
    model = tiny_model("llama")
    with (
        attach(model, client, SMALL) as attached,
        attached.temporary_writer(f"one-{uuid.uuid4().hex}"),
        attached.temporary_writer(f"two-{uuid.uuid4().hex}"),
        pytest.raises(UnsupportedCall, match="several readers"),
    ):
        model.generate(torch.tensor([random_ids(10, seed=1)]), max_new_tokens=2, do_sample=False)


def test_a_streamer_tells_tokens_with_what_was_recalled(client: MemoryClient) -> None:
    """Proves that text and recalls come as they happen: all of the text, and each recall before the next token."""
    model, tokenizer, ids = tiny_model("llama"), byte_tokenizer(), random_ids(500, seed=4)
    told: list[tuple[str, RecallAnswer | None]] = []
    with attach(model, client, SMALL) as attached, attached.temporary_writer(f"s-{uuid.uuid4().hex}") as reader:
        streamer = RecallStreamer(tokenizer, reader, lambda text, recall: told.append((text, recall)))
        output = model.generate(
            torch.tensor([ids]), streamer=streamer, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
        )
        assert reader.recalls is not None
        prompted = reader.recalls.prompted
    assert "".join(text for text, _ in told) == tokenizer.decode(output[0, len(ids) :].tolist())
    assert told[0][1] == prompted
    assert prompted is not None
    assert prompted.blocks
