"""Embeddings on their way to lattice vectors."""

import numpy as np
import pytest

from memsvc.lattice import centre_of, to_lattice
from memsvc.session.vectors import RECENT_TOKENS, TokenRows, Vectors


def _embeddings(count: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    return {name: generator.standard_normal((count, dims)).astype(np.float32) for name, dims in (("a", 5), ("b", 3))}


@pytest.mark.parametrize("sizes", [[40, 60], [1] * 100, [100]])
def test_the_centre_is_the_mean_of_the_first_tokens_however_they_come(sizes: list[int]) -> None:
    """Proves that the centre is that of the first `centring_tokens` rows though more are held, and applies to all."""
    rows, vectors, first = _embeddings(100), Vectors({"a": 5, "b": 3}, 70), 0
    for size in sizes:
        vectors.hold(first, {name: own[first : first + size] for name, own in rows.items()})
        first += size
    assert vectors.due
    centre = vectors.centre_of_held()
    fresh = vectors.freeze(centre)
    for name, own in rows.items():
        np.testing.assert_array_equal(centre[name], centre_of(own[:70]))
        np.testing.assert_array_equal(fresh.rows[name], to_lattice(own, centre_of(own[:70])))
    assert fresh.positions.tolist() == list(range(100))
    assert vectors.held == 0


def test_an_early_centre_takes_what_is_there() -> None:
    """Proves that fewer tokens than asked for give their own mean."""
    rows, vectors = _embeddings(10), Vectors({"a": 5, "b": 3}, 70)
    vectors.hold(4, rows)
    assert not vectors.due
    np.testing.assert_array_equal(vectors.centre_of_held()["a"], centre_of(rows["a"]))


def test_the_newest_tokens_stay_within_reach_of_late_decisions() -> None:
    """Proves that `remember` gives everything from RECENT_TOKENS before the fresh ones on."""
    rows, vectors = _embeddings(200), Vectors({"a": 5, "b": 3}, 1)
    vectors.hold(0, {name: own[:1] for name, own in rows.items()})
    vectors.remember(vectors.freeze(vectors.centre_of_held()))
    for first in range(1, 200, 20):
        known = vectors.remember(vectors.convert(first, {name: own[first : first + 20] for name, own in rows.items()}))
        end = min(first + 20, 200)
        assert known.positions.tolist() == list(range(max(0, first - RECENT_TOKENS), end))
    assert len(vectors.recent) == RECENT_TOKENS
    picked = known.at(np.array([150, 190]))
    np.testing.assert_array_equal(picked.rows["b"], to_lattice(rows["b"][[150, 190]], centre_of(rows["b"][:1])))


def test_rows_are_found_by_position_across_gaps() -> None:
    """Proves that rows are picked by position, and that a missing one is noticed."""
    rows = TokenRows(np.array([2, 3, 9]), {"a": np.array([[2], [3], [9]], dtype=np.int16)})
    assert rows.at(np.array([3, 9])).rows["a"].ravel().tolist() == [3, 9]
    assert rows.newest(1).positions.tolist() == [9]
    with pytest.raises(AssertionError):
        rows.at(np.array([4]))
