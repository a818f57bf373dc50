"""An answer as it comes, in pieces: text that is certain, and recalls that have just come into force."""

from collections.abc import Sequence
from typing import Any

from attn_client.memory import RecallAnswer
from attn_client.reader import Reader

# What a decoder gives for bytes that are not a whole character yet.
_UNFINISHED = "\ufffd"


class AnswerText:
    """Text of an answer as its tokens come. What may still become a stop text, or half a character, is held back.

    Attributes:
        stopped: A stop text was found; nothing more comes.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._ids: list[int] = []
        # Tokens before `_read` are in the text; those from `_context` on are decoded again, for how they join.
        self._context, self._read = 0, 0
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain with one more token."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._read])
        now = self._decode(self._ids[self._context :])
        if now.endswith(_UNFINISHED):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._release(now[len(before) :])

    def end(self) -> str:
        """What was held back, now that no token comes any more."""
        if self.stopped:
            return ""
        before = self._decode(self._ids[self._context : self._read])
        rest = self._decode(self._ids[self._context :])[len(before) :]
        certain = self._release(rest)
        held, self._held = self._held, ""
        return certain if self.stopped else certain + held

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _release(self, new: str) -> str:
        self._held += new
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            certain, self._held = self._held[: min(found)], ""
            return certain
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of a text that a stop text begins with, short of the whole."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class NewRecalls:
    """Recalls of a reader, each told once, as it brings other blocks than the one before."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._told: tuple[int, ...] = ()

    def take(self) -> RecallAnswer | None:
        """The recall in force, if it is new."""
        recalls = self._reader.recalls
        if recalls is None or not recalls.answers:
            return None
        newest = recalls.answers[-1]
        blocks = tuple(sorted(one.block for one in newest.blocks))
        if blocks == self._told:
            return None
        self._told = blocks
        return newest
