"""The real model on a real text: it answers from memory what it cannot see, and from nothing else."""

from pathlib import Path

import pytest

from attn_client.hf.attach import NO_MEMORY, Attached, attach
from attn_client.hf.load import load_model
from attn_client.reader import Reader
from benchmarks import texts
from benchmarks.evaluation import (
    Outcome,
    PlantedText,
    asked_with_memory,
    asked_without,
    gold_blocks,
    planted_text,
)
from benchmarks.facts import plain_facts

TOKENS = 3000
SEED = 4
FACTS = 5


def _read(reader: Reader, text: PlantedText, left_out: frozenset[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a text, keeping some of its blocks out of memory."""
    memory = reader.memory
    assert memory is not None
    put = memory.put_block
    with monkeypatch.context() as patch:
        patch.setattr(
            memory,
            "put_block",
            lambda block, data, *, wait: memory.drop_block(block) if block in left_out else put(block, data, wait=wait),
        )
        reader.read(text.ids)
        reader.save_tail()


def _right(outcomes: list[Outcome]) -> int:
    return sum(outcome.right for outcome in outcomes)


@pytest.mark.model
@pytest.mark.timeout(900)
def test_facts_are_answered_from_memory_and_from_nothing_else(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that answers come from memory: nearly all with it, nearly none without it or once the facts are erased."""
    model, tokenizer = load_model("smollm2")
    facts = plain_facts(SEED, FACTS)
    text = planted_text(tokenizer, "library docstrings", texts.library_docstrings(), facts, TOKENS, SEED)
    gold = frozenset().union(*(gold_blocks(tokenizer, text, fact) for fact in facts))

    def answers(attached: Attached, session: str, left_out: frozenset[int]) -> list[Outcome]:
        with attached.writer(session) as reader:
            _read(reader, text, left_out, monkeypatch)
        return list(asked_with_memory(attached, tokenizer, session, text))

    with attach(model, tokenizer=tokenizer, data=data) as attached:
        remembered = answers(attached, "whole", frozenset())
        erased = answers(attached, "erased", gold)
    with attach(model, NO_MEMORY, tokenizer=tokenizer) as alone:
        reader = alone.without_memory()
        reader.read(text.ids)
        without = list(asked_without(alone, tokenizer, reader, text))
    assert all(outcome.recalled_gold for outcome in remembered), remembered
    assert _right(remembered) >= FACTS - 1, remembered
    assert not any(outcome.recalled_gold for outcome in erased)
    assert _right(erased) <= 1, erased
    assert _right(without) <= 1, without
