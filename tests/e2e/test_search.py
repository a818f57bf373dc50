"""Finding passages by meaning: with a model of one's own, and through a worker that runs."""

import dataclasses
import json
import random
from collections.abc import Iterator

import pytest

from attn_client.embedded import EmbeddedServer
from attn_client.errors import InvalidSettings, MemoryRefused
from attn_client.hf.attach import Attached, attach
from attn_client.search import find_passages
from attn_client.settings import BLOCK_TOKENS, BookmarkSettings, RecallSettings
from attn_client.text import encode
from memsvc.cli import main
from memsvc.cli.search import BEST_MAX
from tests.e2e.models import byte_tokenizer, tiny_model
from tests.e2e.settings import SMALL
from tests.e2e.worker import Worker, worker

SESSION = "letters"
LETTERS = dataclasses.replace(
    SMALL, probe=dataclasses.replace(SMALL.probe, layer=0), bookmarks=BookmarkSettings(policy="every")
)
# Kinds of passages. The model is random; the vectors before its first layer say at least which letter there is.
KINDS = ("aeio", "bdfh", "cgkm", "jlnp", "qrst", "vwxyz")


def _passage(kind: str, seed: int) -> str:
    """A block of letters of one kind, of the byte tokenizer's one token a letter."""
    return "".join(random.Random(seed).choices(kind, k=BLOCK_TOKENS))


# Past sinks, window and a chunk: three passages of each kind.
TEXT = "".join(_passage(kind, 10 * number + copy) for copy in range(3) for number, kind in enumerate(KINDS))


@pytest.fixture(scope="module")
def serving(server: EmbeddedServer) -> Iterator[Worker]:
    """A worker, and a session that it has read."""
    with worker(server.address) as started:
        with started.attached.writer(SESSION) as reader:
            reader.read(encode(started.tokenizer, TEXT, begins=True))
        yield started


@pytest.fixture(scope="module")
def reading(server: EmbeddedServer) -> Iterator[Attached]:
    """A model of one's own, and a session that it has read: every token a bookmark, by its letter."""
    with attach(tiny_model("llama"), server.address, LETTERS, tokenizer=byte_tokenizer()) as attached:
        with attached.writer("by-letter") as reader:
            reader.read(encode(byte_tokenizer(), TEXT, begins=True))
        yield attached


@pytest.mark.parametrize("kind", KINDS[1:])
def test_passages_of_the_same_kind_are_found_first(reading: Attached, kind: str) -> None:
    """Proves that the best passage is one of the text's kind, with its own text and place, also one in the window."""
    found = find_passages(reading, byte_tokenizer(), "by-letter", _passage(kind, 99)[:16], 3)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    first, last = found[0].positions
    assert (first, last) == (found[0].block * BLOCK_TOKENS, found[0].block * BLOCK_TOKENS + BLOCK_TOKENS - 1)
    assert found[0].text == TEXT[first : last + 1]
    assert set(found[0].text) <= set(kind)


def test_the_newest_text_is_searched_too(reading: Attached) -> None:
    """Proves that what the window holds is found, which no recall would bring."""
    newest = len(TEXT) // BLOCK_TOKENS - 1
    found = find_passages(reading, byte_tokenizer(), "by-letter", TEXT[-BLOCK_TOKENS:], 3)
    assert newest in [one.block for one in found]


def test_a_search_changes_nothing(reading: Attached) -> None:
    """Proves that the session has as many tokens and bookmarks afterwards as before."""
    before = reading.client.get_session("by-letter")
    find_passages(reading, byte_tokenizer(), "by-letter", "cgkm", 1)
    after = reading.client.get_session("by-letter")
    assert (after.tokens, after.bookmarks, after.blocks) == (before.tokens, before.bookmarks, before.blocks)


@pytest.mark.parametrize("text", ["", "x" * 65])
def test_a_text_of_no_tokens_or_too_many_is_refused(reading: Attached, text: str) -> None:
    """Proves that one line says how long a text may be."""
    with pytest.raises(InvalidSettings, match=r"expected a text of 1 to \d+ tokens, got"):
        find_passages(reading, byte_tokenizer(), "by-letter", text, 1)


def test_an_unknown_session_is_refused(reading: Attached) -> None:
    """Proves that a search makes no session."""
    with pytest.raises(MemoryRefused):
        find_passages(reading, byte_tokenizer(), "nobody", "a", 1)


def test_the_server_side_command_asks_a_worker(
    serving: Worker, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that `memsvc search` finds passages through a worker, with their token ids, and shows a table."""
    command = ["search", "--memory", server.address, "--session", SESSION, "--worker", serving.url, "--best", "2"]
    assert main([*command, "aeio", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["passages"]
    first, last = found[0]["positions"]
    assert 1 <= len(found) <= 2
    assert (first, last + 1 - first) == (found[0]["block"] * BLOCK_TOKENS, BLOCK_TOKENS)
    assert found[0]["ids"] == encode(serving.tokenizer, TEXT[first : last + 1], begins=False)
    assert main([*command, "cgkm"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["BLOCK", "POSITIONS", "SCORE", "Z", "TOKENS"]


def test_every_number_of_blocks_that_is_promised_is_taken(
    server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that the fewest and the most blocks are found by a worker of default settings, also one that hops."""
    hopping = dataclasses.replace(SMALL, recall=RecallSettings(hops=2, timeout_s=20.0))
    with worker(server.address, settings=hopping) as started:
        with started.attached.writer("hopping") as reader:
            reader.read(encode(started.tokenizer, TEXT, begins=True))
        command = ["search", "--memory", server.address, "--session", "hopping", "--worker", started.url, "--json"]
        for best in (1, BEST_MAX):
            assert main([*command, "--best", str(best), "aeio"]) == 0, capsys.readouterr().err
            assert 1 <= len(json.loads(capsys.readouterr().out)["passages"]) <= best
    assert RecallSettings.budget_blocks == BEST_MAX
    assert main([*command, "--best", str(BEST_MAX + 1), "aeio"]) == 2


def test_no_proxy_is_told_what_is_looked_for(
    serving: Worker, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that the worker is called at its address, whatever proxy the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    command = ["search", "--memory", server.address, "--session", SESSION, "--worker", serving.url, "--best", "2"]
    assert main([*command, "aeio"]) == 0


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://[::1", "unix:///tmp/worker.sock"])
def test_an_address_that_no_worker_can_have_is_a_wrong_command_line(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that it is told in one line with exit code 2, before anybody is called."""
    assert main(["search", "--memory", "unix:///no/such", "--session", "s", "--worker", url, "a"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"--worker: expected http://HOST:PORT, got {url!r}" in said


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--worker", "http://127.0.0.1:1"], ["expected a worker at http://127.0.0.1:1", "Connection refused"]),
        (["--worker", "{url}", "--session", "nobody"], ["404", "nobody"]),
        (["--worker", "{url}", "--best", "5"], ["400", "budget_blocks"]),
        (["--worker", "{url}", "--api-key-file", "/no/key"], ["--api-key-file", "/no/key"]),
    ],
)
def test_what_is_wrong_with_a_search_is_one_line(
    flags: list[str], says: list[str], serving: Worker, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that nobody there, mistyped addresses, unknown sessions, limits and missing keys are told as such."""
    command = ["search", "--memory", server.address, "--session", SESSION, "--best", "2", "a"]
    assert main([*command, *(flag.format(url=serving.url) for flag in flags)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert all(part in said.err for part in says), said.err
