"""Which blocks are stored and which were dropped."""

from memsvc.blocks import BlockRef
from memsvc.session.block_table import BlockTable


def _ref(block: int, partial_tokens: int = 0, offset: int = 0) -> BlockRef:
    return BlockRef(block, partial_tokens, 1, offset, 10, 99)


def test_whole_blocks_come_in_order_whatever_the_order_of_puts() -> None:
    """Proves that candidates ascend, and that an earlier answer stays as it was."""
    table = BlockTable()
    for block in (0, 2, 5):
        table.add(_ref(block))
    earlier = table.whole(0, 10)
    for block in (1, 7, 3):
        table.add(_ref(block))
    assert table.whole(1, 6).tolist() == [1, 2, 3, 5]
    assert earlier.tolist() == [0, 2, 5]
    assert len(table) == 6


def test_through_passes_stored_blocks_and_gaps() -> None:
    """Proves that `through` is the first block that is neither stored whole nor given up."""
    table = BlockTable()
    table.add(_ref(1))
    assert table.through == 0
    table.add(_ref(0, partial_tokens=5))
    assert table.through == 0
    table.add(_ref(0))
    assert table.through == 2
    table.declare_gap(2, 6)
    assert table.through == 6


def test_a_gap_never_covers_a_stored_block() -> None:
    """Proves that a declared range is noted around what is stored in it."""
    table = BlockTable()
    table.add(_ref(3))
    table.declare_gap(1, 6)
    assert list(table.gaps) == [range(1, 3), range(4, 6)]


def test_a_whole_block_takes_the_place_of_its_part() -> None:
    """Proves that the newest reference of a block is given, the whole one for good."""
    table = BlockTable()
    table.add(_ref(4, partial_tokens=3, offset=1))
    table.add(_ref(4, partial_tokens=9, offset=2))
    known = table.get(4)
    assert known is not None
    assert (known.partial_tokens, known.offset) == (9, 2)
    assert table.whole(0, 9).tolist() == []
    table.add(_ref(4, offset=3))
    assert table.get(4) == _ref(4, offset=3)
    assert table.get(5) is None


def test_a_cut_forgets_what_lies_past_it() -> None:
    """Proves that blocks, parts and gaps at the position or later are gone, and the tail's own part stays."""
    table = BlockTable()
    for block in (0, 1, 2, 3):
        table.add(_ref(block))
    table.add(_ref(4, partial_tokens=10))
    table.add(_ref(6, partial_tokens=10))
    table.declare_gap(5, 9)
    table.cut(64 * 4 + 10)
    assert (table.whole(0, 99).tolist(), table.get(4), table.get(6)) == ([0, 1, 2, 3], _ref(4, 10), None)
    assert list(table.gaps) == []
    table.cut(64 * 2)
    assert (table.whole(0, 99).tolist(), table.get(2), table.get(4), table.through) == ([0, 1], None, None, 2)
