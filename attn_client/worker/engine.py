"""Many requests on one model: rows opened on threads, prompts read in turns, tokens decoded together.

    submit --> waiting --> opening --> ready --> reading --> decoding --> closing --> told
                (queue)    (threads)             `-- the model's thread --'  (threads)

In each turn the model's thread reads one piece of one prompt, the prompts taking turns, and then decodes one token of
every answer that is under way, all of them in one pass. So a long prompt delays an answer by a piece a token at most.

Invariants:
    The model runs on one thread. It waits for memory only in a reader's own recalls.
    A request has at most one thread at a time; it is told of its end exactly once, and then has left.
    One whose caller leaves while it waits leaves the queue at once: places there are for callers who are there.
    At most `rows_max` requests are past waiting and at most `queue_max` wait.
"""

import logging
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from attn_client.errors import AttnClientError
from attn_client.hf.attach import Attached
from attn_client.reader import decode
from attn_client.worker.asks import Ask, Emit, Failed, Opened
from attn_client.worker.failures import Failure, Refused, failure_of
from attn_client.worker.generation import Generation
from attn_client.worker.prompts import ChatForm
from attn_client.worker.rows import Rows
from attn_client.worker.settings import WorkerSettings

# After so many seconds a request that found no place may try again.
RETRY_S = 1.0
CANCELLED = Failure(499, "cancelled", "expected the caller to stay for the answer, got one that left")
STOPPING = Failure(503, "stopping", "expected a worker that takes requests, got one that is stopping", retry_s=RETRY_S)

_LOGGER = logging.getLogger(__name__)


def _queue_full(queue_max: int) -> Failure:
    message = f"expected at most {queue_max} requests to wait for this worker, got one more"
    return Failure(429, "queue_full", message, retry_s=RETRY_S)


class Engine:
    """Answers requests until it is closed. Any thread may call it.

    Args:
        attached: The model; while the engine is open nobody else may run it.
    """

    def __init__(self, attached: Attached, tokenizer: Any, settings: WorkerSettings) -> None:
        self._passes, self._tokenizer, self._settings = attached.passes, tokenizer, settings
        self.rows = Rows(attached, tokenizer, settings)
        has_template = bool(getattr(tokenizer, "chat_template", None))
        self._turn_end = ChatForm(tokenizer).end_ids(self._passes.end_ids) if has_template else []
        self._changed = threading.Condition()
        self._waiting: deque[Generation] = deque()
        self._ready: deque[Generation] = deque()
        self._under_way: set[Generation] = set()
        self._closing = False
        # One thread a row: whoever waits for a writer to leave must not hold up that writer's end.
        self._sessions = ThreadPoolExecutor(settings.rows_max, "session")
        self._model = threading.Thread(target=self._run, name="model")
        self._model.start()

    @property
    def load(self) -> tuple[int, int]:
        """Requests that have a row, or are getting one; and those that wait."""
        with self._changed:
            return len(self._under_way), len(self._waiting)

    def submit(self, ask: Ask, emit: Emit) -> Generation:
        """Take a request on.

        Args:
            emit: Called from the engine's threads with Opened, Pieces, and at the end Finished or Failed.

        Raises:
            Refused: Too many are waiting (429), or the engine is closing (503).
        """
        generation = Generation(ask, emit)
        with self._changed:
            if self._closing:
                raise Refused(STOPPING)
            if len(self._under_way) >= self._settings.rows_max and len(self._waiting) >= self._settings.queue_max:
                raise Refused(_queue_full(self._settings.queue_max))
            self._waiting.append(generation)
            self._admit()
        return generation

    def cancel(self, generation: Generation) -> None:
        """Its caller has left: it ends at its next token, or at once where it only waits. Twice is fine."""
        generation.cancel()
        with self._changed:
            if generation not in self._waiting:
                return
            self._waiting.remove(generation)
        generation.tell(Failed(CANCELLED))

    def close(self) -> None:
        """Fail what is under way, and end all threads. Twice is fine."""
        with self._changed:
            self._closing = True
            left, self._waiting = list(self._waiting), deque()
            for generation in self._under_way:
                generation.cancel()
            self._changed.notify_all()
        for generation in left:
            generation.tell(Failed(STOPPING))
        self._model.join()
        self._sessions.shutdown()

    def _admit(self) -> None:
        """Open rows for those that wait, while there are any. Holds `_changed`."""
        while self._waiting and len(self._under_way) < self._settings.rows_max:
            generation = self._waiting.popleft()
            self._under_way.add(generation)
            self._sessions.submit(self._open, generation)

    def _open(self, generation: Generation) -> None:
        try:
            if generation.cancelled.is_set():
                raise Refused(CANCELLED)
            row, ids = self.rows.open(generation.ask, generation.cancelled)
            generation.opened(row, ids, self._tokenizer, self._passes.end_ids)
            generation.tell(Opened())
            with self._changed:
                self._ready.append(generation)
                self._changed.notify_all()
        except Exception as error:
            self._abandon(generation, error)

    def _run(self) -> None:
        """The model's thread."""
        reading: deque[Generation] = deque()
        decoding: list[Generation] = []
        while self._await_work(reading, bool(reading or decoding)):
            if reading and (read := self._read_one(reading)) is not None:
                decoding.append(read)
            decoding = self._decode(decoding)

    def _await_work(self, reading: deque[Generation], busy: bool) -> bool:
        """Take over what is ready, waiting for some if there is nothing else to do; False once all is done."""
        with self._changed:
            while not (self._ready or busy or (self._closing and not self._under_way)):
                self._changed.wait()
            reading.extend(self._ready)
            self._ready.clear()
            return busy or bool(reading)

    def _read_one(self, reading: deque[Generation]) -> Generation | None:
        """Read a piece of the first prompt; the request if its first token is chosen and it goes on."""
        generation = reading.popleft()
        if generation.cancelled.is_set():
            self._leave(generation, Refused(CANCELLED))
            return None
        try:
            if not generation.read_piece():
                reading.append(generation)
                return None
            logits = generation.row.reader.next_logits()
        except Exception as error:
            self._leave(generation, error)
            return None
        return generation if self._takes(generation, logits) and self._goes_on(generation) else None

    def _decode(self, decoding: list[Generation]) -> list[Generation]:
        """One more token of every answer; those that go on."""
        going = []
        for generation in decoding:
            if generation.cancelled.is_set():
                self._leave(generation, Refused(CANCELLED))
            else:
                going.append(generation)
        if not going:
            return going
        try:
            logits = decode(self._passes, [one.row.reader for one in going], [one.token for one in going])
        except Exception as error:
            # One pass for all: which row is at fault cannot be told.
            for generation in going:
                self._leave(generation, error)
            return []
        taken = [generation for generation, row in zip(going, logits, strict=True) if self._takes(generation, row)]
        return [generation for generation in taken if self._goes_on(generation)]

    def _takes(self, generation: Generation, logits: Tensor) -> bool:
        """Whether it made something of its next token's logits."""
        try:
            generation.take(logits)
        except Exception as error:
            self._leave(generation, error)
            return False
        return True

    def _goes_on(self, generation: Generation) -> bool:
        """Whether its answer does; one that has ended is read to its end and closed."""
        if generation.reason is None:
            return True
        try:
            generation.read_rest(self._turn_end if generation.ask.messages else [])
        except Exception as error:
            self._leave(generation, error)
            return False
        self._sessions.submit(self._finish, generation)
        return False

    def _finish(self, generation: Generation) -> None:
        try:
            finished = generation.finished(saved=self.rows.close(generation.row, keep=True))
        except Exception as error:
            self._fail(generation, error)
            return
        try:
            generation.tell(finished)
        finally:
            self._forget(generation)

    def _leave(self, generation: Generation, why: Exception) -> None:
        """It ends without an answer; its row is closed on a thread of its own."""
        self._sessions.submit(self._abandon, generation, why)

    def _abandon(self, generation: Generation, why: Exception) -> None:
        try:
            if generation.is_open:
                self.rows.close(generation.row, keep=False)
        finally:
            self._fail(generation, why)

    def _fail(self, generation: Generation, why: Exception) -> None:
        if not isinstance(why, AttnClientError):
            _LOGGER.error("expected to answer a request, got %s", type(why).__name__, exc_info=why)
        try:
            generation.tell(Failed(failure_of(why)))
        finally:
            self._forget(generation)

    def _forget(self, generation: Generation) -> None:
        with self._changed:
            self._under_way.discard(generation)
            if not self._closing:
                self._admit()
            self._changed.notify_all()
