"""Policies as a session feeds them: coverage held, causal, the same for any split, no block without a bookmark."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memsvc.errors import CorruptLog
from memsvc.geometry import BLOCK_TOKENS
from memsvc.policy import LOOKBACK_TOKENS
from memsvc.session.deciding import Settled
from memsvc.session.records import Decided, Entry, StepRecord
from memsvc.session.vectors import TokenRows
from tests.policy_driver import MEASURED, Passage, decider_of, fed, passage, policy_spec, positions_of

COVERED_TOKENS = 20_000
each_policy = pytest.mark.parametrize("name", MEASURED)


@each_policy
@pytest.mark.parametrize("shape", ["noise", "topics", "drift", "same"])
@pytest.mark.parametrize("coverage", [0.02, 0.1, 0.5, 1.0])
def test_coverage_stays_near_its_target(name: str, shape: str, coverage: float) -> None:
    """Proves that the share of all bookmarks, forced ones included, is the one asked for within four points."""
    # A text that says one sentence for ever is new again each time its last new bookmark is no longer compared.
    spec = policy_spec(name, coverage, compared_bookmarks=4096 if shape == "same" else 0)
    settled = fed(spec, passage(shape, COVERED_TOKENS), range(1000, COVERED_TOKENS + 1, 1000))
    share = len(positions_of(settled)) / COVERED_TOKENS
    # Novelty of vectors without structure falls as long as bookmarks are added, and the threshold runs after it.
    assert abs(share - coverage) < (0.04 if shape == "noise" else 0.025)
    # Nothing forced is left to force: a block is never without one.
    assert share > 1 / BLOCK_TOKENS - 2 * LOOKBACK_TOKENS / COVERED_TOKENS


def test_relevance_goes_back_to_topics_and_novelty_away_from_them() -> None:
    """Proves that a topic's second passage has more relevant tokens than its first, and fewer novel ones."""
    first, second = passage("drift", 4000), passage("drift", 4000, seed=8)
    rows = np.concatenate([first.rows, second.rows[:1000], first.rows[1000:2000]])
    text = Passage(rows, np.zeros(6000, dtype=np.uint32), {})
    shares = {}
    for name in ("relevance", "novelty"):
        positions = positions_of(fed(policy_spec(name, 0.1), text, range(500, 6001, 500)))
        new, known = (np.count_nonzero((positions >= at) & (positions < at + 1000)) for at in (4000, 5000))
        shares[name] = (new, known)
    assert shares["relevance"][0] < shares["relevance"][1]
    assert shares["novelty"][0] > shares["novelty"][1]


@each_policy
def test_every_whole_block_has_a_bookmark(name: str) -> None:
    """Proves that each block is reachable, that what is forced is its only one, and that positions ascend."""
    text = passage("same", 1500)
    settled = fed(policy_spec(name, 0.02), text, range(70, 1501, 70))
    positions = positions_of(settled)
    forced = np.concatenate([own.decided.forced for own in settled])
    assert (np.diff(positions) > 0).all()
    # The last block may wait for two tokens more.
    assert set((positions // BLOCK_TOKENS).tolist()) >= set(range(1500 // BLOCK_TOKENS - 1))
    blocks = (positions // BLOCK_TOKENS).tolist()
    assert all(blocks.count(block) == 1 for block in positions[forced] // BLOCK_TOKENS)


@each_policy
def test_a_decision_depends_on_no_later_token(name: str) -> None:
    """Proves that two texts that part at token 500 agree, in one step each, on all that is decided before."""
    one, other = passage("topics", 900), passage("topics", 900, seed=4)
    parted = Passage(
        np.concatenate([one.rows[:500], other.rows[500:]]),
        np.concatenate([one.ids[:500], other.ids[500:]]),
        {name: np.concatenate([own[:500], other.signals[name][500:]]) for name, own in one.signals.items()},
    )
    (left,), (right,) = (fed(policy_spec(name, 0.2), text, [900]) for text in (one, parted))
    for measured, own in left.measured.items():
        np.testing.assert_array_equal(own[:500], right.measured[measured][:500])
    before = [own.decided.positions[own.decided.positions < 500 - LOOKBACK_TOKENS].tolist() for own in (left, right)]
    assert before[0] == before[1]
    assert before[0]


@each_policy
def test_decisions_lag_by_a_bounded_number_of_tokens(name: str) -> None:
    """Proves that what a step settles is no older than LOOKBACK_TOKENS before its newest token."""
    settled = fed(policy_spec(name, 0.02), passage("topics", 400), range(1, 401))
    for newest, own in enumerate(settled):
        assert ((own.decided.positions >= newest - LOOKBACK_TOKENS) & (own.decided.positions <= newest)).all()


def _with_gap(name: str, text: Passage, cuts: set[int], gap: range) -> tuple[Decided, dict[str, bytes]]:
    """All that is settled over a text of which a range is lost, cut at these places, after a centre frozen at 130."""
    decider, settled = decider_of(policy_spec(name, 0.2, compared_bookmarks=20)), []
    bounds = sorted({0, text.tokens, gap.start, gap.stop, *(cut % text.tokens for cut in cuts)})
    for first, end in pairwise(bounds):
        if first in gap:
            continue
        decider.take(text.step(first, end, len(gap) if first == gap.stop else 0))
        read = np.array([at for at in range(end) if at not in gap])
        known = TokenRows(read, {"s0": text.rows[read]})
        # Before the first 130 tokens there are no vectors: what looks at them waits.
        settled.append(decider.settle(known if end >= 130 else None))
    names = {own for step in settled for own in step.measured}
    measured = {own: b"".join(step.measured[own].tobytes() for step in settled if step.measured) for own in names}
    decided = Decided.of([])
    for step in settled:
        decided = decided.then(step.decided)
    return decided, measured


@each_policy
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=st.sets(st.integers(0, 699), max_size=30), start=st.integers(210, 400), lost=st.integers(1, 130))
def test_the_split_into_steps_cannot_show(name: str, cuts: set[int], start: int, lost: int) -> None:
    """Proves that decisions and measured numbers are the same bit for bit, with a gap anywhere after centring."""
    text, gap = passage("topics", 700), range(start, start + lost)
    whole, split = (_with_gap(name, text, own, gap) for own in (set(), cuts))
    assert split[0].equals(whole[0])
    assert split[1] == whole[1]


def _record(text: Passage, end: int, settled: Settled) -> StepRecord:
    empty = Entry(np.empty((0, 1), dtype=np.int64), np.empty((0, 1), dtype=np.float32))
    return StepRecord("one", 1, text.step(0, end), settled.decided, None, empty, settled.measured)


@each_policy
def test_numbers_of_other_tokens_are_corrupt(name: str) -> None:
    """Proves that a replay refuses numbers that are too few, of another name, or that lead to other bookmarks."""
    text = passage("topics", 300)
    (settled,) = fed(policy_spec(name, 0.2), text, [300])
    signal = next(iter(settled.measured))
    changes = [
        {signal: settled.measured[signal][:-1]},
        {"other": settled.measured[signal]},
        {own: values[::-1].copy() for own, values in settled.measured.items()},
    ]
    for measured in changes:
        decider = decider_of(policy_spec(name, 0.2))
        decider.take(text.step(0, 300))
        with pytest.raises(CorruptLog):
            decider.settle(text.known(0, 300), _record(text, 300, Settled(settled.decided, measured)))


@each_policy
def test_a_replay_measures_nothing(name: str) -> None:
    """Proves that logged numbers give the logged decisions without the vectors that they were made of."""
    text = passage("topics", 300)
    (settled,) = fed(policy_spec(name, 0.2), text, [300])
    decider = decider_of(policy_spec(name, 0.2))
    decider.take(text.step(0, 300))
    known = text.known(0, 300).at(settled.decided.positions)
    assert decider.settle(known, _record(text, 300, settled)).decided.equals(settled.decided)
