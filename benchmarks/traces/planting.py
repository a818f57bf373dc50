"""Sentences planted in a text, and where they stand: in time linear in the text, however many there are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attn_client.settings import BLOCK_TOKENS, WindowSettings
from attn_client.text import PromptForm
from benchmarks.facts import Fact, plant

# Longer paragraphs are left out: between two there may be no place for a sentence.
PARAGRAPH_TOKENS_MAX = 256
# Sentences stand this far past the sinks at least.
_MARGIN_TOKENS = 128


@dataclass(frozen=True)
class Planted:
    """Token ids of a text, and the blocks that each sentence touches, in the order in which they were given."""

    ids: list[int]
    gold: tuple[tuple[int, ...], ...]


def planted(
    tokenizer: Any, paragraphs: Iterable[str], sentences: Sequence[str], tokens: int, window: WindowSettings, seed: int
) -> Planted:
    """The first `tokens` tokens of some paragraphs with the sentences among them, between sinks and window.

    Raises:
        ValueError: The paragraphs are too short, or there is no room for the sentences.
    """
    form = PromptForm()
    taken, lengths = _taken(tokenizer, paragraphs, tokens)
    # The sentences themselves push the later ones back.
    own = sum(len(form.question_ids(tokenizer, sentence)) + 1 for sentence in sentences)
    end = tokens - window.window_tokens - PARAGRAPH_TOKENS_MAX - own
    within = range(window.sink_tokens + _MARGIN_TOKENS, end)
    if not within:
        raise ValueError(f"tokens: expected room for {len(sentences)} sentences before the window, got {tokens}")
    text = plant(taken, lengths, [Fact(sentence, "", "") for sentence in sentences], within, seed)
    ids = form.text_ids(tokenizer, "\n\n".join(text))[:tokens]
    places = TextPlaces(tokenizer, ids)
    gold = tuple(places.blocks(sentence) for sentence in sentences)
    allowed = range(window.sink_tokens // BLOCK_TOKENS, (tokens - window.window_tokens) // BLOCK_TOKENS)
    for sentence, blocks in zip(sentences, gold, strict=True):
        if not all(block in allowed for block in blocks):
            raise ValueError(f"expected a sentence in blocks {allowed}, got it in {list(blocks)}: {sentence!r}")
    return Planted(ids, gold)


class TextPlaces:
    """Where sentences stand in a text's tokens.

    Args:
        ids: Decode, one by one, to what was planted.
    """

    def __init__(self, tokenizer: Any, ids: Sequence[int]) -> None:
        known = {one: tokenizer.decode([one]) for one in set(ids)}
        self._whole = "".join(known[one] for one in ids)
        self._ends = np.cumsum([len(known[one]) for one in ids])

    def blocks(self, sentence: str) -> tuple[int, ...]:
        """Blocks that a sentence touches, ascending. Raises ValueError where it is not there."""
        first = self._whole.find(sentence)
        if first < 0:
            raise ValueError(f"expected the sentence in the text, it is not there: {sentence!r}")
        begin, last = np.searchsorted(self._ends, [first, first + len(sentence) - 1], side="right")
        return tuple(range(int(begin) // BLOCK_TOKENS, int(last) // BLOCK_TOKENS + 1))


def _taken(tokenizer: Any, paragraphs: Iterable[str], tokens: int) -> tuple[list[str], list[int]]:
    """Paragraphs of `tokens` tokens in all, and the tokens of each, with the blank line after it."""
    taken: list[str] = []
    lengths: list[int] = []
    total = 0
    for paragraph in paragraphs:
        length = len(PromptForm().question_ids(tokenizer, paragraph)) + 1
        if length > PARAGRAPH_TOKENS_MAX:
            continue
        taken.append(paragraph)
        lengths.append(length)
        total += length
        if total >= tokens:
            return taken, lengths
    raise ValueError(f"tokens: expected paragraphs of {tokens} in all, got {total}")
