"""One open session: what a reader of the model side calls.

Invariants: nothing here waits longer than it says. `append` and `put_block` with `wait` wait for room as long as
anything is acknowledged; without it they drop and record a gap. `settle` waits as they do, for everything. `recall`
and `fetch_blocks` wait at most their timeout, and none of the three while the server is known not to answer. A session
that is lost takes nothing and gives nothing, and says so.
Must not know: gRPC, torch.
"""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from attn_client.errors import MemoryUnavailable, UnsupportedCall
from attn_client.memory.attachment import Attachment
from attn_client.memory.calls import Calls
from attn_client.memory.link import Link
from attn_client.memory.records import RecallAnswer, SessionStats, StepRecord
from attn_client.memory.tails import cut_tail
from attn_client.memory.transfer import BlockTransfer, pending_block
from attn_client.memory.waiting import await_acknowledged, await_recall
from attn_client.memory.wire import BLOCK_TOKENS, steps_of
from protos.memsvc.v1 import session_pb2, types_pb2

# Telling the server is a courtesy, and not to be waited for as long as an answer that is needed.
CLOSE_TIMEOUT_S = 2.0

Bytes = npt.NDArray[np.uint8]


class MemorySession:
    """A worker's place at a session: the writer, or a view. One thread at a time calls it.

    `info` is the session when it was opened; `tail` what to go on from, None in an empty session.
    """

    def __init__(
        self,
        link: Link,
        calls: Calls,
        transfer: BlockTransfer,
        attachment: Attachment,
        opened: session_pb2.OpenSessionResponse,
    ) -> None:
        self._link, self._calls, self._transfer, self._attachment = link, calls, transfer, attachment
        self.info: types_pb2.SessionInfo = opened.session
        self.tail: session_pb2.Tail | None = opened.tail if opened.HasField("tail") else None
        self.read_only = attachment.opening.read_only
        self.closed = False

    @property
    def position(self) -> int:
        """Position of the next token to append."""
        with self._link.changed:
            return self._attachment.steps.position

    @property
    def degraded_reasons(self) -> tuple[str, ...]:
        """What memory failed to take or keep, one line each; empty when all went well."""
        with self._link.changed:
            return self._attachment.degraded_reasons

    @property
    def stats(self) -> SessionStats:
        """Counts as they are now."""
        with self._link.changed:
            return self._link.stats(self._attachment)

    def append(self, record: StepRecord, *, wait: bool) -> int | None:
        """Hand over tokens that the model has read.

        Args:
            wait: Wait for room in the outbox; else drop the tokens when there is none.

        Returns:
            Number to ask for the recall with, or None when the tokens were dropped: a recorded gap.

        Raises:
            MemoryUnavailable: There was no room, and nothing was acknowledged for the stall timeout.
            UnsupportedCall: The record does not begin where the last one ended, or its arrays do not fit each other.
        """
        link, attachment = self._link, self._attachment
        if record.first_position != self.position:
            raise UnsupportedCall(f"expected a step at position {self.position}, got one at {record.first_position}")
        with link.changed:
            attachment.signals = tuple(record.signals)
            if attachment.lost is not None:
                attachment.steps.drop(len(record.ids))
                return None
        sinks = None if self.read_only else attachment.opening.fingerprint.sink_tokens
        try:
            steps = steps_of(record, link.welcome, sink_tokens=sinks)
        except ValueError as error:
            raise UnsupportedCall(f"step at position {record.first_position}: {error}") from None
        with link.changed:
            if not link.admit(attachment, sum(step.size_bytes for step in steps), wait=wait):
                attachment.steps.drop(len(record.ids))
                return None
            for step in steps:
                seq = attachment.add_step(step)
            link.changed.notify_all()
        return seq

    def put_block(self, block: int, data: Bytes, *, wait: bool) -> None:
        """Store a whole block of tokens that were appended. The bytes are copied.

        Args:
            data: All bytes of the block, [block_bytes].
            wait: Wait for room in the outbox; else drop the block, a recorded gap, when there is none.

        Raises:
            MemoryUnavailable: As in `append`.
            UnsupportedCall: This is a view.
        """
        self._put(block, 0, data, wait=wait)

    def drop_block(self, block: int) -> None:
        """Leave a block out of memory on purpose: a recorded gap, never recalled.

        Raises:
            UnsupportedCall: This is a view.
        """
        self._require_writer("drop a block")
        with self._link.changed:
            self._attachment.blocks.drop(block)

    def settle(self, timeout_s: float) -> None:
        """Wait until all that was handed over is acknowledged, so that a recall asked next waits for itself alone.

        Args:
            timeout_s: Longest without any acknowledgement. Past that the server counts as one that does not answer.
        """
        await_acknowledged(self._link, self._attachment, timeout_s)

    def recall(self, seq: int, timeout_s: float, *, patient: bool = True) -> RecallAnswer | None:
        """The answer to a step that asked, once. None: refused, not there in time, or nobody there to give it.

        After a wait that ran out, None comes at once until the server has said something again; for whoever is not
        `patient`, until an answer was quicker than that wait: a server that is late with all costs one wait in all.
        """
        return await_recall(self._link, self._attachment, seq, timeout_s, patient=patient)

    def fetch_blocks(self, blocks: Sequence[int], timeout_s: float) -> dict[int, Bytes]:
        """Bytes of blocks, [block_bytes] each, checked; the arrays are the caller's.

        Args:
            timeout_s: For all of them together.

        Raises:
            MemoryRefused: One is missing (BLOCK_NOT_FOUND) or damaged (CORRUPT_BLOCK).
            MemoryUnavailable: They did not come in time, or the server is known not to answer.
        """
        link, opening = self._link, self._attachment.opening
        with link.changed:
            if self._attachment.lost is not None:
                raise self._attachment.lost
            if not link.answering:
                raise MemoryUnavailable(f"expected {len(blocks)} blocks, got a server that does not answer now")
        began = time.monotonic()
        try:
            return self._transfer.fetch(opening.attachment, blocks, opening.fingerprint.block_bytes, timeout_s)
        except MemoryUnavailable:
            if time.monotonic() - began >= timeout_s:
                with link.changed:
                    link.silent()
            raise

    def save_tail(
        self, position: int, logits: npt.NDArray[np.float32] | None, last_id: int | None, partial: Bytes | None
    ) -> None:
        """Wait until everything handed over is acknowledged, then cut a tail: durable when this returns.

        Args:
            position: Tokens read so far.
            logits: Of the next token, float32 [vocabulary].
            last_id: Id of the last token.
            partial: The block that is not full yet, [block_bytes], zero past its tokens; None at a block's edge.

        Raises:
            MemoryUnavailable: Nothing was acknowledged for the stall timeout.
            MemoryRefused: The session is lost, or the server misses something (TAIL_INCOMPLETE).
            UnsupportedCall: This is a view.
        """
        self._require_writer("save a tail")
        if position != self.position or (position % BLOCK_TOKENS != 0) != (partial is not None):
            raise UnsupportedCall(f"expected a tail at {self.position} with its partial block, got one at {position}")
        if partial is not None:
            self._put(position // BLOCK_TOKENS, position % BLOCK_TOKENS, partial, wait=True)
        cut_tail(self._link, self._calls, self._attachment, position, logits, last_id)

    def close(self) -> None:
        """End the attachment. What is not acknowledged is given up: only a tail makes it last. Twice is fine."""
        if self.closed:
            return
        self.closed = True
        link, attachment = self._link, self._attachment
        with link.changed:
            link.remove(attachment)
            answering = link.answering
        if not self._calls.close_attachment(attachment.opening.attachment, CLOSE_TIMEOUT_S if answering else 0.0):
            # Other sessions need not wait as well.
            with link.changed:
                link.silent()

    def _require_writer(self, doing: str) -> None:
        if self.read_only:
            raise UnsupportedCall(f"expected a writer to {doing}, got a view of session {self.info.name!r}")

    def _put(self, block: int, partial_tokens: int, data: Bytes, *, wait: bool) -> None:
        self._require_writer("put a block")
        expected = self.info.spec.fingerprint.block_bytes
        if data.nbytes != expected:
            raise UnsupportedCall(f"expected a block of {expected} bytes, got {data.nbytes}")
        end = block * BLOCK_TOKENS + (partial_tokens or BLOCK_TOKENS)
        if end > self.position:
            raise UnsupportedCall(f"expected a block of tokens before {self.position}, got one that ends at {end}")
        link, blocks = self._link, self._attachment.blocks
        with link.changed:
            if not link.admit(self._attachment, data.nbytes, wait=wait):
                blocks.drop(block)
                return
            arena = link.shared
        pending = pending_block(arena, block, partial_tokens, end, data)
        with link.changed:
            if self._attachment.lost is not None:
                link.free_block(pending)
                return
            blocks.add(pending)
            link.changed.notify_all()
