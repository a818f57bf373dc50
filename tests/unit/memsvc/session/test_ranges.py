"""Sets of integers as ranges."""

import numpy as np

from memsvc.session.ranges import RangeSet, runs, to_wire


def test_ranges_that_overlap_or_touch_become_one() -> None:
    """Proves that what is kept is sorted, disjoint and never touching, whatever the order of adding."""
    generator = np.random.default_rng(4)
    for _ in range(200):
        ranges, values = RangeSet(), set()
        for start, length in generator.integers(0, 12, (6, 2)).tolist():
            ranges.add(start, start + length)
            values |= set(range(start, start + length))
        kept = list(ranges)
        assert {value for own in kept for value in own} == values
        assert kept == runs(np.array(sorted(values), dtype=np.int64))
        assert all(ranges.end_of_range_at(value) == own.stop for own in kept for value in own)
        assert all(ranges.end_of_range_at(value) is None for value in set(range(30)) - values)
        assert [value for own in ranges.before(9) for value in own] == sorted(v for v in values if v < 9)


def test_ranges_travel_as_first_and_count() -> None:
    """Proves that the wire form names the first value and how many there are."""
    assert [(own.first, own.count) for own in to_wire([range(3, 5), range(9, 10)])] == [(3, 2), (9, 1)]
