"""Token ids and gaps by position."""

import numpy as np

from memsvc.session.tokens import TokenTable


def _table() -> TokenTable:
    """Positions 0 to 9 with ids 100 and on, a gap to 15, 15 to 19 without ids, 20 to 24 with."""
    table = TokenTable()
    table.append(0, 4, np.arange(100, 104, dtype=np.uint32))
    table.append(4, 6, np.arange(104, 110, dtype=np.uint32))
    table.append(15, 5, np.empty(0, dtype=np.uint32))
    table.append(20, 5, np.arange(120, 125, dtype=np.uint32))
    return table


def test_a_range_is_read_without_what_has_no_ids() -> None:
    """Proves that for every range, ids come with their positions, and gaps and tokens without ids are left out."""
    table, known = _table(), {**{p: 100 + p for p in (*range(10), *range(20, 25))}}
    for first in range(27):
        for count in range(27):
            read = table.read(first, count)
            positions = [position for own in read.positions for position in own]
            assert positions == [position for position in range(first, first + count) if position in known]
            assert read.ids.tolist() == [known[position] for position in positions]


def test_gaps_and_counts_tell_dropped_from_received() -> None:
    """Proves that the position counts gaps and `received` does not."""
    table = _table()
    assert (table.position, table.received, list(table.gaps)) == (25, 20, [range(10, 15)])
