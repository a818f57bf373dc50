"""The benchmark of finders: its data is a function of the seed, and its rows are what they claim."""

import numpy as np
import pytest

from benchmarks import bench_finders


def test_the_text_is_a_function_of_its_seed() -> None:
    """Proves that a seed gives the same bookmarks, queries and true blocks again, and another seed others."""
    one, again, other = (bench_finders.make_text(300, 4, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.rows, again.rows)
    assert np.array_equal(one.queries, again.queries)
    assert one.best == again.best
    assert not np.array_equal(one.rows, other.rows)


def test_finders_that_are_exact_agree_fully(capsys: pytest.CaptureFixture[str]) -> None:
    """Proves on a small text that flat and every dictionary without a budget find all of the true blocks, and that a
    budget is kept."""
    rows = {row.name: row for row in bench_finders.measure_all(bench_finders.make_text(1200, 4, 0))}
    exact = [name for name in rows if name == "flat" or (name.startswith("dictionary") and "n/10" not in name)]
    assert len(exact) == 11
    # 128 candidates hold 16 distinct blocks of 10 bookmarks unless they crowd into few: then some are missing for all.
    assert {rows[name].agreement for name in exact} == {rows["flat"].agreement}
    assert rows["flat"].agreement >= 0.95
    assert all(row.visited <= 120 + 8 * 16 for name, row in rows.items() if "n/10" in name and "chain" not in name)
