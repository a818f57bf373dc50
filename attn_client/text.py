"""Text in, token ids out: files as people have them, and prompts with or without a chat template.

A bad file is one clear line (InvalidText) before a model or a server is touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attn_client.errors import InvalidText, UnsupportedModel

# Stands where the conversation's text goes while a chat template is cut in two.
_MARK = "\u2042text\u2042"


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        InvalidText: Missing, a folder, empty, or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidText(f"--file: expected a readable text file, got {str(path)!r}: {error.strerror}") from error
    if b"\x00" in data:
        raise InvalidText(f"--file: expected text, got a zero byte at offset {data.index(0)} of {str(path)!r}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"--file: expected UTF-8 text, got byte {data[error.start]:#04x} at offset {error.start} of {str(path)!r}"
        ) from error
    if not text.strip():
        raise InvalidText(f"--file: expected some text, got an empty file {str(path)!r}")
    return text


@dataclass(frozen=True)
class PromptForm:
    """What stands before the text, and around the question; empty strings for plain continuation."""

    before_text: str = ""
    before_question: str = "\n"
    after_question: str = ""

    @classmethod
    def chat(cls, tokenizer: Any) -> "PromptForm":
        """The model's own chat template around text and question.

        Raises:
            UnsupportedModel: The tokenizer has no chat template.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise UnsupportedModel("--chat: expected a tokenizer with a chat template, this model's has none")
        message = [{"role": "user", "content": _MARK}]
        rendered = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        before, _, after = rendered.partition(_MARK)
        return cls(before, "\n", after)

    def text_ids(self, tokenizer: Any, text: str) -> list[int]:
        """Ids of a text that begins a stream."""
        return encode(tokenizer, self.before_text + text, begins=True)

    def question_ids(self, tokenizer: Any, question: str) -> list[int]:
        """Ids of a question after the text."""
        return encode(tokenizer, self.before_question + question + self.after_question, begins=False)


def encode(tokenizer: Any, text: str, *, begins: bool) -> list[int]:
    """Token ids of a text; where it begins a stream, after the beginning-of-stream id if the tokenizer uses one."""
    # Called on its own backend where there is one: the wrapper warns about texts longer than the model was trained on.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    ids: Sequence[int]
    if backend is not None:
        ids = backend.encode(text, add_special_tokens=False).ids
    else:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*_beginning(tokenizer), *ids] if begins else list(ids)


def _beginning(tokenizer: Any) -> list[int]:
    beginning = tokenizer.bos_token_id
    if beginning is None:
        return []
    with_special = tokenizer("a", add_special_tokens=True)["input_ids"]
    return [beginning] if with_special and with_special[0] == beginning else []
