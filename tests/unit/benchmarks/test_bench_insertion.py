"""The benchmark of insertion: what it feeds and how it counts."""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_insertion import (
    DIMS,
    STEP_TOKENS,
    insert,
    insertion_of,
    real_rows,
    rows_of,
    sealed_of,
    spec_of,
    steps_of,
)

CHOSEN = argparse.Namespace(
    policies=["hybrid"], finders=["flat"], tokens=8192, coverage=0.15, vectors=None, seed=0, grpc=False
)


def test_a_run_feeds_a_session_and_counts_what_it_made() -> None:
    """Proves on a small run that tokens, share and log come from the session, and that the rows name it."""
    run = insert(spec_of("hybrid", "flat", 0.15), steps_of(CHOSEN), CHOSEN.tokens)
    assert (run.policy, run.finder, run.tokens) == ("hybrid", "flat", 8192)
    assert 0.05 < run.share_bookmarked < 0.3
    assert run.tokens_per_s > 0
    # Ids and three signals of 4 bytes, at least.
    assert run.log_bytes_a_token > 16
    rate, stall = rows_of(run, CHOSEN)
    assert (rate.value, stall.value) == (run.tokens_per_s, run.stall_ms)
    assert "hybrid" in rate.name


def test_stalls_are_of_steps_after_the_centre_was_fixed() -> None:
    """Proves by hand: the 16th step fixes the centre of 4,096 tokens; the longest of those after it is the stall."""
    times_s, sealing = np.full(64, 0.010), np.zeros(64, dtype=np.bool_)
    times_s[15], times_s[40], times_s[41] = 0.5, 0.030, 0.020
    sealing[[15, 41]] = True
    run = insertion_of(spec_of("every", "flat", 0.15), times_s, sealing, 1.0, 100, 0)
    assert (run.centring_ms, run.stall_ms) == (500.0, 30.0)
    assert (run.sealing_stall_ms, run.other_stall_ms, run.sealing_steps) == (20.0, 30.0, 1)
    assert run.tokens_per_s_late == STEP_TOKENS / 0.010


def test_sealing_steps_are_told_by_the_index_itself() -> None:
    """Proves that a session that seals is seen to, and that its rows say so beside the longest step of all."""
    spec = spec_of("every", "hnsw", 0.15)
    run = insert(spec, steps_of(CHOSEN), CHOSEN.tokens)
    assert run.sealing_steps > 0
    assert max(run.sealing_stall_ms, run.other_stall_ms) == run.stall_ms
    assert [row.value for row in rows_of(run, CHOSEN)[1:]] == [run.stall_ms, run.sealing_stall_ms, run.other_stall_ms]
    assert (sealed_of("hnsw: 512 bookmarks in 1 graphs, 300 bookmarks compared exactly"), sealed_of("flat: 9")) == (
        512,
        0,
    )


def test_steps_are_a_function_of_the_seed() -> None:
    """Proves that two runs are fed the same."""
    first, again = (list(islice(steps_of(CHOSEN), 2)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.embeddings, other.embeddings)
        assert one.ids.tobytes() == other.ids.tobytes()


def test_real_rows_come_again_with_other_noise(tmp_path: Path) -> None:
    """Proves that rows keep their order, and that what comes back is near itself and not the same."""
    random = np.random.default_rng(1)
    codes = random.integers(-127, 128, (STEP_TOKENS, DIMS)).astype(np.int8)
    np.savez(tmp_path / "rows.npz", codes=codes, scale=np.full(STEP_TOKENS, 0.5, np.float32))
    first, second = islice(real_rows(tmp_path / "rows.npz", random), 2)
    assert not np.array_equal(first, second)
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
    # The noise's length is 0.3 of a row's own each time, so cosines are near 1 / (1 + 0.3 ** 2); dimensions average it.
    assert (a * b).sum(axis=1) == pytest.approx(1 / 1.09, abs=0.05)
