"""Asking a model about facts planted in texts, with and without memory: shared by evaluations and tests."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from attn_client.generate import Answer, ask, greedy
from attn_client.hf.attach import Attached
from attn_client.reader import Reader
from attn_client.settings import BLOCK_TOKENS, WindowSettings
from attn_client.text import PromptForm
from benchmarks.facts import Fact, plant

# As `attn-client ask` has it unless told otherwise.
MAX_TOKENS = 32


@dataclass(frozen=True)
class PlantedText:
    """Token ids of a text with facts in it. `label` names source and seed."""

    label: str
    ids: list[int]
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Outcome:
    """One question asked once. `right` means that what was said contains the fact's answer."""

    fact: Fact
    answer: str
    right: bool
    recalled_gold: bool


def planted_text(
    tokenizer: Any, label: str, paragraphs: Sequence[str], facts: Sequence[Fact], tokens: int, seed: int
) -> PlantedText:
    """The first `tokens` tokens of some paragraphs with the facts planted among them, past sinks and before the window.

    Raises:
        ValueError: The paragraphs are too short for that, or a fact came to stand in the sinks or the window.
    """
    form = PromptForm()
    lengths = [len(form.question_ids(tokenizer, paragraph)) + 1 for paragraph in paragraphs[:tokens]]
    taken = bisect_left(list(accumulate(lengths)), tokens) + 1
    if taken > len(lengths):
        raise ValueError(f"{label}: expected paragraphs of {tokens} tokens in all, got {sum(lengths)}")
    window = WindowSettings()
    # A margin of two blocks at the start, and of one paragraph before the window.
    within = range(window.sink_tokens + 128, tokens - window.window_tokens - max(lengths[:taken]) - 256)
    planted = plant(paragraphs[:taken], lengths[:taken], facts, within, seed)
    text = PlantedText(label, form.text_ids(tokenizer, "\n\n".join(planted))[:tokens], tuple(facts))
    outside = range(window.sink_tokens // BLOCK_TOKENS, (tokens - window.window_tokens) // BLOCK_TOKENS)
    for fact in facts:
        blocks = gold_blocks(tokenizer, text, fact)
        if not all(block in outside for block in blocks):
            raise ValueError(f"{label}: expected a fact in blocks {outside}, got it in {sorted(blocks)}")
    return text


def asked_with_memory(attached: Attached, tokenizer: Any, session: str, text: PlantedText) -> Iterator[Outcome]:
    """Each fact asked in a view of its own of the session that holds the text."""
    for fact in text.facts:
        with attached.view(session) as reader:
            prompt = PromptForm().question_ids(tokenizer, fact.question)
            answer = ask(attached.passes, reader, tokenizer, prompt, MAX_TOKENS)
        yield Outcome(fact, answer.text, is_right(answer.text, fact), _recalls(answer, tokenizer, text, fact))


def asked_without(attached: Attached, tokenizer: Any, reader: Reader, text: PlantedText) -> Iterator[Outcome]:
    """Each fact asked of a copy of a reader that read the text without memory."""
    for fact in text.facts:
        copy = reader.fork()
        copy.prompt(PromptForm().question_ids(tokenizer, fact.question))
        said = tokenizer.decode(list(greedy(attached.passes, copy, MAX_TOKENS, attached.passes.end_ids)))
        yield Outcome(fact, said, is_right(said, fact), recalled_gold=False)


def is_right(said: str, fact: Fact) -> bool:
    """Whether what was said contains the fact's answer, whatever its case and spacing."""
    return fact.answer.lower() in " ".join(said.split()).lower()


def gold_blocks(tokenizer: Any, text: PlantedText, fact: Fact) -> frozenset[int]:
    """Blocks that the fact's sentence touches in the text."""
    ends: list[int] = []
    length = 0
    for one in text.ids:
        length += len(tokenizer.decode([one]))
        ends.append(length)
    whole = "".join(tokenizer.decode([one]) for one in text.ids)
    first = whole.find(fact.sentence)
    if first < 0:
        raise ValueError(f"{text.label}: expected the fact in the text, it is not there: {fact.sentence!r}")
    last = first + len(fact.sentence)
    return frozenset(
        i // BLOCK_TOKENS for i, end in enumerate(ends) if end > first and (ends[i - 1] if i else 0) < last
    )


def _recalls(answer: Answer, tokenizer: Any, text: PlantedText, fact: Fact) -> bool:
    recalled = {block.block for block in answer.recalled}
    return bool(recalled & gold_blocks(tokenizer, text, fact))
