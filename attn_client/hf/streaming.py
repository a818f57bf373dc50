"""A streamer for `model.generate`: each piece of text as it is certain, with what was recalled for it.

model.generate(ids, streamer=RecallStreamer(tokenizer, reader, print))
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from attn_client.errors import UnsupportedCall
from attn_client.memory import RecallAnswer
from attn_client.pieces import AnswerText, NewRecalls
from attn_client.reader import Reader


class RecallStreamer(BaseStreamer):
    """Tells text and recalls as they happen; one row.

    Args:
        tell: Called on the thread that generates, with new text (it may be empty) and a recall that has just come into
            force, or None. Its blocks say where in the session the model looked from then on.
    """

    def __init__(self, tokenizer: Any, reader: Reader, tell: Callable[[str, RecallAnswer | None], None]) -> None:
        self._text = AnswerText(tokenizer, ())
        self._recalls = NewRecalls(reader)
        self._tell = tell
        self._prompted = False

    def put(self, value: Tensor) -> None:
        """The prompt's ids, which are not told, then one token at a time."""
        if value.shape[0] != 1 and value.dim() > 1:
            raise UnsupportedCall(f"expected one row to stream, got {value.shape[0]}")
        if not self._prompted:
            self._prompted = True
            return
        for token in value.reshape(-1).tolist():
            self._say(self._text.add(token))

    def end(self) -> None:
        """No token comes any more."""
        self._say(self._text.end())

    def _say(self, text: str) -> None:
        recalled = self._recalls.take()
        if text or recalled is not None:
            self._tell(text, recalled)
