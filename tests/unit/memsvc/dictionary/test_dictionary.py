"""Where checkpoints stand, and that settings out of range are refused by name."""

import numpy as np
import pytest

from memsvc.dictionary.bounds import make_bounds
from memsvc.dictionary.dictionary import Dictionary
from memsvc.dictionary.settings import DictionarySettings, FindSettings
from memsvc.errors import InvalidRequest
from memsvc.lattice import to_lattice

DIMS = 16


def _topics(lengths: list[int]) -> np.ndarray:
    """Runs of near-equal vectors, each run along its own axis."""
    generator = np.random.default_rng(2)
    rows = np.concatenate([np.tile(np.eye(DIMS)[at % DIMS], (length, 1)) for at, length in enumerate(lengths)])
    return to_lattice((rows + 0.01 * generator.standard_normal(rows.shape)).astype(np.float32), np.zeros(DIMS))


def _starts(settings: DictionarySettings, rows: np.ndarray) -> list[int]:
    dictionary = Dictionary(DIMS, settings, make_bounds("ball", DIMS))
    dictionary.extend(rows, np.zeros(len(rows), dtype=np.int64))
    return [dictionary.levels.checkpoint(node) for node in dictionary.levels.level_nodes(0, 0)]


def test_checkpoints_stand_at_counts_and_at_shifts_of_topic() -> None:
    """Proves by hand: every 4, at the first bookmark of a new topic, and both, where a shift begins the count anew."""
    rows = _topics([5, 6, 3])
    assert _starts(DictionarySettings(every=4), rows) == [0, 4, 8, 12]
    assert _starts(DictionarySettings(every=0, boundary=0.5), rows) == [0, 5, 11]
    assert _starts(DictionarySettings(every=4, boundary=0.5), rows) == [0, 4, 5, 9, 11]


def test_a_zero_vector_is_no_error() -> None:
    """Proves that what resembles nothing begins a segment, and that the next one does too."""
    rows = _topics([3, 3])
    rows[2] = 0
    assert _starts(DictionarySettings(every=0, boundary=0.5), rows) == [0, 2, 3]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: DictionarySettings(every=-1), "dictionary.every"),
        (lambda: DictionarySettings(every=0), "dictionary.every"),
        (lambda: DictionarySettings(boundary=1.5), "dictionary.boundary"),
        (lambda: DictionarySettings(boundary=float("nan")), "dictionary.boundary"),
        (lambda: DictionarySettings(skip=1), "dictionary.skip"),
        (lambda: FindSettings(relevant=2.0), "find.relevant"),
        (lambda: FindSettings(relevant=0.5, sure=0.4), "find.sure"),
        (lambda: FindSettings(sure=float("inf")), "find.sure"),
        (lambda: FindSettings(walk_links=-1), "find.walk_links"),
        (lambda: FindSettings(checkpoints=0), "find.checkpoints"),
        (lambda: FindSettings(parents=2000), "find.parents"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(make: object, named: str) -> None:
    """Proves that the error names the field."""
    with pytest.raises(InvalidRequest, match=rf"^expected {named} to be .*, got "):
        make()  # type: ignore[operator]
