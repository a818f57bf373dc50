"""Measures: what each gives is what its module's head says, worked out slowly from all that came before."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from memsvc.errors import InvalidRequest
from memsvc.policy import Measure, Offer
from memsvc.policy.attention import AttentionMeasure
from memsvc.policy.distance import DistanceMeasure
from memsvc.policy.hybrid import RunningStandard
from memsvc.policy.novelty import NoveltyMeasure
from memsvc.policy.rarity import RarityMeasure
from memsvc.policy.relevance import RelevanceMeasure
from memsvc.policy.topic_shift import TopicShiftMeasure
from tests.policy_driver import Passage, passage

TOKENS = 420
TEXT = passage("topics", TOKENS)
CUTS = ([TOKENS], [1, 2, 40, 104, 105, 300, TOKENS], [*range(1, TOKENS + 1)])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = float(np.linalg.norm(a.astype(float))) * float(np.linalg.norm(b.astype(float)))
    return float(a.astype(float) @ b.astype(float)) / norms if norms else 0.0


def _distance(text: Passage, at: int) -> float:
    return 1 - _cosine(text.rows[at], text.rows[max(0, at - 64) : at].astype(int).sum(axis=0))


def _topic_shift(text: Passage, at: int) -> float:
    windows = [text.rows[at + 1 - 16 * back : at + 17 - 16 * back].astype(int) for back in range(1, 9)]
    whole = [window.sum(axis=0) for back, window in enumerate(windows, 1) if at + 1 - 16 * back >= 0]
    return 1 - max(_cosine(whole[0], own) for own in whole[1:]) if len(whole) > 1 else 0.0


def _rarity(text: Passage, at: int) -> float:
    return math.log2((at + 1) / (np.count_nonzero(text.ids[:at] == text.ids[at]) + 1))


def _attention(text: Passage, at: int) -> float:
    mass = text.signals["attention_mass"].astype(float)
    around = mass[max(0, at - 64) : at]
    return (
        math.log2((mass[at] + 2.0**-20) / (sorted(around)[(at - 1) // 2 if at < 64 else 31] + 2.0**-20)) if at else 0.0
    )


DEFINITIONS: dict[str, tuple[Callable[[], Measure], Callable[[Passage, int], float]]] = {
    "distance": (DistanceMeasure, _distance),
    "topic_shift": (TopicShiftMeasure, _topic_shift),
    "rarity": (RarityMeasure, _rarity),
    "attention": (AttentionMeasure, _attention),
}
each_measure = pytest.mark.parametrize("name", DEFINITIONS)


def _offer(text: Passage, first: int, end: int) -> Offer:
    step = text.step(first, end)

    def unasked() -> np.ndarray:
        raise AssertionError("expected nobody to ask for the best earlier bookmark")

    return Offer(first, end - first, step.signals, step.ids, text.rows[first:end], unasked)


def _measured(measure: Measure, text: Passage, ends: list[int], first: int = 0) -> np.ndarray:
    values = []
    for end in ends:
        values.append(measure.measure(_offer(text, first, end)))
        first = end
    return np.concatenate(values)


@each_measure
def test_a_measure_gives_what_its_definition_says(name: str) -> None:
    """Proves it for each token of a text, to the rounding of float32."""
    make, definition = DEFINITIONS[name]
    expected = [definition(TEXT, at) for at in range(TOKENS)]
    np.testing.assert_allclose(_measured(make(), TEXT, [TOKENS]), expected, rtol=2**-22, atol=2**-22)


@each_measure
def test_a_measure_does_not_depend_on_the_split(name: str) -> None:
    """Proves that steps of any size give the same float32 bits."""
    make, _ = DEFINITIONS[name]
    whole, *others = (_measured(make(), TEXT, list(ends)).tobytes() for ends in CUTS)
    assert others == [whole, whole]


@each_measure
@pytest.mark.parametrize("kept", [0, 30])
def test_a_measure_goes_on_from_what_it_recollects(name: str, kept: int) -> None:
    """Proves that after a replay, which has the newest `vectors_back` vectors only, the next values are the same."""
    make, _ = DEFINITIONS[name]
    through = make()
    expected = _measured(through, TEXT, [300, TOKENS])[300:]
    replayed = make()
    for first, end in ((0, 250), (250, 300)):
        offer = _offer(TEXT, first, end)
        back = min(end - first, replayed.needs.vectors_back + kept)
        vectors = offer.vectors[len(offer.vectors) - back :]
        replayed.recollect(Offer(first, end - first, offer.signals, offer.ids, vectors, offer.best_earlier))
    assert _measured(replayed, TEXT, [TOKENS], 300).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["distance", "topic_shift", "attention"])
def test_a_gap_begins_a_new_run(name: str) -> None:
    """Proves that what came before a gap does not enter what comes after it, as if the text began there."""
    make, _ = DEFINITIONS[name]
    broken, fresh = make(), make()
    _measured(broken, TEXT, [200])
    broken.skip()
    assert _measured(broken, TEXT, [TOKENS], 300).tobytes() == _measured(fresh, TEXT, [TOKENS], 300).tobytes()


def test_rarity_counts_across_gaps() -> None:
    """Proves that an id that came before a gap is not new after it."""
    measure = RarityMeasure()
    _measured(measure, TEXT, [200])
    measure.skip()
    times = np.bincount(TEXT.ids[:200])
    common = int(np.argmax(times))
    offer = Offer(250, 1, {}, np.array([common], dtype=np.uint32), TEXT.rows[:0], lambda: TEXT.rows[:0, 0])
    assert measure.measure(offer).tolist() == [np.float32(math.log2(201 / (times[common] + 1)))]


def test_relevance_and_novelty_are_opposites() -> None:
    """Proves that both are the best earlier similarity, one taken from one."""
    best = np.array([0.25, -0.5, 0.0], dtype=np.float32)
    offer = Offer(0, 3, {}, TEXT.ids[:0], TEXT.rows[:3], lambda: best)
    assert RelevanceMeasure().measure(offer).tolist() == [0.25, -0.5, 0.0]
    assert NoveltyMeasure().measure(offer).tolist() == [0.75, 1.5, 1.0]


def test_topic_shift_peaks_after_a_change_and_not_on_the_way_back() -> None:
    """Proves by hand: a new topic scores high within 16 tokens, coming back from it after 48 tokens scores low."""
    a, b = np.eye(2, 24, dtype=np.int16) * 4000
    rows = np.stack([a] * 100 + [b] * 48 + [a] * 40)
    text = Passage(rows, np.empty(0, dtype=np.uint32), {})
    shift = _measured(TopicShiftMeasure(), text, [188])
    assert shift[:100].max() == 0
    assert shift[115] == 1
    assert shift[148 + 15 :].max() == 0


def test_attention_mass_that_spikes_stands_out_whatever_its_unit() -> None:
    """Proves that a token with 16 times its surroundings' mass is 4 octaves up in any unit, and that 0 has a ratio."""
    mass = np.ones(100, dtype=np.float32)
    mass[80] = 16
    for unit in (1.0, 1000.0):
        text = Passage(TEXT.rows[:100], TEXT.ids[:100], {"attention_mass": unit * mass})
        octaves = _measured(AttentionMeasure(), text, [100])
        assert octaves[80] == pytest.approx(4.0, abs=1e-4)
        assert abs(octaves[:80]).max() < 1e-4
    text = Passage(TEXT.rows[:100], TEXT.ids[:100], {"attention_mass": np.full(100, -3.0, dtype=np.float32)})
    assert _measured(AttentionMeasure(), text, [100]).tolist() == [0.0] * 100


def test_a_spike_does_not_hide_the_next_one() -> None:
    """Proves that one token of a thousand times the usual mass leaves another's octaves as they are."""
    mass = np.ones(100, dtype=np.float32)
    mass[80] = 16
    alone = _measured(AttentionMeasure(), Passage(TEXT.rows[:100], TEXT.ids[:100], {"attention_mass": mass}), [100])
    mass[[70, 75]] = 1000
    beside = _measured(AttentionMeasure(), Passage(TEXT.rows[:100], TEXT.ids[:100], {"attention_mass": mass}), [100])
    assert beside[80] == alone[80]


def test_attention_without_its_signal_is_refused_by_name() -> None:
    """Proves that the missing signal is named."""
    with pytest.raises(InvalidRequest, match="attention_mass"):
        _measured(AttentionMeasure(), Passage(TEXT.rows, TEXT.ids, {}), [10])


def test_standardised_values_follow_from_the_past_alone() -> None:
    """Proves that each value is measured by the mean and deviation of those before it, whatever the split, and that
    signals which are standardised together are each as they are by themselves, bit for bit."""
    values = np.random.default_rng(4).gamma(2.0, 2.0, (3, 300))
    whole = RunningStandard(3).of(values)
    parts = RunningStandard(3)
    split = [parts.of(part) for part in np.split(values, [0, 1, 2, 130, 131], axis=1)]
    assert np.concatenate(split, axis=1).tobytes() == whole.tobytes()
    assert [RunningStandard(1).of(own[None])[0].tobytes() for own in values] == [own.tobytes() for own in whole]
    assert whole[:, :2].tolist() == [[0.0, 0.0]] * 3
    for at in (2, 10, 299):
        expected = (values[1, at] - values[1, :at].mean()) / values[1, :at].std()
        assert whole[1, at] == pytest.approx(np.clip(expected, -8, 8), rel=1e-6)
    assert RunningStandard(1).of(np.full((1, 50), 3.0)).tolist() == [[0.0] * 50]
