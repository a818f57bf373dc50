"""Which blocks are too old or too many."""

from memsvc.blocks import BlockRef
from memsvc.retention.policy import forgettable, position_past_bytes, position_put_before
from protos.memsvc.v1 import types_pb2

REFS = [BlockRef(block, 0, 1, 40 + 100 * block, 72, 0) for block in range(10)]
MARK = types_pb2.Fingerprint(sink_tokens=64, window_tokens=128)


def _blocks(refs: list[BlockRef]) -> list[int]:
    return [ref.block for ref in refs]


def test_sinks_and_the_window_of_the_tail_stay() -> None:
    """Proves that whatever position is asked for, only what lies between sinks and the tail's window may leave."""
    assert _blocks(forgettable(REFS, [640], MARK, 10_000)) == [1, 2, 3, 4, 5, 6, 7]
    assert _blocks(forgettable(REFS, [640], MARK, 4 * 64)) == [1, 2, 3]
    assert _blocks(forgettable(REFS, [640], MARK, 4 * 64 - 1)) == [1, 2]
    assert forgettable(REFS, [640], MARK, 0) == []


def test_the_earliest_cut_decides() -> None:
    """Proves that a snapshot keeps its window, and that a session without a tail keeps everything."""
    assert _blocks(forgettable(REFS, [640, 300], MARK, 10_000)) == [1]
    assert forgettable(REFS, [0], MARK, 10_000) == []


def test_the_newest_bytes_stay() -> None:
    """Proves that the oldest blocks leave, as many as are past the limit and no more."""
    assert position_past_bytes(REFS, 72 * 10) == 0
    assert position_past_bytes(REFS, 72 * 10 - 1) == 64
    assert position_past_bytes(REFS, 72 * 3) == 7 * 64
    assert position_past_bytes(REFS, 0) == 640
    assert position_past_bytes([], 0) == 0


def test_age_goes_by_the_first_block_that_is_young() -> None:
    """Proves that nothing leaves past a young block, and that a block of unknown age goes with the next ones."""
    times = {block: 100 * block for block in range(10)}
    assert position_put_before(REFS, times, 350) == 4 * 64
    assert position_put_before(REFS, times, 0) == 0
    assert position_put_before(REFS, {3: 300, 9: 900}, 350) == 4 * 64
    assert position_put_before(REFS, {}, 1_000_000) == 0
