"""What was handed over and is not acknowledged yet: steps and blocks of each attachment, bounded in bytes over all.

    waiting --send--> sent --ack--> gone
       ^                |
       `----rewind------'    a connection broke: what the server did not apply goes out again, in the same order

Invariants: steps leave in order and are acknowledged in order; a block leaves once the steps that cover it are
acknowledged, because the server refuses blocks beyond its position; what is dropped is counted and declared to the
server as a gap, once.
Must not know: gRPC. Nothing here locks: callers hold the client's condition, which `Outbox` waits on.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Condition

import numpy as np
import numpy.typing as npt

from attn_client.errors import MemoryUnavailable
from attn_client.memory.arena import Slot
from protos.memsvc.v1 import memory_pb2, types_pb2


class Outbox:
    """Bytes in use over all sessions of a client, and waiting for them to become free."""

    def __init__(self, changed: Condition, bytes_max: int, stall_timeout_s: float) -> None:
        self._changed = changed
        self.stall_timeout_s = stall_timeout_s
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self.peak_bytes = 0
        self._releases = 0

    def admit(self, size_bytes: int) -> bool:
        """Take so many bytes if there is room. Something larger than the whole outbox has room when it is empty."""
        if self.held_bytes and self.held_bytes + size_bytes > self.bytes_max:
            return False
        self.held_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        return True

    def release(self, size_bytes: int) -> None:
        """Give bytes back."""
        self.held_bytes -= size_bytes
        self._releases += 1
        self._changed.notify_all()

    def wait_until(self, holds: Callable[[], bool], what: str, stall_s: float | None = None) -> None:
        """Wait until something holds, for as long as anything at all is acknowledged meanwhile.

        Args:
            stall_s: Longest without any acknowledgement; the stall timeout if None.

        Raises:
            MemoryUnavailable: Nothing was acknowledged for so long.
        """
        stall_s = self.stall_timeout_s if stall_s is None else stall_s
        releases, deadline = self._releases, time.monotonic() + stall_s
        while not holds():
            if releases != self._releases:
                releases, deadline = self._releases, time.monotonic() + stall_s
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise MemoryUnavailable(
                    f"expected {what}, got no acknowledgement for {stall_s} s "
                    f"({self.held_bytes} of {self.bytes_max} bytes in the outbox)"
                )
            self._changed.wait(remaining)


class Gaps:
    """Ascending numbers kept as ranges: tokens or blocks that were dropped."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def add(self, first: int, count: int) -> None:
        """Note `count` numbers from `first` on."""
        if self._ranges and sum(self._ranges[-1]) == first:
            first, count = self._ranges[-1][0], self._ranges.pop()[1] + count
        self._ranges.append((first, count))

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(first, count) of each range, in order of noting."""
        return tuple(self._ranges)

    @property
    def total(self) -> int:
        """How many numbers."""
        return sum(count for _, count in self._ranges)


@dataclass(slots=True, eq=False)
class PendingStep:
    """A step on its way. `seq` counts this client's steps from 1; the wire's may differ after a view was reopened."""

    request: memory_pb2.AttachRequest
    tokens: int
    end_position: int
    size_bytes: int
    seq: int = 0

    @property
    def step(self) -> memory_pb2.Step:
        """The step inside the request."""
        return self.request.steps.steps[0]


class StepQueue:
    """Steps of one attachment."""

    def __init__(self, position: int) -> None:
        self._waiting: deque[PendingStep] = deque()
        self._sent: deque[PendingStep] = deque()
        self._appended_seq = 0
        self._acked_seq = 0
        # Our seq minus the wire's.
        self._shift = 0
        self.acked_position = position
        self.position = position
        self._undeclared_tokens = 0
        self.gaps = Gaps()

    @property
    def in_flight_tokens(self) -> int:
        """Tokens sent and not acknowledged."""
        return sum(step.tokens for step in self._sent)

    @property
    def idle(self) -> bool:
        """Everything handed over is acknowledged."""
        return not self._waiting and not self._sent

    @property
    def has_undeclared(self) -> bool:
        """Tokens were dropped that no step has declared yet."""
        return self._undeclared_tokens > 0

    def add(self, step: PendingStep) -> int:
        """Queue a step behind the others; its seq. It declares what was dropped since the last one."""
        self._appended_seq += 1
        step.seq = self._appended_seq
        step.step.gap_tokens, self._undeclared_tokens = self._undeclared_tokens, 0
        self._waiting.append(step)
        self.position = step.end_position
        return step.seq

    def drop(self, tokens: int) -> None:
        """The next `tokens` tokens will not be sent."""
        self.gaps.add(self.position, tokens)
        self.position += tokens
        self._undeclared_tokens += tokens

    def next_waiting(self) -> PendingStep | None:
        """The step to send next, if any."""
        return self._waiting[0] if self._waiting else None

    def sent(self) -> PendingStep:
        """The next waiting step goes out now, under the wire's seq."""
        step = self._waiting.popleft()
        step.step.seq = step.seq - self._shift
        self._sent.append(step)
        return step

    def ours(self, wire_seq: int) -> int:
        """Our seq of a wire seq."""
        return wire_seq + self._shift

    def is_acked(self, seq: int) -> bool:
        """Whether a step of ours is acknowledged."""
        return seq <= self._acked_seq

    def ack(self, wire_seq: int) -> Iterator[PendingStep]:
        """Everything sent up to a wire seq is applied; yields what is done with."""
        while self._sent and self._sent[0].seq <= self.ours(wire_seq):
            step = self._sent.popleft()
            self._acked_seq, self.acked_position = step.seq, step.end_position
            yield step

    def rewind(self, applied_wire_seq: int, position: int) -> tuple[list[PendingStep], int]:
        """A new connection: the server has applied this much. Queue the rest again.

        Returns:
            Steps that are done with; tokens that had been acknowledged and that the server lost all the same. Those are
            declared as a gap from here on. Negative: the server is ahead of us, and the attachment is of no use.
        """
        done = list(self.ack(applied_wire_seq))
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._shift = self._acked_seq - applied_wire_seq
        lost = self.acked_position - position
        if lost > 0:
            self.gaps.add(position, lost)
            if self._waiting:
                self._waiting[0].step.gap_tokens += lost
            else:
                self._undeclared_tokens += lost
            self.acked_position = position
        return done, lost

    def clear(self) -> list[PendingStep]:
        """Give up what is not acknowledged, and return it."""
        given_up = [*self._sent, *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        return given_up


@dataclass(slots=True, eq=False)
class PendingBlock:
    """A block on its way: in an arena slot, or in bytes of its own."""

    block: int
    partial_tokens: int
    end_position: int
    crc32c: int
    data: npt.NDArray[np.uint8]
    slot: Slot | None
    refusals: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes it holds of the outbox."""
        return self.data.nbytes


class BlockQueue:
    """Blocks of one attachment."""

    def __init__(self) -> None:
        self._waiting: deque[PendingBlock] = deque()
        self._sent: dict[tuple[int, int], PendingBlock] = {}
        self._stored: set[int] = set()
        self._undeclared: set[int] = set()
        self.gaps = Gaps()

    @property
    def idle(self) -> bool:
        """Everything handed over is acknowledged."""
        return not self._waiting and not self._sent

    @property
    def in_flight(self) -> bool:
        """Some were sent and not answered."""
        return bool(self._sent)

    @property
    def has_undeclared(self) -> bool:
        """Blocks were dropped that no step has declared yet."""
        return bool(self._undeclared)

    def add(self, block: PendingBlock) -> None:
        """Queue a block."""
        self._waiting.append(block)

    def drop(self, block: int) -> None:
        """The block will not be stored."""
        self._undeclared.add(block)
        self.gaps.add(block, 1)

    def take_undeclared(self) -> list[int]:
        """Blocks to declare as gaps in the step being made, ascending."""
        undeclared = sorted(self._undeclared)
        self._undeclared.clear()
        return undeclared

    def next_waiting(self, acked_position: int) -> PendingBlock | None:
        """The block to send next, if the server's position has passed it."""
        if self._waiting and self._waiting[0].end_position <= acked_position:
            return self._waiting[0]
        return None

    def sent(self) -> PendingBlock:
        """The next waiting block goes out now."""
        block = self._waiting.popleft()
        self._sent[block.block, block.partial_tokens] = block
        return block

    def answered(self, block: int, partial_tokens: int) -> PendingBlock | None:
        """The server answered for a block; None if we no longer wait for it."""
        return self._sent.pop((block, partial_tokens), None)

    def stored(self, block: PendingBlock) -> None:
        """An answered block is stored."""
        if not block.partial_tokens:
            self._stored.add(block.block)

    def again(self, block: PendingBlock) -> None:
        """An answered block must be sent once more."""
        self._waiting.appendleft(block)

    def resend(self) -> None:
        """The connection of the blocks that were sent is gone: queue them again."""
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()

    def rewind(self, stored: Iterable[types_pb2.Range]) -> int:
        """A new connection: the server holds these blocks. Those it lost become gaps; how many."""
        self.resend()
        held = [range(one.first, one.first + one.count) for one in stored]
        lost = [block for block in sorted(self._stored) if not any(block in one for one in held)]
        for block in lost:
            self.drop(block)
        self._stored.difference_update(lost)
        return len(lost)

    def clear(self) -> list[PendingBlock]:
        """Give up what is not acknowledged, and return it."""
        given_up = [*self._sent.values(), *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        return given_up
