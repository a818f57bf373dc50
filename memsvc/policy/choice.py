"""From a session's spec to its policy, with every field checked."""

import math
from collections.abc import Callable, Mapping

from memsvc.errors import InvalidRequest
from memsvc.policy.attention import AttentionPolicy
from memsvc.policy.base import Policy
from memsvc.policy.distance import DistancePolicy
from memsvc.policy.earlier import COMPARED_BOOKMARKS_MAX
from memsvc.policy.every import EveryPolicy
from memsvc.policy.fixed import FixedPolicy
from memsvc.policy.hybrid import HybridPolicy
from memsvc.policy.novelty import NoveltyPolicy
from memsvc.policy.offer import Measure
from memsvc.policy.rarity import RarityPolicy
from memsvc.policy.relevance import RelevancePolicy
from memsvc.policy.surprisal import SurprisalPolicy
from memsvc.policy.threshold import MeasuredPolicy
from memsvc.policy.topic_shift import TopicShiftPolicy
from protos.memsvc.v1 import types_pb2 as wire

# Least share of the tokens that a policy can hold: a block takes 1 in 64.
COVERAGE_MIN = 0.02
# One of each kind that can be weighted.
HYBRID_PARTS_MAX = 7

_MEASURED: Mapping[int, Callable[[float], MeasuredPolicy]] = {
    wire.POLICY_KIND_RELEVANCE: RelevancePolicy,
    wire.POLICY_KIND_NOVELTY: NoveltyPolicy,
    wire.POLICY_KIND_DISTANCE: DistancePolicy,
    wire.POLICY_KIND_TOPIC_SHIFT: TopicShiftPolicy,
    wire.POLICY_KIND_RARITY: RarityPolicy,
    wire.POLICY_KIND_ATTENTION: AttentionPolicy,
}


def make_policy(spec: wire.PolicySpec) -> Policy:
    """A fresh policy as specified.

    Raises:
        InvalidRequest: The kind is unknown, or its setting is out of range.
    """
    if spec.compared_bookmarks > COMPARED_BOOKMARKS_MAX:
        got = spec.compared_bookmarks
        raise InvalidRequest(f"expected policy.compared_bookmarks of at most {COMPARED_BOOKMARKS_MAX}, got {got}")
    if spec.kind == wire.POLICY_KIND_EVERY:
        return EveryPolicy()
    if spec.kind == wire.POLICY_KIND_FIXED:
        if spec.every_tokens < 1:
            raise InvalidRequest(f"expected policy.every_tokens of at least 1, got {spec.every_tokens}")
        return FixedPolicy(spec.every_tokens)
    if spec.kind == wire.POLICY_KIND_SURPRISAL:
        return SurprisalPolicy(_held_coverage(spec))
    if spec.kind == wire.POLICY_KIND_HYBRID:
        return _hybrid(spec)
    if spec.kind in _MEASURED:
        return _MEASURED[spec.kind](_held_coverage(spec))
    kinds = ", ".join(_word(kind) for kind in wire.PolicyKind.values() if kind)
    raise InvalidRequest(f"expected policy.kind to be one of {kinds}, got {_word(spec.kind)}")


def _held_coverage(spec: wire.PolicySpec) -> float:
    # The wire has float32: 0.02 arrives as a little less.
    coverage = round(spec.coverage, 6)
    if not COVERAGE_MIN <= coverage <= 1:
        raise InvalidRequest(f"expected policy.coverage in [{COVERAGE_MIN}, 1], got {coverage}")
    return coverage


def _hybrid(spec: wire.PolicySpec) -> HybridPolicy:
    coverage, kinds = _held_coverage(spec), [part.kind for part in spec.weights]
    if not 1 <= len(kinds) <= HYBRID_PARTS_MAX or len(set(kinds)) < len(kinds):
        got = ", ".join(_word(kind) for kind in kinds[: HYBRID_PARTS_MAX + 1]) or "none"
        raise InvalidRequest(f"expected policy.weights of 1 to {HYBRID_PARTS_MAX} kinds that differ, got {got}")
    parts: list[tuple[str, float]] = []
    signals: list[str] = []
    measures: list[Measure] = []
    for at, part in enumerate(spec.weights):
        if not (math.isfinite(part.weight) and part.weight > 0):
            raise InvalidRequest(f"expected policy.weights[{at}].weight above 0 and finite, got {part.weight}")
        if part.kind == wire.POLICY_KIND_SURPRISAL:
            parts.append((SurprisalPolicy.signals[0], part.weight))
            signals += SurprisalPolicy.signals
        elif part.kind in _MEASURED:
            own = _MEASURED[part.kind](coverage)
            parts.append((own.measures[0].signal, part.weight))
            signals += own.signals
            measures += own.measures
        else:
            known = ", ".join(_word(kind) for kind in (wire.POLICY_KIND_SURPRISAL, *_MEASURED))
            got = _word(part.kind)
            raise InvalidRequest(f"expected policy.weights[{at}].kind to be one of {known}, got {got}")
    return HybridPolicy(coverage, parts, tuple(signals), tuple(measures))


def _word(kind: int) -> str:
    """A kind as settings and messages name it; the number where there is no such kind."""
    known = wire.PolicyKind.DESCRIPTOR.values_by_number.get(kind)
    return known.name.removeprefix("POLICY_KIND_") if known else str(kind)
