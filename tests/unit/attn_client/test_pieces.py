"""Text from tokens: characters and stop texts across pieces."""

from hypothesis import given
from hypothesis import strategies as st

from attn_client.pieces import AnswerText
from tests.e2e.models import byte_tokenizer

TOKENIZER = byte_tokenizer()


def _ids(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False)
    return ids


def _pieces(text: str, *stops: str) -> list[str]:
    answer, pieces = AnswerText(TOKENIZER, stops), []
    for token in _ids(text):
        pieces.append(answer.add(token))
        if answer.stopped:
            break
    return [*pieces, answer.end()]


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_pieces_join_to_the_text_of_all_tokens(text: str) -> None:
    """Proves that one byte a token, any text comes out whole, and no piece holds half a character."""
    pieces = _pieces(text)
    assert "".join(pieces) == TOKENIZER.decode(_ids(text))
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_an_answer_ends_before_its_first_stop_text(text: str, stops: list[str]) -> None:
    """Proves that no part of a stop text is ever told, and that nothing else is held back for good."""
    # What is found first as tokens come: the earliest end, and of those that end there the earliest beginning.
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(found)[1]] if found else text
    assert "".join(_pieces(text, *stops)) == expected


def test_half_a_character_at_the_end_is_told_as_such() -> None:
    """Proves that an answer cut in the middle of a character loses nothing that it had."""
    answer = AnswerText(TOKENIZER, ())
    pieces = [answer.add(token) for token in _ids("a\u00e9")[:2]]
    assert [*pieces, answer.end()] == ["a", "", "\ufffd"]
