"""Bodies of log records."""

import msgpack
import numpy as np
import pytest

from memsvc.blocks import BlockRef
from memsvc.errors import CorruptLog
from memsvc.session import records
from memsvc.session.records import Decided, Entry, Layout, OpenedRecord, StepRecord, TailRecord
from memsvc.session.steps import decode_step
from memsvc.session.vectors import TokenRows
from protos.memsvc.v1 import session_pb2
from tests.session_driver import LIMITS, Text, session_spec

SPEC = session_spec()
LAYOUT = Layout.of(SPEC)


def _entry(bookmarks: int, centred: bool) -> Entry:
    parents = np.arange(bookmarks * LAYOUT.links_max).reshape(bookmarks, LAYOUT.links_max)
    centre = {name: np.linspace(0, 1, dims) for name, dims in LAYOUT.dims.items()} if centred else None
    return Entry(parents, (parents / 7).astype(np.float32), centre)


def _step(kept: bool, centred: bool) -> StepRecord:
    message = Text(20).step(3, 9)
    message.block_gaps.add(first=1, count=2)
    decided = Decided(np.array([4, 8]), np.array([0.5, 0.25], dtype=np.float32), np.array([True, False]))
    rows = {name: np.arange(2 * dims, dtype=np.int16).reshape(2, dims) for name, dims in LAYOUT.dims.items()}
    step = decode_step(message, SPEC, (), LIMITS)
    return StepRecord("one", 5, step, decided, TokenRows(np.array([4, 8]), rows) if kept else None, _entry(2, centred))


def _through_msgpack(body: records.Body) -> records.Body:
    return msgpack.unpackb(msgpack.packb(dict(body)), strict_map_key=False)


@pytest.mark.parametrize(("kept", "centred"), [(True, False), (False, True), (False, False)])
def test_a_step_comes_back_as_it_was_logged(kept: bool, centred: bool) -> None:
    """Proves that packing loses nothing, before, at and after centring."""
    record = _step(kept, centred)
    back = records.unpack_step(_through_msgpack(records.pack_step(record)), LAYOUT)
    assert records.pack_step(back) == records.pack_step(record)
    assert (back.seq, back.step.first_position, back.step.block_gaps) == (5, 3, (range(1, 3),))
    assert back.decided.equals(record.decided)
    assert (back.kept is None) == (not kept)
    np.testing.assert_array_equal(back.entry.parents, record.entry.parents)
    if not kept:
        np.testing.assert_array_equal(back.step.embeddings["s0"], record.step.embeddings["s0"])


def test_other_records_come_back_as_they_were_logged() -> None:
    """Proves the same of openings, blocks and tails."""
    opened, ref = OpenedRecord("one", "w", 77), BlockRef(3, 1, 2, 1 << 40, 5, 0xFFFFFFFF)
    tail = TailRecord(session_pb2.Tail(version=1, position=9), _entry(0, False))
    assert records.unpack_opened(_through_msgpack(records.pack_opened(opened))) == opened
    assert records.unpack_block(_through_msgpack(records.pack_block(ref))) == ref
    assert records.unpack_tail(_through_msgpack(records.pack_tail(tail)), LAYOUT).tail == tail.tail


@pytest.mark.parametrize("key", [*records.pack_step(_step(True, False))])
def test_a_step_without_one_of_its_keys_is_corrupt(key: str) -> None:
    """Proves that a record of another format is refused and not guessed at."""
    body = dict(records.pack_step(_step(True, False)))
    del body[key]
    with pytest.raises(CorruptLog, match="STEP"):
        records.unpack_step(body, LAYOUT)


@pytest.mark.parametrize("change", [{"parents": b"123"}, {"seq": None}, {"raw": {"s0": b"\xff"}}, {"rows": {}}])
def test_a_step_with_a_key_of_another_size_or_type_is_corrupt(change: dict[str, object]) -> None:
    """Proves the same of values that cannot be what they should be."""
    with pytest.raises(CorruptLog, match="STEP"):
        records.unpack_step({**records.pack_step(_step(True, False)), **change}, LAYOUT)
