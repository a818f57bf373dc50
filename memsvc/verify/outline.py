"""What a session's records say without its vectors: order, epochs, links, which blocks are where.

A replay checks far more, and stops at the first contradiction; this names every record that has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from memsvc.blocks import BlockRef
from memsvc.errors import CorruptLog
from memsvc.geometry import BLOCK_TOKENS
from memsvc.log_format import LogRecord
from memsvc.session.block_table import BlockTable
from memsvc.session.records import (
    Entry,
    Layout,
    RecordKind,
    unpack_block,
    unpack_forgotten,
    unpack_opened,
    unpack_step,
    unpack_tail,
)
from memsvc.session.recovery import live_records
from protos.memsvc.v1 import types_pb2


@dataclass
class Outline:
    """What records lead to.

    Attributes:
        epoch: Of the newest writer.
        position: Of the next token.
        tail_position: Of the newest tail.
        partial: The block that the newest tail ends in; None if it ends with a whole one.
        snapshots: Position and such a block of each cut that has a name, by name.
        stored_unix_ms: When blocks were put, as far as the log says.
        bookmarks: That entered the graph.
        problems: Sequences, and what is wrong with the record.
    """

    epoch: int = 0
    position: int = 0
    tail_position: int = 0
    partial: BlockRef | None = None
    snapshots: dict[str, tuple[int, BlockRef | None]] = field(default_factory=dict)
    stored_unix_ms: dict[int, int] = field(default_factory=dict)
    bookmarks: int = 0
    blocks: BlockTable = field(default_factory=BlockTable)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def refs(self) -> list[BlockRef]:
        """Every block that a reader can ask for."""
        cuts = [self.partial, *(partial for _, partial in self.snapshots.values())]
        return list(dict.fromkeys(ref for ref in (*self.blocks.refs(), *cuts) if ref is not None))


def outline_of(records: Sequence[LogRecord], spec: types_pb2.SessionSpec) -> Outline:
    """What the records of a session lead to; the first is its SESSION."""
    outline = Outline()
    layout = Layout.of(spec)
    _check_epochs(records, outline)
    for record in live_records(records)[1:]:
        try:
            _take(record, layout, outline)
        except CorruptLog as error:
            outline.problems.append((record.sequence, str(error)))
    return outline


def _check_epochs(records: Sequence[LogRecord], outline: Outline) -> None:
    """Each writer's epoch is above all before it, and its records bear it; those that a fork shares have none."""
    for record in records:
        if not record.epoch and not outline.epoch:
            continue
        if record.kind == RecordKind.OPENED:
            if record.epoch <= outline.epoch:
                message = f"expected a writer in an epoch above {outline.epoch}, got {record.epoch}"
                outline.problems.append((record.sequence, message))
            outline.epoch = max(outline.epoch, record.epoch)
        elif record.kind in (RecordKind.STEP, RecordKind.BLOCK, RecordKind.TAIL) and record.epoch != outline.epoch:
            message = f"expected a record of epoch {outline.epoch}, got {record.epoch}"
            outline.problems.append((record.sequence, message))


def _take(record: LogRecord, layout: Layout, outline: Outline) -> None:
    if record.kind == RecordKind.STEP:
        step = unpack_step(record.body, layout)
        expected = outline.position + step.step.gap_tokens
        if step.step.first_position != expected:
            raise CorruptLog(f"expected position {expected}, got {step.step.first_position}")
        outline.position = step.step.end
        for gap in step.step.block_gaps:
            outline.blocks.declare_gap(gap.start, gap.stop)
        _check_links(step.entry, outline)
    elif record.kind == RecordKind.BLOCK:
        _take_block(record, outline)
    elif record.kind == RecordKind.TAIL:
        tail = unpack_tail(record.body, layout)
        if tail.tail.position != outline.position:
            raise CorruptLog(f"expected a tail at position {outline.position}, got {tail.tail.position}")
        block, filled = divmod(tail.tail.position, BLOCK_TOKENS)
        outline.partial = outline.blocks.get(block) if filled else None
        outline.tail_position = tail.tail.position
        _check_links(tail.entry, outline)
    elif record.kind == RecordKind.OPENED:
        opened = unpack_opened(record.body)
        if opened.position != outline.position:
            raise CorruptLog(f"expected a writer at position {outline.position}, got {opened.position}")
        outline.blocks.cut(outline.position)
    elif record.kind == RecordKind.FORGOTTEN:
        for blocks in unpack_forgotten(record.body).blocks:
            outline.blocks.forget(blocks.start, blocks.stop)
            if outline.partial is not None and outline.partial.block in blocks:
                outline.partial = None
    elif record.kind == RecordKind.SNAPSHOT:
        outline.snapshots[str(record.body.get("name"))] = (outline.tail_position, outline.partial)
    elif record.kind == RecordKind.SNAPSHOT_DROPPED:
        outline.snapshots.pop(str(record.body.get("name")), None)


def _take_block(record: LogRecord, outline: Outline) -> None:
    ref = unpack_block(record.body)
    known = outline.blocks.get(ref.block)
    if known is not None and not known.partial_tokens:
        raise CorruptLog(f"expected block {ref.block} once, got it again")
    outline.blocks.add(ref)
    if isinstance(stored := record.body.get("unix_ms"), int):
        outline.stored_unix_ms[ref.block] = stored


def _check_links(entry: Entry, outline: Outline) -> None:
    """Parents are earlier bookmarks, each once, the strongest first; so no link leads in a circle."""
    first, parents, weights = outline.bookmarks, entry.parents, entry.weights
    outline.bookmarks += len(parents)
    own = np.arange(first, first + len(parents))[:, None]
    there = parents >= 0
    checks = (
        ("parents that are earlier bookmarks", (parents < -1) | (parents >= own)),
        ("parents without holes", there[:, 1:] & ~there[:, :-1]),
        ("finite weights", there & ~np.isfinite(weights)),
        ("weights that descend", there[:, 1:] & (weights[:, 1:] > weights[:, :-1])),
    )
    for expected, wrong in checks:
        if wrong.any():
            row = int(np.flatnonzero(wrong.any(axis=1))[0])
            raise CorruptLog(f"expected {expected} of bookmark {first + row}, got {parents[row].tolist()}")
    for row, own_parents in enumerate(parents.tolist()):
        known = [parent for parent in own_parents if parent >= 0]
        if len(set(known)) != len(known):
            raise CorruptLog(f"expected each parent of bookmark {first + row} once, got {known}")
