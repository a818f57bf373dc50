"""Thresholds that hold a coverage."""

from collections.abc import Callable

import numpy as np
import pytest

from memsvc.policy.quantile import BINS, PAYBACK_TOKENS, WARMUP_TOKENS, HeldQuantile, RunningQuantile, Scale

TOKENS = 30_000
STREAMS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "smooth": lambda random: random.normal(500, 100, TOKENS),
    "one value": lambda random: np.full(TOKENS, 700.0),
    "two values": lambda random: random.choice([100.0, 900.0], TOKENS, p=[0.6, 0.4]),
    "a high start": lambda random: random.normal(400, 60, TOKENS) + 500 * np.exp(-np.arange(TOKENS) / 1000),
    "a slow rise": lambda random: random.normal(300, 80, TOKENS) + 300 * np.arange(TOKENS) / TOKENS,
    "outside the scale": lambda random: random.choice([-1e30, 1e30], TOKENS, p=[0.7, 0.3]),
}


def _taken(coverage: float, bins: np.ndarray, force_every: int = 0) -> np.ndarray:
    """What a held quantile takes; with `force_every`, one more of each so many values if none of them was taken."""
    held, taken = HeldQuantile(coverage), np.zeros(len(bins), dtype=bool)
    for at, own in enumerate(bins.tolist()):
        taken[at] = held.takes(own)
        held.count(own, taken=bool(taken[at]))
        if force_every and at % force_every == force_every - 1 and not taken[at - force_every + 1 : at + 1].any():
            held.count_forced()
            taken[at] = True
    return taken


@pytest.mark.parametrize("coverage", [0.02, 0.1, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("shape", STREAMS)
def test_the_share_taken_is_the_coverage_asked_for(shape: str, coverage: float) -> None:
    """Proves that ties, drift and a start unlike the rest leave the share within three points, warm-up included."""
    bins = Scale.between(0.0, 1000.0).bins(STREAMS[shape](np.random.default_rng(5)))
    share = _taken(coverage, bins).mean()
    # What is ahead by the coverage of PAYBACK_TOKENS asks for nothing until it is paid back, a drift or not.
    assert share <= coverage * (1 + PAYBACK_TOKENS / TOKENS) + 1 / TOKENS
    assert abs(share - coverage) < 0.03 + WARMUP_TOKENS / TOKENS


def test_forced_values_count_towards_the_coverage() -> None:
    """Proves that one forced value in 64 does not lift a coverage of 2 % to 3.6 %."""
    # All high values lie in a few passages, so nearly every block is forced.
    random = np.random.default_rng(6)
    bins = np.clip(random.normal(200 + 500 * (np.arange(TOKENS) % 4000 < 100), 50), 0, BINS - 1).astype(int)
    assert 0.018 < _taken(0.02, bins, force_every=64).mean() < 0.024


def test_forced_values_leave_no_standing_debt() -> None:
    """Proves that 2 % are held from the 8,192nd value on although more than half of them are forced."""
    random = np.random.default_rng(6)
    bins = np.clip(random.normal(200 + 500 * (np.arange(TOKENS) % 4000 < 100), 50), 0, BINS - 1).astype(int)
    taken = _taken(0.02, bins, force_every=64)
    # Two points of the payback span, which is what a passage of 100 high values is ahead by at most.
    assert abs(taken[:8192].sum() - 0.02 * 8192) < 0.02 * PAYBACK_TOKENS


def test_a_coverage_of_all_takes_the_first_values_too() -> None:
    """Proves that nothing is warmed up for where there is nothing to choose."""
    bins = Scale.between(0.0, 1000.0).bins(STREAMS["smooth"](np.random.default_rng(5))[:100])
    assert _taken(1.0, bins).all()


def test_a_start_unlike_the_rest_is_paid_back_soon() -> None:
    """Proves that a rising start is within a fifth of its coverage after 1,024 values, and not after 4,096 first."""
    random = np.random.default_rng(8)
    rising = random.normal(300 + 400 * np.minimum(1.0, np.arange(1024) / 256), 40)
    assert abs(_taken(0.2, rising.astype(int)).mean() - 0.2) < 0.04


def test_what_is_taken_are_the_highest_values() -> None:
    """Proves that on a stream without drift nearly all values above the true quantile are taken, and few others."""
    values = np.random.default_rng(7).normal(500, 100, TOKENS)
    taken = _taken(0.1, Scale.between(0.0, 1000.0).bins(values))[5000:]
    highest = values[5000:] > np.quantile(values, 0.9)
    assert (taken & highest).sum() > 0.95 * highest.sum()


def test_equal_values_are_taken_at_even_distances() -> None:
    """Proves that of a constant stream every tenth value is taken at a coverage of 10 %, not a run of them."""
    places = np.flatnonzero(_taken(0.1, np.full(4000, 3)))[20:]
    assert set(np.diff(places)) <= {9, 10, 11}


def test_halving_keeps_the_cut_where_the_counts_say() -> None:
    """Proves by hand: after halving, the cut is that of the halved counts."""
    quantile = RunningQuantile(0.25)
    for bin_index in [1, 1, 1, 1, 2, 2, 3, 3]:
        quantile.add(bin_index)
        quantile.move_cut(0.25 * quantile.total)
    assert not quantile.reached_by(2)
    assert quantile.reached_by(3)
    quantile.halve()
    assert quantile.total == 4
    quantile.move_cut(2.0)
    assert quantile.reached_by(2)


def test_values_outside_a_scale_fall_into_its_ends() -> None:
    """Proves where bins begin and that nothing is lost below or above them."""
    scale = Scale.between(-1.0, 1.0)
    assert scale.bins(np.array([-9.0, -1.0, 0.0, 0.999, 1.0, 9.0])).tolist() == [0, 0, 512, 1023, 1023, 1023]


def _state(held: HeldQuantile) -> tuple[object, ...]:
    """All that the next verdicts follow from."""
    own = held._quantile
    counts = (own._histogram.tolist(), own.total, own._cut, own._above)
    return (*counts, held._counted, held._halving, held._taken, held._forced, held._above_max, held._saved)


def _followed(coverage: float, bins: np.ndarray, forced_every: int) -> tuple[list[tuple[object, ...]], np.ndarray]:
    """The state before each value and after the last, and what was taken; one in so many was forced after."""
    held, taken = HeldQuantile(coverage), np.zeros(len(bins), dtype=bool)
    states = [_state(held)]
    for at, own in enumerate(bins.tolist()):
        taken[at] = held.takes(own)
        held.count(own, taken=bool(taken[at]))
        if at % forced_every == forced_every - 1:
            held.count_forced()
        states.append(_state(held))
    return states, taken


@pytest.mark.parametrize("coverage", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("shape", STREAMS)
def test_values_of_a_log_counted_at_once_leave_what_one_by_one_leaves(shape: str, coverage: float) -> None:
    """Proves that the threshold is the same, bit for bit, after values in pieces of any size as one by one."""
    bins = Scale.between(0.0, 1000.0).bins(STREAMS[shape](np.random.default_rng(5))[:6000])
    states, taken = _followed(coverage, bins, forced_every=50)
    forced = np.arange(len(bins)) % 50 == 49
    held, at, pieces, sizes = HeldQuantile(coverage), 0, 0, [1, 40, 256, 700]
    while at < len(bins):
        if held.steady == 0:
            held.count(int(bins[at]), taken=held.takes(int(bins[at])))
            if forced[at]:
                held.count_forced()
            at += 1
        else:
            own = slice(at, at + min(held.steady, sizes[pieces % len(sizes)]))
            assert held.count_as(bins[own], taken[own], forced[own])
            at, pieces = min(len(bins), own.stop), pieces + 1
        assert _state(held) == states[at]
    assert pieces > 20


@pytest.mark.parametrize("shape", STREAMS)
def test_a_log_that_is_wrong_about_one_value_counts_none(shape: str) -> None:
    """Proves that wherever one value is said to be taken and is not, or the other way, nothing is changed."""
    bins = Scale.between(0.0, 1000.0).bins(STREAMS[shape](np.random.default_rng(5))[:900])
    states, taken = _followed(0.2, bins, forced_every=50)
    forced, held = np.arange(len(bins)) % 50 == 49, HeldQuantile(0.2)
    start = next(at for at in range(len(bins)) if states[at][5] - states[at][4] > 100 and at > 300)
    for at, own in enumerate(bins[:start].tolist()):
        held.count(own, taken=held.takes(own))
        if forced[at]:
            held.count_forced()
    own = slice(start, start + held.steady)
    for wrong in range(own.start, own.stop, 7):
        said = taken.copy()
        said[wrong] = not said[wrong]
        assert not held.count_as(bins[own], said[own], forced[own])
        assert _state(held) == states[start]
    assert held.count_as(bins[own], taken[own], forced[own])
