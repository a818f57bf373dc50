"""From a session's log back to what it knew.

    SESSION OPENED STEP BLOCK STEP TAIL STEP BLOCK STEP OPENED STEP ...
                                        ^^^^^^^^^^^^^^^ void: written after the newest tail before another writer opened

What gives a cut or the session a name is never void, nor is that blocks left (`LASTING`).

Invariants:
    Replaying the live records gives the state that wrote them, bit for bit.
    A record that contradicts those before it is a CorruptLog: nothing is guessed.

Steps in a row are replayed as one (`memsvc.session.joined_steps`); blocks among them do not look at steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memsvc.errors import CorruptLog
from memsvc.log_format import LogRecord
from memsvc.session.joined_steps import JoinedSteps
from memsvc.session.lineage import Lineage
from memsvc.session.records import (
    LASTING,
    Layout,
    OpenedRecord,
    RecordKind,
    unpack_block,
    unpack_forgotten,
    unpack_opened,
    unpack_step,
    unpack_tail,
)
from memsvc.session.state import SessionState
from memsvc.session.steps import TokenStep
from memsvc.shards.base import Int64Array
from protos.memsvc.v1 import types_pb2


@dataclass(frozen=True)
class Recovered:
    """What a log says.

    Args:
        writer: The newest to open; None if none did.
        epoch: Its epoch, 0 if none did.
        applied_seq: Of its newest step that was applied.
    """

    state: SessionState
    lineage: Lineage
    writer: OpenedRecord | None = None
    epoch: int = 0
    applied_seq: int = 0


def recover(records: Sequence[LogRecord], spec: types_pb2.SessionSpec, shards: Path) -> Recovered:
    """The state that these records lead to, and who wrote last.

    Raises:
        CorruptLog: The log is of another spec, or records contradict each other.
    """
    if not records or records[0].kind != RecordKind.SESSION:
        raise CorruptLog(
            f"expected a log that begins with its session, got {records[0].kind if records else 'nothing'}"
        )
    # Bytes, not text: what was stored is what the manifest must hold.
    if types_pb2.SessionSpec.FromString(records[0].body.get("spec", b"")) != spec:
        raise CorruptLog("expected the spec that the manifest holds, got another one in the log's first record")
    replay = _Replay(SessionState(spec, shards), Lineage(records[0].body), Layout.of(spec))
    for record in live_records(records)[1:]:
        replay.take(record)
    replay.settle()
    replay.state.prepare()
    return Recovered(replay.state, replay.lineage, replay.writer, replay.epoch, replay.applied_seq)


def live_records(records: Sequence[LogRecord]) -> list[LogRecord]:
    """The records that count: without what a lost writer wrote after the newest tail before another writer opened."""
    live: list[LogRecord] = []
    # Records up to and including the newest tail, or the SESSION.
    tail_end = 1
    for record in records:
        if record.kind == RecordKind.OPENED:
            live[tail_end:] = _lasting(live[tail_end:])
        live.append(record)
        if record.kind == RecordKind.TAIL:
            tail_end = len(live)
    return live


def up_to_tail(records: Sequence[LogRecord]) -> list[LogRecord]:
    """The records that count once another writer opens."""
    live = live_records(records)
    tails = [at for at, record in enumerate(live) if record.kind == RecordKind.TAIL]
    end = tails[-1] + 1 if tails else 1
    return live[:end] + _lasting(live[end:])


def _ascend(positions: Int64Array, step: TokenStep) -> bool:
    """Whether these are positions of the step's tokens, each above the one before."""
    if len(positions) == 0:
        return True
    within = positions[0] >= step.first_position and positions[-1] < step.end
    return bool(within and (positions[1:] > positions[:-1]).all())


def _lasting(records: Sequence[LogRecord]) -> list[LogRecord]:
    return [record for record in records if record.kind in LASTING]


class _Replay:
    def __init__(self, state: SessionState, lineage: Lineage, layout: Layout) -> None:
        self.state = state
        self.lineage = lineage
        self.writer: OpenedRecord | None = None
        self.epoch = 0
        self.applied_seq = 0
        self._layout = layout
        self._steps = JoinedSteps()
        # Of the newest step that waits to be replayed.
        self._sequence = 0

    def take(self, record: LogRecord) -> None:
        if record.kind == RecordKind.STEP:
            self._step(record)
            return
        if record.kind == RecordKind.BLOCK:
            self.state.add_block(unpack_block(record.body))
            return
        self.settle()
        if record.kind == RecordKind.TAIL:
            self.state.replay_tail(unpack_tail(record.body, self._layout))
        elif record.kind == RecordKind.OPENED:
            self._opened(record)
        elif record.kind == RecordKind.FORGOTTEN:
            self._forget(record)
        elif record.kind in LASTING:
            self.lineage.take(record, self.state.cut)
        else:
            raise CorruptLog(f"expected a known kind of record, got {record.kind} in record {record.sequence}")

    def settle(self) -> None:
        """Replays the steps that wait."""
        if not self._steps:
            return
        try:
            self.state.replay_step(self._steps.take())
        except CorruptLog as error:
            raise CorruptLog(f"{error}, up to record {self._sequence}") from error

    def _step(self, record: LogRecord) -> None:
        own = unpack_step(record.body, self._layout)
        position = self._steps.end if self._steps else self.state.tokens.position
        if own.step.first_position != position + own.step.gap_tokens:
            expected = position + own.step.gap_tokens
            got = own.step.first_position
            raise CorruptLog(f"expected position {expected}, got {got} in record {record.sequence}")
        if own.kept is not None and not _ascend(own.kept.positions, own.step):
            got = own.kept.positions[:8].tolist()
            raise CorruptLog(f"expected vectors of the step's tokens, got those of {got} in record {record.sequence}")
        if not self._steps.fits(own):
            self.settle()
        self._sequence = record.sequence
        self.applied_seq = own.seq
        if self._steps.fits(own):
            self._steps.add(own)
        else:
            self.state.replay_step(own)

    def _forget(self, record: LogRecord) -> None:
        state, partial = self.state, self.state.cut.partial
        for blocks in unpack_forgotten(record.body).blocks:
            state.blocks.forget(blocks.start, blocks.stop)
            if partial is not None and partial.block in blocks:
                state.cut = replace(state.cut, partial=None)

    def _opened(self, record: LogRecord) -> None:
        self.writer, self.epoch, self.applied_seq = unpack_opened(record.body), record.epoch, 0
        position = self.state.tokens.position
        if self.writer.position != position:
            got = self.writer.position
            raise CorruptLog(f"expected a writer at position {position}, got {got} in record {record.sequence}")
        self.state.blocks.cut(position)
