"""Traces of a tiny model: what is saved is what the model gives, and recall can be measured on it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attn_client.hf.attach import NO_MEMORY, Attached, attach
from attn_client.text import PromptForm
from benchmarks import recall_of_trace
from benchmarks.coverage_recall import Case
from benchmarks.recall_of_trace import PreparedTrace, recall_of
from benchmarks.traces.format import IDS, MASS, SURPRISAL, Trace
from benchmarks.traces.make import UNRELATED_TOKENS, TracedReader, Wanted, make_trace
from tests.e2e.models import byte_tokenizer, random_ids, tiny_model
from tests.e2e.settings import SMALL

LAYERS = (1, 2)
WANTED = Wanted(6000, ("library",), "reference", ("plain", "paraphrases", "two-hop"), 2, LAYERS, seed=3, mass=True)


@pytest.fixture(scope="module")
def attached() -> Iterator[Attached]:
    """A tiny model without memory."""
    tokenizer = byte_tokenizer()
    with attach(tiny_model("llama"), NO_MEMORY, SMALL, tokenizer=tokenizer) as own:
        yield own


@pytest.fixture(scope="module")
def folder(attached: Attached, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of a planted text."""
    made = tmp_path_factory.mktemp("trace") / "own"
    make_trace(attached, byte_tokenizer(), WANTED, made)
    return made


def test_a_trace_says_what_made_it_and_where_facts_stand(folder: Path) -> None:
    """Proves that the gold blocks of each sentence, and no fewer, hold its characters, and questions are in place."""
    trace, tokenizer = Trace.open(folder), byte_tokenizer()
    ids = trace.arrays[IDS]
    assert trace.source.text_tokens == WANTED.tokens
    assert [fact.kind for fact in trace.facts] == [kind for kind in WANTED.kinds for _ in range(WANTED.facts)]
    for fact in trace.facts:
        assert len(fact.gold) == (2 if fact.kind == "two-hop" else 1)
        for sentence, gold in zip(fact.sentences, fact.gold, strict=True):
            said = tokenizer.decode(ids[gold[0] * 64 : (gold[-1] + 1) * 64])
            assert sentence in said
            assert sentence not in said[64:]
            assert sentence not in said[:-64]
        own = ids[fact.question_first : fact.question_first + fact.question_tokens]
        assert own.tolist() == PromptForm().question_ids(tokenizer, fact.question)


def test_a_question_reads_as_right_after_the_unrelated_text(attached: Attached, folder: Path) -> None:
    """Proves that the last fact's question has the rows of one straight reading of text, unrelated text and question.

    Both read in the same chunks: signals are equal to the bit, embeddings to half a code.
    """
    trace = Trace.open(folder)
    fact = trace.facts[-1]
    own = slice(fact.question_first, fact.question_first + fact.question_tokens)
    reader = TracedReader(attached, LAYERS, mass=True)
    before = list(reader.read(trace.arrays[IDS][: trace.tokens].tolist()))
    passes = list(reader.prompt(trace.arrays[IDS][own].tolist()))
    # All of the question fits one pass.
    (straight,) = passes
    assert sum(len(rows.ids) for rows in before) == WANTED.tokens + UNRELATED_TOKENS
    assert np.array_equal(trace.arrays[SURPRISAL][own], straight.surprisal)
    assert np.array_equal(trace.arrays[MASS][own], straight.mass)
    assert trace.source.mass_layer == 1
    for layer in LAYERS:
        wanted = straight.embeddings[layer]
        step = np.abs(wanted).max(axis=1, keepdims=True) / 127
        assert (np.abs(trace.embeddings(layer, own.start, own.stop) - wanted) <= 0.501 * step).all()


def test_surprisal_of_a_trace_is_what_a_reader_sends(attached: Attached) -> None:
    """Proves that the signal of a text is the one by which a session would bookmark it, chunk borders included."""
    ids = random_ids(600, seed=5)
    traced = np.concatenate([rows.surprisal for rows in TracedReader(attached, LAYERS).read(ids)])
    reader = attached.without_memory()
    reader.read(ids[:599])
    logits = reader.next_logits()
    expected = (logits.logsumexp(0) - logits[ids[599]]).item()
    assert traced[0] == 0
    # One float32 logit in another order of 96 sums, and a logarithm of 256 of them.
    assert traced[599] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("policy", ["surprisal", "relevance", "rarity", "fixed"])
def test_recall_is_measured_for_each_fact(folder: Path, policy: str) -> None:
    """Proves that every policy bookmarks a trace, and that every fact is counted once."""
    outcome = recall_of(PreparedTrace.of(Trace.open(folder), 2), Case(policy, 0.1).spec)
    assert len(outcome.found) == len(WANTED.kinds) * WANTED.facts
    assert 0.05 < outcome.share < 0.2
    assert outcome.reachable == 1.0


def test_what_is_found_does_not_depend_on_how_questions_are_batched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that searching for many questions in one product gives each the recall of a search of its own."""
    prepared = PreparedTrace.of(Trace.open(folder), 2)
    together = recall_of(prepared, Case("every", 1.0).spec)
    monkeypatch.setattr(recall_of_trace, "_QUESTIONS", 1)
    assert recall_of(prepared, Case("every", 1.0).spec) == together
    assert together.share == 1.0
    assert any(found.whole for found in together.found if found.kind == "plain")
