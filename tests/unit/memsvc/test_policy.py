"""Policies: the same bookmarks for any split into steps, none of a whole block missing, and nothing across a gap."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.errors import InvalidRequest
from memsvc.geometry import BLOCK_TOKENS
from memsvc.policy import LOOKBACK_TOKENS, Decision, Policy, make_policy
from memsvc.policy.surprisal import SurprisalPolicy
from protos.memsvc.v1 import types_pb2 as wire

Surprisal = npt.NDArray[np.float32]

POLICIES: dict[str, wire.PolicySpec] = {
    "every": wire.PolicySpec(kind=wire.POLICY_KIND_EVERY),
    "fixed 1": wire.PolicySpec(kind=wire.POLICY_KIND_FIXED, every_tokens=1),
    "fixed 7": wire.PolicySpec(kind=wire.POLICY_KIND_FIXED, every_tokens=7),
    "fixed 64": wire.PolicySpec(kind=wire.POLICY_KIND_FIXED, every_tokens=64),
    "fixed 65": wire.PolicySpec(kind=wire.POLICY_KIND_FIXED, every_tokens=65),
    "fixed 1000": wire.PolicySpec(kind=wire.POLICY_KIND_FIXED, every_tokens=1000),
    "surprisal 0.02": wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL, coverage=0.02),
    "surprisal 0.1": wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL, coverage=0.1),
    "surprisal 1": wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL, coverage=1.0),
}
each_policy = pytest.mark.parametrize("spec", POLICIES.values(), ids=POLICIES)


@dataclass(frozen=True)
class Stream:
    """Runs of surprisal without gaps, each with the position it begins at; a gap of a token or more lies between."""

    starts: list[int]
    runs: list[Surprisal]

    @property
    def end(self) -> int:
        """Position after the last token fed."""
        return self.starts[-1] + len(self.runs[-1])

    def whole_blocks(self) -> list[int]:
        """Blocks whose 64 tokens were all fed."""
        spans = [range(start, start + len(run)) for start, run in zip(self.starts, self.runs, strict=True)]
        blocks = range(self.end // BLOCK_TOKENS)
        return [b for b in blocks if any(64 * b in span and 64 * b + 63 in span for span in spans)]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """One to four runs of up to 300 tokens: smooth, of few values (many ties), flat, or out of the usual range."""
    starts, runs = [], []
    position = 0
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 300))
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        kind = draw(st.sampled_from(["smooth", "ties", "flat", "extreme"]))
        values = {
            "smooth": random.exponential(3.0, count),
            "ties": random.integers(0, 3, count) * 2.0,
            "flat": np.full(count, 2.5),
            "extreme": random.choice([-1.0, 0.0, 31.99, 32.0, 1e30], count),
        }[kind]
        starts.append(position)
        runs.append(values.astype(np.float32))
        position += count + draw(st.integers(1, 150))
        if draw(st.booleans()):
            position += -position % BLOCK_TOKENS
    return Stream(starts, runs)


def _signals(policy: Policy, run: Surprisal) -> dict[str, Surprisal]:
    return dict.fromkeys(policy.signals, run)


def _fed(
    policy: Policy, stream: Stream, cuts: list[int], logged: npt.NDArray[np.int64] | None = None
) -> list[Decision]:
    """All decisions over a stream, each run cut into calls at these places, and its end declared lost."""
    decisions: list[Decision] = []
    for at, (start, run) in enumerate(zip(stream.starts, stream.runs, strict=True)):
        if at:
            decisions += policy.skip(start)
        bounds = [0, *sorted(cut % (len(run) + 1) for cut in cuts), len(run)]
        for first, end in pairwise(bounds):
            decisions += policy.decide(start + first, end - first, _signals(policy, run[first:end]), logged)
    return decisions + policy.skip(stream.end + 1)


def _smoothed(stream: Stream) -> dict[int, float]:
    """Means over the up to five neighbours that exist, in float64 from left to right, by position."""
    smoothed = {}
    for start, run in zip(stream.starts, stream.runs, strict=True):
        values = run.astype(np.float64).tolist()
        for at in range(len(values)):
            near = values[max(0, at - 2) : at + 3]
            total = 0.0
            for value in near:
                total += value
            smoothed[start + at] = total / len(near)
    return smoothed


@each_policy
@settings(deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(0, 300), max_size=12))
def test_the_split_into_calls_cannot_show(spec: wire.PolicySpec, stream: Stream, cuts: list[int]) -> None:
    """Proves that decisions, signals and order are the same for a run at once and in any pieces, empty ones too."""
    assert _fed(make_policy(spec), stream, cuts) == _fed(make_policy(spec), stream, [])


@each_policy
@settings(deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(0, 300), max_size=3))
def test_every_whole_block_has_a_bookmark(spec: wire.PolicySpec, stream: Stream, cuts: list[int]) -> None:
    """Proves that each block that no gap touches is reachable, that only such blocks are forced, and once at most."""
    decisions = _fed(make_policy(spec), stream, cuts)
    whole = set(stream.whole_blocks())
    assert whole <= {decision.position // BLOCK_TOKENS for decision in decisions}
    forced = [decision.position // BLOCK_TOKENS for decision in decisions if decision.forced]
    assert set(forced) <= whole
    assert len(set(forced)) == len(forced)
    regular = {decision.position // BLOCK_TOKENS for decision in decisions if not decision.forced}
    assert not regular & set(forced)


@each_policy
@settings(deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(0, 300), max_size=12))
def test_decisions_ascend_among_the_tokens_that_were_fed(
    spec: wire.PolicySpec, stream: Stream, cuts: list[int]
) -> None:
    """Proves that no position is decided twice, out of order, or without having been fed."""
    positions = [decision.position for decision in _fed(make_policy(spec), stream, cuts)]
    fed = {start + at for start, run in zip(stream.starts, stream.runs, strict=True) for at in range(len(run))}
    assert positions == sorted(set(positions) & fed)


@each_policy
@settings(deadline=None)
@given(stream=streams(), data=st.data())
def test_decisions_lag_by_a_bounded_number_of_tokens(
    spec: wire.PolicySpec, stream: Stream, data: st.DataObject
) -> None:
    """Proves that what a call returns is no older than LOOKBACK_TOKENS before its newest token, nor newer than it."""
    policy = make_policy(spec)
    for start, run in zip(stream.starts, stream.runs, strict=True):
        assert all(decision.position < start for decision in policy.skip(start))
        first = 0
        while first < len(run):
            count = data.draw(st.sampled_from([1, 2, 5, 64, 200]))
            part = run[first : first + count]
            newest = start + first + len(part) - 1
            found = policy.decide(start + first, len(part), _signals(policy, part))
            oldest = start + first - LOOKBACK_TOKENS
            assert all(oldest <= decision.position <= newest for decision in found)
            first += len(part)


@each_policy
@settings(deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(0, 300), max_size=4), data=st.data())
def test_what_a_log_says_cannot_show(
    spec: wire.PolicySpec, stream: Stream, cuts: list[int], data: st.DataObject
) -> None:
    """Proves that decisions are the same with a log that is right, wrong anywhere, out of order, or of other tokens."""
    expected = _fed(make_policy(spec), stream, cuts)
    taken = np.array([decision.position for decision in expected if not decision.forced], dtype=np.int64)
    wrong = data.draw(st.lists(st.integers(-100, stream.end + 100), max_size=4))
    lost = data.draw(st.lists(st.sampled_from(taken.tolist() or [0]), max_size=4))
    for logged in (taken, taken[:0], np.append(taken[~np.isin(taken, lost)], wrong).astype(np.int64)):
        assert _fed(make_policy(spec), stream, cuts, logged) == expected


SHAPES: dict[str, Callable[[np.random.Generator, int], npt.NDArray[np.float64]]] = {
    "exponential": lambda random, count: random.exponential(3.0, count),
    "gamma": lambda random, count: random.gamma(2.0, 1.5, count),
    # Easy and hard passages of 500 tokens in turn: nearly all bookmarks fall into the hard ones.
    "passages": lambda random, count: random.exponential(1.0 + 3.0 * (np.arange(count) // 500 % 2)),
}


@pytest.mark.parametrize("coverage", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_stays_near_its_target(shape: str, coverage: float) -> None:
    """Proves that on signals that keep their nature the share of bookmarks, forced ones included, is what was asked."""
    count = 40_000
    surprisal = SHAPES[shape](np.random.default_rng(11), count).astype(np.float32)
    decisions = _fed(SurprisalPolicy(coverage), Stream([0], [surprisal]), [])
    # A count of events of which each depends on its four neighbours to each side (here: within a passage) varies by at
    # most 9 times what independent ones do; four standard deviations.
    noise = 4 * np.sqrt(9 * coverage * (1 - coverage) / count)
    assert abs(len(decisions) / count - coverage) <= noise


def test_surprisal_finds_what_stands_out() -> None:
    """Proves by hand: one surprising token in a flat text makes its neighbourhood of five bookmarks."""
    surprisal = np.full(640, 1.0, dtype=np.float32)
    surprisal[300] = 11.0
    decisions = _fed(SurprisalPolicy(0.1), Stream([0], [surprisal]), [])
    found = [decision for decision in decisions if decision.signal > 1.0]
    assert found == [Decision(position, 3.0, forced=False) for position in range(298, 303)]


def test_surprisal_decides_two_tokens_late() -> None:
    """Proves that a token is decided with the second one after it, and the last two of a run by the skip."""
    policy = SurprisalPolicy(1.0)
    ones = np.ones(100, dtype=np.float32)
    policy.decide(0, 100, {"surprisal": ones})
    assert [decision.position for decision in policy.decide(100, 1, {"surprisal": ones[:1]})] == [98]
    assert [decision.position for decision in policy.skip(200)] == [99, 100]
    assert policy.decide(200, 2, {"surprisal": ones[:2]}) == []
    assert [decision.position for decision in policy.decide(202, 1, {"surprisal": ones[:1]})] == [200]


def test_nothing_is_smoothed_across_a_gap() -> None:
    """Proves that a surprising token beside a gap raises its own run's tokens and none on the other side."""
    flat = np.full(128, 1.0, dtype=np.float32)
    high = flat.copy()
    high[-1] = 31.0
    smoothed = {
        decision.position: decision.signal
        for decision in _fed(SurprisalPolicy(1.0), Stream([0, 200], [high, flat]), [])
        if not decision.forced
    }
    assert [smoothed[position] for position in (124, 125, 126, 127)] == [1.0, 7.0, 8.5, 11.0]
    assert [smoothed[position] for position in (200, 201, 202)] == [1.0, 1.0, 1.0]


def test_a_block_that_ends_at_a_gap_is_still_whole() -> None:
    """Proves that a gap from a block's end on leaves the block its forced bookmark, given by the skip."""
    policy = SurprisalPolicy(0.1)
    rising = np.linspace(0.0, 1.0, 64, dtype=np.float32)
    assert policy.decide(0, 64, {"surprisal": rising}) == []
    assert [(decision.position, decision.forced) for decision in policy.skip(128)] == [(63, True)]


def test_a_stride_counts_positions_not_tokens() -> None:
    """Proves that after a gap the bookmarks of a stride are still the multiples of it."""
    policy = make_policy(POLICIES["fixed 7"])
    assert [decision.position for decision in policy.decide(0, 10, {})] == [0, 7]
    assert policy.skip(20) == []
    assert [decision.position for decision in policy.decide(20, 10, {})] == [21, 28]


def test_a_long_stride_forces_the_first_token_of_bare_blocks() -> None:
    """Proves by hand: every 1000th position, and each other whole block's first token, when its last one is fed."""
    policy = make_policy(POLICIES["fixed 1000"])
    decisions = policy.decide(0, 1087, {})
    assert [decision.position for decision in decisions if not decision.forced] == [0, 1000]
    assert [decision.position for decision in decisions if decision.forced] == [64 * b for b in range(1, 16) if b != 15]
    assert policy.decide(1087, 1, {}) == [Decision(1024, 0.0, forced=True)]


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ({}, "expected signal 'surprisal' with each step, got none"),
        ({"entropy": np.ones(5, dtype=np.float32)}, r"got \['entropy'\]"),
        ({"surprisal": np.ones(4, dtype=np.float32)}, r"of shape \[5\], got \[4\]"),
        ({"surprisal": np.ones((5, 1), dtype=np.float32)}, r"of shape \[5\], got \[5, 1\]"),
    ],
)
def test_a_missing_signal_feeds_nothing(signals: dict[str, Surprisal], message: str) -> None:
    """Proves that a step without the signal, or with one of another length, is refused and can be sent again."""
    policy = SurprisalPolicy(1.0)
    with pytest.raises(InvalidRequest, match=message):
        policy.decide(0, 5, signals)
    stream = Stream([0], [np.ones(70, dtype=np.float32)])
    assert _fed(policy, stream, []) == _fed(SurprisalPolicy(1.0), stream, [])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (wire.PolicySpec(), "policy.kind"),
        (wire.PolicySpec(kind=wire.POLICY_KIND_FIXED), "policy.every_tokens of at least 1, got 0"),
        (wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL), r"policy.coverage in \[0.02, 1\], got 0.0"),
        (wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL, coverage=1.5), "got 1.5"),
        (wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL, coverage=-0.5), "got -0.5"),
        (wire.PolicySpec(kind=wire.POLICY_KIND_SURPRISAL, coverage=float("nan")), "got nan"),
    ],
)
def test_a_policy_out_of_range_is_refused(spec: wire.PolicySpec, message: str) -> None:
    """Proves that each setting is checked at its bounds, and that the message names field and value."""
    with pytest.raises(InvalidRequest, match=message):
        make_policy(spec)


@each_policy
def test_a_policy_names_the_signals_it_needs(spec: wire.PolicySpec) -> None:
    """Proves that only surprisal asks for a signal: the others work on texts that carry none."""
    expected = ("surprisal",) if spec.kind == wire.POLICY_KIND_SURPRISAL else ()
    assert make_policy(spec).signals == expected
