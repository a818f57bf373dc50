"""What the threads of one client share, under one condition: whether the server is there, and what is on its way to
it.

    caller     appends, waits for room and for recalls         } all under `changed`, which is notified
    attach     receives acks, recalls, faults; reconnects      } whenever any of it changes
    blocks     receives put acks

Invariants: `generation` counts the connections that came up, from 1; `up` says that the newest one is; a pending
entry's bytes and arena slot are freed exactly once, here.
Must not know: gRPC.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable
from threading import Condition

from attn_client.errors import MemoryFailure, MemoryUnavailable
from attn_client.memory.arena import Arena
from attn_client.memory.attachment import Attachment
from attn_client.memory.outbox import Outbox, PendingBlock, PendingStep
from attn_client.memory.records import SessionStats
from protos.memsvc.v1 import memory_pb2

# Of the grace that a stopping server gives, how much to use: what is left covers the way back.
DRAIN_SHARE = 0.8


class Link:
    """State of one client's connection. Except for `changed`, touch it only while holding `changed`."""

    def __init__(self, outbox_bytes_max: int, stall_timeout_s: float, arena: Arena | None) -> None:
        self.changed = Condition()
        self.outbox = Outbox(self.changed, outbox_bytes_max, stall_timeout_s)
        self.arena = arena
        # In order of whose turn it is to send.
        self.attachments: OrderedDict[str, Attachment] = OrderedDict()
        self.welcome = memory_pb2.Welcome()
        self.generation = 0
        self.up = False
        self.closing = False
        self.failure: MemoryFailure | None = None
        self._silent = False
        self._drained_at: float | None = None

    @property
    def answering(self) -> bool:
        """The server is there, and has said something since a wait for it last ran out."""
        return self.up and not self._silent

    @property
    def shared(self) -> Arena | None:
        """The arena if the server uses it too."""
        return self.arena if self.welcome.arena_accepted else None

    @property
    def draining(self) -> bool:
        """The server is about to stop: no new step goes out."""
        return self._drained_at is not None

    def came_up(self, welcome: memory_pb2.Welcome) -> None:
        """A connection is up and its attachments are resumed."""
        self.welcome, self.up, self._silent = welcome, True, False
        self.changed.notify_all()

    def begin(self, welcome: memory_pb2.Welcome) -> int:
        """A server said Welcome; number of this connection."""
        self.generation += 1
        self.welcome = welcome
        return self.generation

    def went_down(self) -> None:
        """The connection is gone, and what it was told with it."""
        self.up = False
        self._drained_at = None
        self.changed.notify_all()

    def fail(self, why: MemoryFailure) -> None:
        """No connection will come up any more."""
        self.failure = why
        for attachment in list(self.attachments.values()):
            self.lose(attachment, why)
        self.went_down()

    def close(self) -> None:
        """The client is being closed: every thread ends."""
        self.closing = True
        self.changed.notify_all()

    def heard(self) -> None:
        """The server said something."""
        self._silent = False

    def silent(self) -> None:
        """A wait for the server ran out: until it says something, nobody waits for it again."""
        self._silent = True

    def drain(self, grace_s: float) -> None:
        """The server is about to stop, at the latest in so many seconds."""
        self._drained_at = time.monotonic() + grace_s * DRAIN_SHARE
        self.changed.notify_all()

    def seconds_to_drain(self) -> float | None:
        """How long what is in flight may still take before leaving; None: no need to leave; 0 or less: leave now."""
        if self._drained_at is None:
            return None
        # A recall may wait for blocks that are still here: both are finished first.
        unfinished = (
            self.in_flight_tokens
            or self.has_block()
            or any(one.blocks.in_flight or one.recalls.unanswered for one in self.attachments.values())
        )
        return self._drained_at - time.monotonic() if unfinished else 0.0

    @property
    def in_flight_tokens(self) -> int:
        """Tokens sent and not acknowledged, over all attachments."""
        return sum(attachment.steps.in_flight_tokens for attachment in self.attachments.values())

    def take_step(self) -> PendingStep | None:
        """The next step to send, as far as credit allows; it counts as sent."""
        if self.draining:
            return None
        room = self.welcome.credit_tokens - self.in_flight_tokens
        for attachment in self.attachments.values():
            if attachment.stuck:
                attachment.declare_gaps()
            step = attachment.steps.next_waiting()
            if step is not None and step.tokens <= room:
                self.attachments.move_to_end(attachment.opening.attachment)
                return attachment.steps.sent()
        return None

    def take_block(self) -> tuple[Attachment, PendingBlock] | None:
        """The next block to send; it counts as sent."""
        for attachment in self.attachments.values():
            if attachment.blocks.next_waiting(attachment.steps.acked_position) is not None:
                return attachment, attachment.blocks.sent()
        return None

    def has_block(self) -> bool:
        """Whether `take_block` would give one."""
        return any(
            attachment.blocks.next_waiting(attachment.steps.acked_position) is not None
            for attachment in self.attachments.values()
        )

    def admit(self, attachment: Attachment, size_bytes: int, *, wait: bool) -> bool:
        """Whether there is room for something of an attachment, which is then taken.

        Args:
            wait: Wait for room as long as anything is acknowledged; without it, or once the attachment is lost, never.

        Raises:
            MemoryUnavailable: Nothing was acknowledged for the stall timeout.
        """
        admitted = False

        def settled() -> bool:
            nonlocal admitted
            admitted = attachment.lost is None and self.outbox.admit(size_bytes)
            return admitted or attachment.lost is not None or not wait

        self.outbox.wait_until(settled, f"room for {size_bytes} bytes of session {attachment.opening.session!r}")
        return admitted

    def stats(self, attachment: Attachment) -> SessionStats:
        """Counts of an attachment as they are now."""
        return SessionStats(
            outbox_bytes=self.outbox.held_bytes,
            outbox_bytes_peak=self.outbox.peak_bytes,
            outbox_bytes_max=self.outbox.bytes_max,
            bookmarks=attachment.bookmarks,
            token_gaps=attachment.steps.gaps.ranges,
            block_gaps=attachment.blocks.gaps.ranges,
        )

    def lose(self, attachment: Attachment, why: MemoryFailure) -> None:
        """An attachment is over; its bytes are free again."""
        steps, blocks = attachment.lose(why)
        self.free_steps(steps)
        for block in blocks:
            self.free_block(block)
        self.changed.notify_all()

    def remove(self, attachment: Attachment) -> None:
        """An attachment was closed."""
        self.attachments.pop(attachment.opening.attachment, None)
        self.lose(attachment, MemoryUnavailable("expected an open session, got one that was closed"))

    def free_steps(self, steps: Iterable[PendingStep]) -> None:
        """These steps are done with."""
        for step in steps:
            self.outbox.release(step.size_bytes)

    def free_block(self, block: PendingBlock) -> None:
        """This block is done with."""
        self.outbox.release(block.size_bytes)
        if block.slot is not None and self.arena is not None:
            self.arena.puts.release(block.slot)
