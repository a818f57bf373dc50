"""Rows: a reader at its place in a session, for one request, and the end of it.

    session named, write   the writer, opened for this request and closed with a tail: any worker may go on from there
    session named, read    a view of the newest tail, so what is seen is at most one turn old
    no session             sinks and window while the text fits them, else a temporary session

Invariants:
    A turn is whole or absent: only a finished one saves a tail, and what a writer left without one is discarded.
    Memory that is away costs recall and saving, never the answer: the row goes on with sinks and window and says so.
Called on threads of their own: opening and saving wait for the server, and the model must not.
"""

import dataclasses
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

import torch

from attn_client.errors import MemoryFailure, MemoryRefused, MemoryUnavailable
from attn_client.hf.attach import Attached
from attn_client.memory import MemorySession
from attn_client.reader import Reader
from attn_client.session_spec import session_spec
from attn_client.text import PromptForm, encode
from attn_client.window import Geometry
from attn_client.worker.asks import Ask, Mode, SessionAsk
from attn_client.worker.failures import Failure, Refused
from attn_client.worker.prompts import Place, chat_ids, text_ids
from attn_client.worker.settings import WorkerSettings
from attn_client.worker.temporary import discard, temporary
from protos.memsvc.v1 import types_pb2

# Between two looks at whether memory is back, or whether another writer has left.
RETRY_PAUSE_S = 0.05

TEMPORARY, WINDOW = "temporary", "window"

_LOGGER = logging.getLogger(__name__)


@dataclass
class Row:
    """A reader, the session behind it, and what went wrong with that. `keeps`: a finished turn is saved."""

    reader: Reader
    session: str | None
    mode: str
    keeps: bool
    notes: list[str]
    lost: MemorySession | None = None
    _said: tuple[str, ...] | None = None

    @property
    def degraded(self) -> tuple[str, ...]:
        """What memory failed to do for this row."""
        return (*self.notes, *(self.reader.degraded if self._said is None else self._said))

    def settle(self) -> None:
        """Its session is about to be closed, which of itself is no failure."""
        self._said = self.reader.degraded

    def lose_memory(self, why: Exception) -> None:
        """Go on with sinks and window alone."""
        self.notes += [f"memory does not keep this turn: {why}", *self.reader.degraded]
        self.keeps = False
        self.lost, self.reader.memory, self.reader.recalls = self.reader.memory, None, None


class Rows:
    """Opens and closes the rows of one attached model. Any thread may call it."""

    def __init__(self, attached: Attached, tokenizer: Any, settings: WorkerSettings) -> None:
        self._attached, self._tokenizer, self._settings = attached, tokenizer, settings
        self._away = threading.Event()

    @property
    def memory_is_up(self) -> bool | None:
        """Whether the memory server is connected; None where there is none."""
        return self._attached.memory.connected if self._attached.memory is not None else None

    def open(self, ask: Ask, cancelled: threading.Event) -> tuple[Row, list[int]]:
        """The row that a request asks for, and the ids of its prompt there.

        Raises:
            Refused, MemoryRefused: There is no such row to be had.
        """
        if ask.session is None:
            ids = self._ids(ask, Place())
            return self._without_session(ask, len(ids) + ask.tokens, cancelled), ids
        row, place = self._in_session(ask, ask.session, cancelled)
        try:
            return row, self._ids(ask, place)
        except Exception:
            self.close(row, keep=False)
            raise

    def close(self, row: Row, *, keep: bool) -> bool:
        """End a row. Whether its session now holds the turn.

        Args:
            keep: Save a tail, if the row's session is to be kept at all.
        """
        memory = row.reader.memory or row.lost
        if memory is None:
            return False
        saved = False
        try:
            if keep and row.keeps:
                row.reader.save_tail()
                saved = True
        except MemoryFailure as error:
            row.notes.append(f"memory does not keep this turn: {error}")
        row.settle()
        try:
            if row.mode == TEMPORARY:
                discard(self._attached.client, memory)
            else:
                memory.close()
        except MemoryFailure as error:
            # The answer stands without it; its attachment ends with this worker's stream.
            _LOGGER.warning("expected to close session %r, got: %s", memory.info.name, error)
        return saved

    def _without_session(self, ask: Ask, tokens: int, cancelled: threading.Event) -> Row:
        geometry = Geometry.of(self._attached.settings)
        # What never leaves the window need not be remembered.
        fits = geometry.window_start(tokens) == geometry.sink_tokens
        if fits or not ask.remember or self._attached.memory is None:
            return self._window_row(ask, [])
        try:
            self._await_memory(cancelled)
            with temporary(self._attached.client, self._spec()) as memory:
                return Row(self._reader(ask, memory), None, TEMPORARY, False, [])
        except MemoryUnavailable as error:
            return self._window_row(ask, [self._note_away(error)])

    def _in_session(self, ask: Ask, wanted: SessionAsk, cancelled: threading.Event) -> tuple[Row, Place]:
        if self._attached.memory is None:
            message = f"session: expected a worker with a memory, got session {wanted.name!r} for one without"
            raise Refused(Failure(400, "no_memory", message, "session"))
        try:
            self._await_memory(cancelled)
            memory = self._open(wanted, cancelled)
            try:
                row = Row(self._reader(ask, memory), wanted.name, wanted.mode.value, not memory.read_only, [])
                return row, self._place(row, ask, wanted.name)
            except Exception:
                memory.close()
                raise
        except MemoryUnavailable as error:
            return self._window_row(ask, [self._note_away(error)]), Place()

    def _open(self, wanted: SessionAsk, cancelled: threading.Event) -> MemorySession:
        client = self._attached.client
        if wanted.mode is Mode.READ:
            return client.open_view(wanted.name, self._attached.fingerprint, wanted.snapshot)
        if wanted.mode is Mode.FORK:
            client.fork_session(wanted.parent, wanted.name, wanted.snapshot)
        elif wanted.mode is Mode.CREATE:
            if tokens := self._create(wanted.name):
                message = f"session: expected a new one, got {wanted.name!r} with {tokens} tokens"
                raise Refused(Failure(409, "session_exists", message, "session"))
        else:
            self._find_or_create(wanted.name)
        deadline = time.monotonic() + self._settings.writer_wait_s
        while True:
            try:
                return client.open_writer(wanted.name, self._attached.fingerprint)
            except MemoryRefused as error:
                late = time.monotonic() >= deadline or cancelled.is_set()
                if error.reason != "SESSION_HAS_WRITER" or late:
                    raise
            cancelled.wait(RETRY_PAUSE_S)

    def _find_or_create(self, name: str) -> None:
        try:
            # One that is there may have been made with other settings of its bookmarks.
            self._attached.client.get_session(name)
        except MemoryRefused as error:
            if error.reason != "SESSION_NOT_FOUND":
                raise
            self._create(name)

    def _create(self, name: str) -> int:
        """Make a session, or find it; the tokens it holds."""
        return self._attached.client.create_session(name, self._spec()).tokens

    def _spec(self) -> types_pb2.SessionSpec:
        return session_spec(self._attached.fingerprint, self._attached.settings.bookmarks)

    def _reader(self, ask: Ask, memory: MemorySession | None) -> Reader:
        attached, recall = self._attached, ask.recall
        parts = dataclasses.replace(attached.parts, alpha=torch.full_like(attached.parts.alpha, recall.alpha))
        settings = dataclasses.replace(attached.settings, recall=recall)
        return Reader(attached.passes, parts, settings, memory, attached.texts)

    def _window_row(self, ask: Ask, notes: list[str]) -> Row:
        return Row(self._reader(ask, None), None, WINDOW, False, notes)

    def _place(self, row: Row, ask: Ask, session: str) -> Place:
        position = row.reader.position
        if not position:
            return Place()
        tail = row.reader.memory.tail if row.reader.memory is not None else None
        if tail is not None and tail.HasField("last_id") and tail.last_id in self._attached.passes.end_ids:
            return Place(begins=False, answered=True)
        # Looking into a session asks for a scope of its own, which a text to continue has no need of.
        return Place(begins=False, in_user_turn=bool(ask.messages) and self._began_user_turn(session))

    def _began_user_turn(self, session: str) -> bool:
        if not getattr(self._tokenizer, "chat_template", None):
            return False
        begins = encode(self._tokenizer, PromptForm.chat(self._tokenizer).before_text, begins=True)
        _, held = self._attached.client.read_tokens(session, 0, len(begins))
        return bool(begins) and held.tolist() == begins

    def _ids(self, ask: Ask, place: Place) -> list[int]:
        if ask.messages:
            ids = chat_ids(self._tokenizer, ask.messages, place, self._attached.passes.end_ids)
        else:
            ids = text_ids(self._tokenizer, ask.prompt, begins=place.begins)
        most = self._settings.prompt_tokens_max
        if len(ids) > most:
            message = f"prompt: expected at most {most} tokens, got {len(ids)}"
            raise Refused(Failure(400, "context_length_exceeded", message, "prompt"))
        if not ids and place.begins:
            raise Refused(Failure(400, "invalid_value", "prompt: expected some text, got none", "prompt"))
        return ids

    def _await_memory(self, cancelled: threading.Event) -> None:
        """Wait a while for memory that has just left; fail at once while it is known to be away."""
        client = self._attached.client
        deadline = time.monotonic() + (0.0 if self._away.is_set() else self._settings.memory_wait_s)
        while not client.connected:
            if time.monotonic() >= deadline or cancelled.is_set():
                waited = self._settings.memory_wait_s
                raise MemoryUnavailable(f"expected a memory server, got none since a request waited {waited} s for it")
            cancelled.wait(RETRY_PAUSE_S)
        self._away.clear()

    def _note_away(self, why: MemoryUnavailable) -> str:
        self._away.set()
        return f"memory is away, sinks and window only: {why}"
