"""One request while it is answered: its prompt read in pieces, its tokens chosen one by one.

Invariants:
    One thread at a time touches it; only `cancel` may come from any.
    Read in pieces or at once, a prompt is read in the same passes: pieces end where the reader's own chunks do.
"""

import threading
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attn_client.errors import MemoryUnavailable
from attn_client.pieces import AnswerText, NewRecalls
from attn_client.reader import PROMPT_PASS_TOKENS
from attn_client.worker.asks import Ask, Emit, Event, Finished, FinishReason, MemoryReport, Piece
from attn_client.worker.rows import Row
from attn_client.worker.sampling import Sampler


@dataclass(frozen=True)
class _Answering:
    """What turns one request's logits into what its caller is told."""

    sampler: Sampler
    text: AnswerText
    recalls: NewRecalls
    ends: frozenset[int]


class Generation:
    """A request from its acceptance to its end.

    Args:
        emit: Takes what the caller is told; called from any thread.

    Attributes:
        token: The newest token of the answer; it is not read yet.
        reason: Why the answer has ended; None while it goes on.
    """

    def __init__(self, ask: Ask, emit: Emit) -> None:
        self.ask = ask
        self.cancelled = threading.Event()
        self.token = -1
        self.reason: FinishReason | None = None
        self._emit = emit
        self._row: Row | None = None
        self._prompt: list[int] = []
        self._prompt_tokens = 0
        self._answer_tokens = 0
        self._answering: _Answering | None = None

    @property
    def row(self) -> Row:
        """Its row, once it is opened."""
        assert self._row is not None, "the request has no row yet"
        return self._row

    @property
    def is_open(self) -> bool:
        """Whether it has a row."""
        return self._row is not None

    def cancel(self) -> None:
        """The caller has left: stop at the next token. From any thread."""
        self.cancelled.set()

    def tell(self, event: Event) -> None:
        """Tell the caller something."""
        self._emit(event)

    def opened(self, row: Row, ids: list[int], tokenizer: Any, ends: frozenset[int]) -> None:
        """It has its row and its prompt's ids there."""
        self._row, self._prompt, self._prompt_tokens = row, ids, len(ids)
        text = AnswerText(tokenizer, self.ask.stop)
        self._answering = _Answering(Sampler(self.ask.sampling), text, NewRecalls(row.reader), ends)

    def read_piece(self) -> bool:
        """Read a piece of the prompt in one pass, its end in two. Whether all of it is read."""
        reader = self.row.reader
        last = min(self._prompt_tokens, PROMPT_PASS_TOKENS, reader.geometry.chunk_tokens)
        chunk = reader.geometry.chunk_tokens
        before, remaining = reader.position, len(self._prompt)
        try:
            if remaining > last:
                reader.read(self._prompt[: min(chunk - before % chunk, remaining - last)])
            else:
                reader.prompt(self._prompt)
        except MemoryUnavailable as error:
            # The outbox is full and nobody takes from it: what the pass did not count is read again without memory.
            self.row.lose_memory(error)
        self._prompt = self._prompt[reader.position - before :]
        return not self._prompt

    def take(self, logits: Tensor) -> None:
        """Choose the next token by its logits [vocabulary], tell its text, and notice the end of the answer."""
        assert self._answering is not None
        text = self._answering.text
        self.token = self._answering.sampler.choose(logits)
        if self.token in self._answering.ends:
            self.reason = "stop"
            self._tell_piece(text.end())
            return
        self._answer_tokens += 1
        certain = text.add(self.token)
        if not text.stopped and self._answer_tokens >= self.ask.tokens:
            certain += text.end()
            self.reason = "length"
        if text.stopped:
            self.reason = "stop"
        self._tell_piece(certain)

    def read_rest(self, end: list[int]) -> None:
        """Read what a session that is kept has to hold of the answer's end.

        Args:
            end: Ids that end an answer in a conversation; none where text is continued.
        """
        assert self._answering is not None
        if not self.row.keeps or self.reason is None:
            return
        chosen = [self.token] if self.token not in self._answering.ends else []
        try:
            self.row.reader.read([*chosen, *end])
        except MemoryUnavailable as error:
            self.row.lose_memory(error)

    def finished(self, saved: bool) -> Finished:
        """What is told at the end."""
        assert self.reason is not None
        row, reader = self.row, self.row.reader
        recalls = reader.recalls
        report = MemoryReport(
            session=row.session,
            mode=row.mode,
            position=reader.position,
            resident_tokens_max=reader.resident_tokens_max,
            saved=saved,
            recalled=recalls.prompted if recalls is not None else None,
            degraded=row.degraded,
        )
        return Finished(self.reason, self._prompt_tokens, self._answer_tokens, report)

    def _tell_piece(self, text: str) -> None:
        assert self._answering is not None
        recalled = self._answering.recalls.take()
        if text or recalled is not None:
            self.tell(Piece(text, recalled))
