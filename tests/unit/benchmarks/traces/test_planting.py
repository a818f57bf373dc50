"""Planting sentences: they stand where they may, are found there, and what does not fit is refused."""

import pytest

from attn_client.settings import WindowSettings
from benchmarks.traces.planting import PARAGRAPH_TOKENS_MAX, planted
from tests.e2e.models import byte_tokenizer

WINDOW = WindowSettings(sink_tokens=64, window_tokens=128)
PARAGRAPHS = [f"Paragraph {number} of a long text about nothing at all." for number in range(100)]
SENTENCES = [f"The number of door {number} is {number * number + 1000}." for number in range(8)]


def test_sentences_stand_between_sinks_and_window() -> None:
    """Proves that the text has its length, and each sentence the blocks that its characters lie in, and only those."""
    text = planted(byte_tokenizer(), PARAGRAPHS, SENTENCES, 3000, WINDOW, seed=1)
    whole = byte_tokenizer().decode(text.ids)
    assert len(text.ids) == 3000
    for sentence, gold in zip(SENTENCES, text.gold, strict=True):
        # One token a byte.
        first = whole.index(sentence)
        assert gold == tuple(range(first // 64, (first + len(sentence) - 1) // 64 + 1))
        assert gold[0] >= 1
        assert gold[-1] < (3000 - 128) // 64


def test_long_paragraphs_are_left_out() -> None:
    """Proves that a paragraph without room for a sentence beside it is skipped."""
    long = "x" * PARAGRAPH_TOKENS_MAX
    text = planted(byte_tokenizer(), [long, *PARAGRAPHS], SENTENCES, 3000, WINDOW, seed=1)
    assert long not in byte_tokenizer().decode(text.ids)


def test_what_does_not_fit_is_one_line() -> None:
    """Proves that too short a source and too many sentences are refused with the numbers."""
    with pytest.raises(ValueError, match=r"tokens: expected paragraphs of 90000 in all, got \d+"):
        planted(byte_tokenizer(), PARAGRAPHS, SENTENCES, 90_000, WINDOW, seed=1)
    with pytest.raises(ValueError, match="tokens: expected room for 8 sentences before the window, got 800"):
        planted(byte_tokenizer(), PARAGRAPHS, SENTENCES, 800, WINDOW, seed=1)
