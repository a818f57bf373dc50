"""Metrics: similarities of lattice vectors are what each metric's definition says."""

import numpy as np
import pytest

from memsvc.errors import InvalidRequest
from memsvc.lattice import SCALE, SIMILARITY_UNIT, similarities, to_lattice
from memsvc.scoring import Scorer, make_scorer
from protos.memsvc.v1 import types_pb2 as wire

DIMS = 40
METRICS = {"cosine": wire.METRIC_COSINE, "dot": wire.METRIC_DOT, "pearson": wire.METRIC_PEARSON}
# Each component of either vector is rounded by at most half a step.
ROUNDING = 2 * 0.5 * np.sqrt(DIMS) / SCALE
each_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def _rows(count: int = 60) -> np.ndarray:
    random = np.random.default_rng(9)
    lengths = random.uniform(0.2, 3.0, (count, 1))
    return (random.standard_normal((count, DIMS)) * lengths + 5.0).astype(np.float32)


def _expected(metric: int, rows: np.ndarray) -> np.ndarray:
    offsets = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    if metric == wire.METRIC_PEARSON:
        return np.corrcoef(offsets)
    dots = offsets @ offsets.T
    norms = np.linalg.norm(offsets, axis=1)
    return dots / (norms.max() ** 2 if metric == wire.METRIC_DOT else np.outer(norms, norms))


def _lattice(scorer: Scorer, rows: np.ndarray) -> np.ndarray:
    return scorer.to_lattice(rows, scorer.freeze(rows))


@each_metric
def test_similarities_are_those_of_the_metric(metric: wire.Metric.ValueType) -> None:
    """Proves agreement with a plain float64 computation to within the lattice's rounding."""
    rows = _rows()
    lattice = _lattice(make_scorer(metric), rows)
    found = similarities(lattice, lattice) * SIMILARITY_UNIT
    assert np.abs(found - _expected(metric, rows)).max() <= ROUNDING * 1.01 + ROUNDING**2


@each_metric
def test_a_vector_depends_on_its_own_row_and_stays_within_the_lattice(metric: wire.Metric.ValueType) -> None:
    """Proves that batches cannot show, that squares stay below 2 ** 24, and what size is frozen."""
    rows, scorer = _rows(200), make_scorer(metric)
    frozen = scorer.freeze(rows[:50])
    assert frozen.shape == (scorer.frozen_size(DIMS),)
    whole = scorer.to_lattice(1e3 * rows, frozen)
    parts = np.concatenate([scorer.to_lattice(1e3 * part, frozen) for part in np.split(rows, [1, 70, 199])])
    np.testing.assert_array_equal(whole, parts)
    assert (whole.astype(np.int64) ** 2).sum(axis=1).max() <= 2**24


def test_dot_keeps_lengths_and_cosine_does_not() -> None:
    """Proves that half as long a vector is half as similar by dot, and as similar by cosine."""
    base = np.zeros((4, DIMS), dtype=np.float32)
    base[0, 0], base[1, 0], base[2, 0], base[3, 0] = 2.0, 1.0, -2.0, -1.0
    by_dot, by_cosine = (_lattice(make_scorer(own), base) for own in (wire.METRIC_DOT, wire.METRIC_COSINE))
    assert by_dot[:, 0].tolist() == [SCALE, 2048, -SCALE, -2048]
    assert by_cosine[:, 0].tolist() == [SCALE, SCALE, -SCALE, -SCALE]


def test_a_longer_vector_than_was_frozen_counts_as_that_long() -> None:
    """Proves that what comes later cannot leave the lattice, and that no length at all divides nothing by zero."""
    scorer = make_scorer(wire.METRIC_DOT)
    frozen = np.append(np.zeros(DIMS), 1.0)
    row = np.zeros((1, DIMS), dtype=np.float32)
    row[0, 3] = 7.0
    assert scorer.to_lattice(row, frozen)[0, 3] == SCALE
    alone = scorer.freeze(row)
    assert alone[-1] == 0
    assert not scorer.to_lattice(row, alone).any()
    assert scorer.to_lattice(-row, alone)[0, 3] == -SCALE


def test_cosine_is_the_metric_where_none_is_named() -> None:
    """Proves that specs from before there was a choice mean what they meant."""
    rows = _rows()
    scorer = make_scorer(wire.METRIC_UNSPECIFIED)
    np.testing.assert_array_equal(_lattice(scorer, rows), to_lattice(rows, scorer.freeze(rows)))


def test_an_unknown_metric_is_refused_by_name() -> None:
    """Proves that field, value and range are in the message."""
    with pytest.raises(InvalidRequest, match=r"expected search\.metric to be one of COSINE, DOT, PEARSON, got 9"):
        make_scorer(9)  # type: ignore[arg-type]
