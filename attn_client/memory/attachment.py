"""One attachment as the client's threads see it: what is on its way, what was answered, and what went wrong.

Invariants: an answer is kept only while somebody may still ask for it; once lost, nothing is on its way any more and
nothing is taken on. Callers hold the client's condition.
Must not know: gRPC, threads.
"""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from attn_client.errors import MemoryFailure
from attn_client.memory.outbox import BlockQueue, PendingBlock, PendingStep, StepQueue
from attn_client.memory.records import RecallAnswer
from attn_client.memory.wire import gap_step, ranges_of
from protos.memsvc.v1 import session_pb2, types_pb2

NOTES_MAX = 32
# Recalls of which it is known when they were asked for.
ASKED_MAX = 1024


@dataclass(frozen=True)
class Opening:
    """What an attachment was opened with, so that it can be opened again.

    Args:
        snapshot: What a view looks at; the newest tail if it is empty.
    """

    session: str
    mode: session_pb2.OpenMode.ValueType
    fingerprint: types_pb2.Fingerprint
    attachment: str
    snapshot: str = ""

    @property
    def read_only(self) -> bool:
        """Whether it is a view."""
        return self.mode == session_pb2.OPEN_MODE_VIEW


class Recalls:
    """Answers by our seq, from being asked for to being taken or given up.

    Attributes:
        late: A wait for an answer ran out, and none has come since that would have been in time for it.
    """

    def __init__(self) -> None:
        self._open: dict[int, RecallAnswer | None] = {}
        self._asked_at: dict[int, int] = {}
        self._refused: dict[int, str] = {}
        # When the newest were asked for, those that were given up included.
        self._asked_s: OrderedDict[int, float] = OrderedDict()
        self._patience_s = 0.0
        self.late = False

    def expect(self, seq: int, asked_at: int) -> None:
        """A step that asks, as of the token at that position, goes out."""
        self._open[seq] = None
        self._asked_at[seq] = asked_at
        self._asked_s[seq] = time.monotonic()
        if len(self._asked_s) > ASKED_MAX:
            self._asked_s.popitem(last=False)

    def ran_out(self, patience_s: float) -> None:
        """A wait of so many seconds was in vain."""
        self.late, self._patience_s = True, patience_s

    def answer(self, seq: int, answer: RecallAnswer) -> None:
        """An answer came; dropped if nobody waits for it any more, refused if it is to another question."""
        asked_s = self._asked_s.pop(seq, None)
        if asked_s is not None and time.monotonic() - asked_s <= self._patience_s:
            self.late = False
        if seq not in self._open:
            return
        if answer.asked_at != self._asked_at[seq]:
            self.refuse(seq, f"expected an answer as of {self._asked_at[seq]}, got one as of {answer.asked_at}")
        else:
            self._open[seq] = answer

    def refuse(self, seq: int, why: str) -> None:
        """The answer will not come."""
        if seq in self._open:
            self._refused[seq] = why

    @property
    def unanswered(self) -> list[int]:
        """What was asked and neither answered nor refused."""
        return [seq for seq, answer in self._open.items() if answer is None and seq not in self._refused]

    def settled(self, seq: int) -> bool:
        """Whether waiting longer changes nothing."""
        return self._open.get(seq) is not None or seq in self._refused or seq not in self._open

    def take(self, seq: int) -> RecallAnswer | None:
        """The answer if there is one; it is not kept, and one that comes later is dropped."""
        self._refused.pop(seq, None)
        self._asked_at.pop(seq, None)
        return self._open.pop(seq, None)


class Attachment:
    """State of one attachment. `lost` says why it is over, if it is."""

    def __init__(self, opening: Opening, opened: session_pb2.OpenSessionResponse) -> None:
        self.opening = opening
        self.epoch = opened.epoch
        self.opened_at = opened.position
        self.bookmarks = opened.session.bookmarks
        self.steps = StepQueue(opened.position)
        self.blocks = BlockQueue()
        self.recalls = Recalls()
        # Names of the signals that steps carry.
        self.signals: tuple[str, ...] = ()
        self.lost: MemoryFailure | None = None
        self._notes: deque[str] = deque(maxlen=NOTES_MAX)

    @property
    def idle(self) -> bool:
        """Everything handed over is acknowledged, and nothing that was dropped is undeclared."""
        return self.steps.idle and self.blocks.idle and not self.has_undeclared

    @property
    def stuck(self) -> bool:
        """Blocks wait for the server to pass tokens that were dropped, and no step is on its way to say so."""
        return self.has_undeclared and self.steps.idle and not self.blocks.idle and not self.blocks.in_flight

    @property
    def has_undeclared(self) -> bool:
        """Something was dropped that no step has declared yet."""
        return self.steps.has_undeclared or self.blocks.has_undeclared

    def note(self, what: str) -> None:
        """Remember something that went wrong; the newest ones are kept."""
        if what not in self._notes:
            self._notes.append(what)

    @property
    def degraded_reasons(self) -> tuple[str, ...]:
        """What went wrong, in words."""
        gaps = []
        for name, found in (("tokens", self.steps.gaps), ("blocks", self.blocks.gaps)):
            if found.total:
                first, count = found.ranges[0]
                more = f" and in {len(found.ranges) - 1} more ranges" if len(found.ranges) > 1 else ""
                gaps.append(f"{found.total} {name} are missing from memory: {first} to {first + count - 1}{more}")
        lost = (f"the session is lost: {self.lost}",) if self.lost is not None else ()
        return (*lost, *gaps, *self._notes)

    def add_step(self, step: PendingStep) -> int:
        """Queue a step, with what was dropped before it declared in it; its seq."""
        step.step.attachment, step.step.epoch = self.opening.attachment, self.epoch
        step.step.block_gaps.extend(ranges_of(self.blocks.take_undeclared()))
        seq = self.steps.add(step)
        if step.step.HasField("recall"):
            self.recalls.expect(seq, step.end_position - 1)
        return seq

    def declare_gaps(self) -> None:
        """Queue a step that only declares what was dropped."""
        self.add_step(gap_step(self.steps.position, self.opening.fingerprint, self.signals))

    def lose(self, why: MemoryFailure) -> tuple[list[PendingStep], list[PendingBlock]]:
        """It is over; what was on its way is given up and returned to be freed."""
        self.lost = self.lost or why
        return self.steps.clear(), self.blocks.clear()

    def resume(self, opened: session_pb2.OpenSessionResponse) -> tuple[list[PendingStep], str | None]:
        """A new connection opened it again: go on where the server is.

        Returns:
            Steps that turned out to be applied; why it cannot go on, or None.
        """
        if self.opening.read_only and not opened.applied_seq and opened.position != self.opened_at:
            return [], f"expected the view's session still at {self.opened_at}, got a newer tail at {opened.position}"
        applied, lost_tokens = self.steps.rewind(opened.applied_seq, opened.position)
        for seq in filter(self.steps.is_acked, self.recalls.unanswered):
            # An applied step is not sent again, and its answer was on the connection that broke.
            self.recalls.refuse(seq, "the connection broke before the answer came")
        if lost_tokens < 0:
            return applied, f"expected the server at position {opened.position + lost_tokens}, got {opened.position}"
        if lost_tokens and self.opening.read_only:
            self.note(f"the view was opened again: its last {lost_tokens} tokens do not count for what is recalled")
        elif lost_tokens:
            self.note(f"the server lost {lost_tokens} tokens that it had acknowledged")
        lost_blocks = 0 if self.opening.read_only else self.blocks.rewind(opened.stored_blocks)
        if lost_blocks:
            self.note(f"the server lost {lost_blocks} blocks that it had acknowledged")
        return applied, None
