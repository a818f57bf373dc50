"""Prompts as token ids, by where their session stands.

nothing read yet                the text from its beginning; a conversation in the model's whole template
after an end id                 a conversation goes on: what the template puts after an answer, then the new turns
in a text that began a          the user's turn goes on: a line break, the message, and what ends the turn
user's turn (ingest --chat)
in any other text               the whole template, after a line break
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attn_client.text import PromptForm, encode
from attn_client.worker.asks import Message, Prompt
from attn_client.worker.failures import Failure, Refused

# Stand for a turn's content while a template's rendering is cut in two.
_ASKED, _ANSWERED = "\u2042asked\u2042", "\u2042answered\u2042"


class ChatForm:
    """A tokenizer's chat template, in pieces.

    Raises:
        Refused: The tokenizer has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise Refused(
                Failure(400, "unsupported_by_model", "messages: expected a model with a chat template", "messages")
            )
        self._tokenizer = tokenizer
        self.user_turn = PromptForm.chat(tokenizer)

    def whole(self, messages: Sequence[Message]) -> str:
        """A conversation from its beginning, up to where the answer begins."""
        return self._render([{"role": one.role, "content": one.content} for one in messages])

    def after_answer(self, messages: Sequence[Message]) -> str:
        """What follows an answer, whose end it begins with: the new turns, up to where the next answer begins."""
        before = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}]
        rendered = self._render([*before, *({"role": one.role, "content": one.content} for one in messages)])
        return rendered.partition(_ANSWERED)[2]

    def end_ids(self, ends: frozenset[int]) -> list[int]:
        """The id that ends an answer, if the template puts one of the model's end ids there."""
        first = encode(self._tokenizer, self.after_answer([Message("user", _ASKED)]), begins=False)[:1]
        return [token for token in first if token in ends]

    def _render(self, messages: list[dict[str, str]]) -> str:
        try:
            rendered: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # Templates are programs of the model's makers; they raise what they like, mostly about the order of roles.
        except Exception as error:
            said = " ".join(str(error).split())
            failure = Failure(400, "template_refuses", f"messages: the chat template refuses them: {said}", "messages")
            raise Refused(failure) from error
        return rendered


def text_ids(tokenizer: Any, prompt: Prompt, *, begins: bool) -> list[int]:
    """Ids of a prompt that is to be continued.

    Raises:
        Refused: An id that the model does not have.
    """
    if isinstance(prompt, str):
        return encode(tokenizer, prompt, begins=begins) if prompt else []
    ids = [token for token in prompt if isinstance(token, int)]
    size = len(tokenizer)
    wrong = next((token for token in ids if not 0 <= token < size), None)
    if wrong is not None:
        message = f"prompt: expected token ids from 0 to {size - 1}, got {wrong}"
        raise Refused(Failure(400, "invalid_value", message, "prompt"))
    return ids


@dataclass(frozen=True)
class Place:
    """Where a session stands before a prompt.

    Args:
        begins: Nothing was read yet.
        answered: The last token read ends an answer.
        in_user_turn: What was read is the beginning of a user's turn.
    """

    begins: bool = True
    answered: bool = False
    in_user_turn: bool = False


def chat_ids(tokenizer: Any, messages: Sequence[Message], place: Place, ends: frozenset[int]) -> list[int]:
    """Ids of a conversation's new turns; `ends` are the model's end ids."""
    form = ChatForm(tokenizer)
    if place.begins:
        return encode(tokenizer, form.whole(messages), begins=True)
    if place.answered:
        # The end of the answer was read with it.
        return encode(tokenizer, form.after_answer(messages), begins=False)[len(form.end_ids(ends)) :]
    if place.in_user_turn and len(messages) == 1 and messages[0].role == "user":
        return form.user_turn.question_ids(tokenizer, messages[0].content)
    return encode(tokenizer, "\n" + form.whole(messages), begins=False)
