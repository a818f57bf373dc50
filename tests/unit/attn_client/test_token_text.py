"""The bytes of token ids, as tokenizers of each kind write them."""

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from attn_client.token_text import TokenTexts
from tests.e2e.models import byte_tokenizer


@pytest.mark.parametrize(
    "text", ["Call me Ishmael.\n", "\u20ac\U0001f40b and \u05d0", "\0\x7f\xad tab\tend", "\u0120\u2581"]
)
def test_bytes_of_a_byte_level_tokenizer_are_those_of_the_text(text: str) -> None:
    """Proves that ids put together give the text back, byte by byte, even where a token is half a character."""
    tokenizer = byte_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(TokenTexts(tokenizer)(ids)) == text.encode()


def test_sentence_pieces_have_spaces_and_single_bytes() -> None:
    """Proves the sign for a space, a byte by its number, and a special token by its name."""
    vocabulary = {"\u2581Call": 0, "me": 1, "<0x0A>": 2, "\u2581": 3, "<s>": 4}
    backend = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<s>"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    assert TokenTexts(tokenizer)([0, 1, 2, 3, 4, 0]) == (b" Call", b"me", b"\n", b" ", b"<s>", b" Call")
