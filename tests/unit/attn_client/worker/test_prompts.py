"""Prompts as ids, by where their session stands."""

import pytest

from attn_client.worker.asks import Message
from attn_client.worker.failures import Refused
from attn_client.worker.prompts import Place, chat_ids, text_ids
from tests.e2e.models import byte_tokenizer
from tests.e2e.worker import CHAT_TEMPLATE

TOKENIZER = byte_tokenizer()
TOKENIZER.chat_template = CHAT_TEMPLATE
END = frozenset(TOKENIZER.encode("\n", add_special_tokens=False))
ASKED = (Message("user", "And?"),)


@pytest.mark.parametrize(
    ("place", "ends", "expected"),
    [
        (Place(), END, "user: And?\nassistant: "),
        # The line break that ends the answer before was read with it.
        (Place(begins=False, answered=True), END, "user: And?\nassistant: "),
        # The template puts no end id after an answer: all of it is still to be read.
        (Place(begins=False, answered=True), frozenset({0}), "\nuser: And?\nassistant: "),
        (Place(begins=False, in_user_turn=True), END, "\nAnd?\nassistant: "),
        (Place(begins=False), END, "\nuser: And?\nassistant: "),
    ],
)
def test_a_turn_is_written_as_its_session_goes_on(place: Place, ends: frozenset[int], expected: str) -> None:
    """Proves that new turns join what was read into one conversation."""
    assert TOKENIZER.decode(chat_ids(TOKENIZER, ASKED, place, ends)) == expected


def test_more_than_the_users_words_begin_a_conversation_of_their_own() -> None:
    """Proves that turns which cannot continue the user's are not pressed into it."""
    turns = (Message("system", "Be brief."), *ASKED)
    ids = chat_ids(TOKENIZER, turns, Place(begins=False, in_user_turn=True), END)
    assert TOKENIZER.decode(ids) == "\nsystem: Be brief.\nuser: And?\nassistant: "


def test_a_template_that_refuses_is_told_in_one_line() -> None:
    """Proves that a template's own error reaches the caller as a refusal of the messages."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% if messages[0].role != 'user' %}{{ raise_exception('users\n first') }}{% endif %}"
    with pytest.raises(Refused, match="users first") as refused:
        chat_ids(tokenizer, (Message("assistant", "Hm."),), Place(), END)
    assert (refused.value.failure.status, refused.value.failure.param) == (400, "messages")


@pytest.mark.parametrize("token", [256, 10**30])
def test_ids_that_the_model_does_not_have_are_refused(token: int) -> None:
    """Proves that no id reaches the model that it would fail at."""
    with pytest.raises(Refused, match=f"0 to 255, got {token}"):
        text_ids(TOKENIZER, (1, token), begins=True)
