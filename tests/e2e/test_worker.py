"""The worker's HTTP answers, asked by the official client: shapes, tokens, sessions, and what was recalled."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from attn_client.embedded import EmbeddedServer
from attn_client.generate import greedy
from attn_client.reader import Reader
from attn_client.text import PromptForm, encode
from tests.e2e.worker import MODEL, Worker, worker

# Past sinks, window and a chunk, so that something is recalled.
TEXT = "".join(f"{number} sheep went over the hill and {number * 7} came back. " for number in range(14))
TOKENS = 12


@pytest.fixture(scope="module")
def serving(server: EmbeddedServer) -> Iterator[Worker]:
    """A worker at the module's server."""
    with worker(server.address) as started:
        yield started


@pytest.fixture
def client(serving: Worker) -> openai.OpenAI:
    """The official client of it."""
    return serving.client()


def _name() -> str:
    return f"s-{uuid.uuid4().hex}"


def _own(serving: Worker, reader: Reader, text: str) -> str:
    """What our own loop says."""
    reader.prompt(encode(serving.tokenizer, text, begins=False))
    ids = list(greedy(serving.attached.passes, reader, TOKENS, serving.attached.passes.end_ids))
    return str(serving.tokenizer.decode(ids))  # type: ignore[attr-defined]


def test_the_one_model_is_listed_by_its_name(client: openai.OpenAI) -> None:
    """Proves that a client finds what it may ask for."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "attn-client"


def test_a_completion_says_what_our_own_loop_says(serving: Worker, client: openai.OpenAI) -> None:
    """Proves that prompts read in pieces and tokens decoded in turns give the tokens of one reader alone."""
    with serving.attached.temporary_writer(_name()) as reader:
        expected = _own(serving, reader, TEXT)
    answer = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=TOKENS)
    assert answer.choices[0].text == expected
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(TEXT)
    assert answer.memory["mode"] == "temporary"
    assert answer.memory["recalled"]["blocks"]
    assert not answer.memory["degraded"]


def test_a_prompt_as_ids_is_the_same_as_its_text(serving: Worker, client: openai.OpenAI) -> None:
    """Proves that callers with a tokenizer of their own are served alike."""
    ids = encode(serving.tokenizer, TEXT, begins=True)
    texts = [
        client.completions.create(model=MODEL, prompt=prompt, max_tokens=TOKENS).choices[0].text
        for prompt in (TEXT, ids)
    ]
    assert texts[0] == texts[1]


def test_a_stream_gives_the_whole_answer_and_tells_recalls_as_they_happen(client: openai.OpenAI) -> None:
    """Proves that pieces join to the answer, that recalls come with them, and that counts end it if asked for."""
    whole = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=TOKENS)
    chunks = list(
        client.completions.create(
            model=MODEL, prompt=TEXT, max_tokens=TOKENS, stream=True, stream_options={"include_usage": True}
        )
    )
    *pieces, last, usage = chunks
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.usage == whole.usage
    told = [piece.recalled for piece in pieces if "recalled" in (piece.model_extra or {})]
    assert told[0] == whole.memory["recalled"]
    assert {block["reached"] for block in told[0]["blocks"]} <= {"trail", "neighbour", "fill"}
    assert last.memory["position"] == len(TEXT) + TOKENS - 1


def test_a_short_text_needs_no_memory(client: openai.OpenAI) -> None:
    """Proves that what never leaves the window makes no session."""
    answer = client.completions.create(model=MODEL, prompt="a few words", max_tokens=4)
    assert (answer.memory["mode"], answer.memory["recalled"]) == ("window", None)
    assert not answer.memory["degraded"]


def test_a_session_goes_on_where_its_last_turn_ended(serving: Worker, client: openai.OpenAI) -> None:
    """Proves that two requests write what one reader would that reads and answers both."""
    name = _name()
    first = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=TOKENS, extra_body={"session": name})
    second = client.completions.create(model=MODEL, prompt=" And?", max_tokens=TOKENS, extra_body={"session": name})
    assert first.memory["saved"]
    assert second.memory["saved"]
    assert second.memory["position"] == len(TEXT) + len(" And?") + 2 * TOKENS
    own = _name()
    with serving.attached.writer(own) as reader:
        said = _own(serving, reader, TEXT)
        assert said == first.choices[0].text
        reader.read(encode(serving.tokenizer, said[-1], begins=False))
    with serving.attached.writer(own) as reader:
        assert _own(serving, reader, " And?") == second.choices[0].text


def test_reading_a_shared_session_changes_nothing(serving: Worker, client: openai.OpenAI) -> None:
    """Proves that many may ask one session at once, get the same, and leave it as it was."""
    name = _name()
    client.completions.create(model=MODEL, prompt=TEXT, max_tokens=2, extra_body={"session": name})
    before = serving.attached.client.get_session(name)

    def ask(_: int) -> Any:
        body = {"session": {"name": name, "mode": "read"}}
        return client.completions.create(model=MODEL, prompt=" Why?", max_tokens=TOKENS, extra_body=body)

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(ask, range(5)))
    assert len({answer.choices[0].text for answer in answers}) == 1
    assert {answer.memory["mode"] for answer in answers} == {"read"}
    assert not any(answer.memory["saved"] for answer in answers)
    assert serving.attached.client.get_session(name) == before


def test_a_fork_goes_on_in_private(serving: Worker, client: openai.OpenAI) -> None:
    """Proves that a fork begins as its parent is, is written apart from it, and is found again by its name."""
    parent, fork = _name(), _name()
    client.completions.create(model=MODEL, prompt=TEXT, max_tokens=2, extra_body={"session": parent})
    before = serving.attached.client.get_session(parent)
    body = {"session": {"name": fork, "mode": "fork", "parent": parent}}
    first = client.completions.create(model=MODEL, prompt=" So?", max_tokens=3, extra_body=body)
    again = client.completions.create(model=MODEL, prompt=" So?", max_tokens=3, extra_body=body)
    assert first.memory["position"] == before.tokens + 4 + 3
    assert again.memory["position"] == before.tokens + 2 * (4 + 3)
    assert serving.attached.client.get_session(parent).tokens == before.tokens


def test_a_session_that_is_to_be_new_is_made_once(client: openai.OpenAI) -> None:
    """Proves that `create` never goes on in what somebody else wrote."""
    body = {"session": {"name": _name(), "mode": "create"}}
    client.completions.create(model=MODEL, prompt="once", max_tokens=2, extra_body=body)
    with pytest.raises(openai.ConflictError) as refused:
        client.completions.create(model=MODEL, prompt="twice", max_tokens=2, extra_body=body)
    assert refused.value.code == "session_exists"


def test_different_sessions_at_once_answer_as_each_alone(client: openai.OpenAI) -> None:
    """Proves that answers decoded in one pass neither see each other nor change each other."""
    texts = [TEXT[number * 31 :] for number in range(8)]

    def ask(text: str) -> str:
        answer = client.completions.create(model=MODEL, prompt=text, max_tokens=TOKENS, extra_body={"session": _name()})
        assert not answer.memory["degraded"]
        return answer.choices[0].text

    alone = [ask(text) for text in texts]
    with ThreadPoolExecutor(len(texts)) as pool:
        assert list(pool.map(ask, texts)) == alone


def test_two_writers_of_one_session_take_turns(serving: Worker, client: openai.OpenAI) -> None:
    """Proves that turns of one session never mix: each waits for the other's end and goes on from there."""
    name = _name()

    def turn(_: int) -> int:
        answer = client.completions.create(model=MODEL, prompt="turn ", max_tokens=3, extra_body={"session": name})
        assert answer.memory["saved"]
        return int(answer.memory["position"])

    with ThreadPoolExecutor(4) as pool:
        positions = sorted(pool.map(turn, range(4)))
    tokens = len("turn ") + 3
    assert positions == [tokens * (number + 1) for number in range(4)]
    assert serving.attached.client.get_session(name).tokens == 4 * tokens


def test_a_conversation_goes_on_by_its_new_turns_alone(serving: Worker, client: openai.OpenAI) -> None:
    """Proves that beside a session a chat sends only what is new, and the session holds it in the model's template."""
    name = _name()
    asked = [{"role": "user", "content": "Are you there?"}]
    first = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=5, extra_body={"session": name})
    again = [{"role": "user", "content": "And now?"}]
    second = client.chat.completions.create(model=MODEL, messages=again, max_tokens=5, extra_body={"session": name})
    said = [answer.choices[0].message.content for answer in (first, second)]
    _, ids = serving.attached.client.read_tokens(name, 0, 1000)
    expected = f"user: Are you there?\nassistant: {said[0]}\nuser: And now?\nassistant: {said[1]}\n"
    assert serving.tokenizer.decode(ids.tolist()) == expected  # type: ignore[attr-defined]


def test_a_text_that_began_the_users_turn_is_asked_in_that_turn(serving: Worker, client: openai.OpenAI) -> None:
    """Proves that a session which `ingest --chat` made is answered in one conversation, not in one within another."""
    name, tokenizer = _name(), serving.tokenizer
    with serving.attached.writer(name) as reader:
        reader.read(PromptForm.chat(tokenizer).text_ids(tokenizer, TEXT))
    asked = [{"role": "user", "content": "Why?"}]
    answer = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=5, extra_body={"session": name})
    _, ids = serving.attached.client.read_tokens(name, 0, 10_000)
    expected = f"user: {TEXT}\nWhy?\nassistant: {answer.choices[0].message.content}\n"
    assert tokenizer.decode(ids.tolist()) == expected  # type: ignore[attr-defined]


def test_a_chat_streams_who_speaks_then_the_words(client: openai.OpenAI) -> None:
    """Proves that a streamed conversation joins to the whole answer."""
    asked: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    whole = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=TOKENS)
    chunks = list(client.chat.completions.create(model=MODEL, messages=asked, max_tokens=TOKENS, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_seed_makes_sampling_repeatable(client: openai.OpenAI) -> None:
    """Proves that the same seed gives the same answer, and that other seeds give others."""

    def ask(seed: int) -> str:
        answer = client.completions.create(model=MODEL, prompt="roll", max_tokens=20, temperature=1.0, seed=seed)
        return answer.choices[0].text

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(4)}) > 1


def test_a_stop_text_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    """Proves that a stop text is not part of the answer, whole or in pieces."""
    whole = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=TOKENS).choices[0].text
    stop = whole[4:7]
    expected = whole[: whole.find(stop)]
    answer = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=TOKENS, stop=stop)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (expected, "stop")
    pieces = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=TOKENS, stop=stop, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == expected


def test_settings_of_one_request_leave_the_others_alone(client: openai.OpenAI) -> None:
    """Proves that how much is recalled can be said per request."""

    def blocks(memory: dict[str, Any]) -> int:
        answer = client.completions.create(
            model=MODEL, prompt=TEXT, max_tokens=2, extra_body={"memory": memory} if memory else None
        )
        recalled = answer.memory["recalled"]
        return len(recalled["blocks"]) if recalled else 0

    usual = blocks({})
    assert blocks({"top_blocks": 1, "neighbours": 0}) == 1
    assert blocks({"enabled": False}) == 0
    assert blocks({}) == usual > 1
