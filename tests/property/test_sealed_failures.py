"""A disk that refuses while bookmarks are sealed in the background costs no bookmark and moves none."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.errors import StorageFailed
from memsvc.lattice import to_lattice
from memsvc.shards.base import Int16Array, best, pack
from memsvc.shards.choice import SealedKind
from memsvc.shards.flat import FlatShard
from memsvc.shards.sealed import SealedPart

DIMS = 8


class _RefusedShard(FlatShard):
    """Takes bookmarks in and says, at some adds, that a file of theirs could not be written."""

    def __init__(self, failures: set[int]) -> None:
        super().__init__(DIMS)
        self._failures, self._adds = failures, 0

    def add(self, rows: Int16Array) -> None:
        """As in FlatShard. Raises StorageFailed; the bookmarks are added all the same."""
        super().add(rows)
        self._adds += 1
        if self._adds - 1 in self._failures:
            raise StorageFailed("expected room for a file, got none")


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    waits=st.sets(st.integers(0, 5)),
    failures=st.sets(st.integers(0, 5), max_size=2),
)
def test_a_failure_is_told_and_every_bookmark_keeps_its_number(
    sizes: list[int], waits: set[int], failures: set[int]
) -> None:
    """Proves that bookmarks handed over after ones whose file failed are found under their own numbers."""
    kind = SealedKind("refused", "shards", lambda dims, first, folder: _RefusedShard(failures))
    rows = to_lattice(np.random.default_rng(1).standard_normal((sum(sizes), DIMS)).astype(np.float32), np.zeros(DIMS))
    told = start = 0
    with tempfile.TemporaryDirectory() as folder:
        part = SealedPart(kind, DIMS, Path(folder))
        part.expect_searches()
        for at, size in enumerate(sizes):
            part.begin(rows[start : start + size])
            start += size
            if at in waits or at == len(sizes) - 1:
                told += _waited(part)
    assert told or not any(failure < len(sizes) for failure in failures)
    (keys,) = part.search(rows, 3)
    dots = rows.astype(np.int64) @ rows.astype(np.int64).T
    np.testing.assert_array_equal(keys, best(pack(dots, np.arange(len(rows))), 3))


def _waited(part: SealedPart) -> bool:
    """Whether a wait told of a failure; then another one lets what came be seen."""
    try:
        part.wait()
    except StorageFailed:
        part.wait()
        return True
    return False


def test_a_failure_reaches_whoever_waits() -> None:
    """Proves that a failure of the only bookmarks is raised by the next wait, once."""
    kind = SealedKind("refused", "shards", lambda dims, first, folder: _RefusedShard({0}))
    part = SealedPart(kind, DIMS, None)
    part.expect_searches()
    part.begin(np.ones((3, DIMS), dtype=np.int16))
    with pytest.raises(StorageFailed):
        part.wait()
    part.wait()
    assert part.count == 3
