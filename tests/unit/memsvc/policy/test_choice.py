"""Specs of policies: every field is checked, and the error names field, value and range."""

import pytest

from memsvc.errors import InvalidRequest
from memsvc.policy import make_policy
from protos.memsvc.v1 import types_pb2 as wire
from tests.policy_driver import KINDS, MEASURED, policy_spec


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("coverage", [0.02, 0.1, 1.0])
def test_a_coverage_within_its_range_is_taken(name: str, coverage: float) -> None:
    """Proves that both ends are in, though the wire's float32 of 0.02 is a little less than that."""
    make_policy(policy_spec(name, coverage))


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("coverage", [0.0, 0.0199, 1.001, -1.0, float("nan"), float("inf")])
def test_a_coverage_out_of_range_is_refused(name: str, coverage: float) -> None:
    """Proves that one past either end is not, and what the message says."""
    with pytest.raises(InvalidRequest, match=rf"expected policy.coverage in \[0.02, 1\], got {coverage}"):
        make_policy(policy_spec(name, coverage))


def _hybrid(*weights: tuple[int, float]) -> wire.PolicySpec:
    parts = [wire.PolicyWeight(kind=kind, weight=weight) for kind, weight in weights]  # type: ignore[arg-type]
    return wire.PolicySpec(kind=wire.POLICY_KIND_HYBRID, coverage=0.1, weights=parts)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (wire.PolicySpec(kind=99), "expected policy.kind to be one of EVERY, FIXED, .*HYBRID, got 99"),  # type: ignore[arg-type]
        (wire.PolicySpec(), "got UNSPECIFIED"),
        (_hybrid(), "expected policy.weights of 1 to 7 kinds that differ, got none"),
        (_hybrid((4, 1.0), (4, 1.0)), "got RELEVANCE, RELEVANCE"),
        (_hybrid((3, 1.0), (4, 0.0)), r"expected policy.weights\[1\].weight above 0 and finite, got 0.0"),
        (_hybrid((3, float("inf"))), r"expected policy.weights\[0\].weight above 0 and finite, got inf"),
        (_hybrid((1, 1.0)), r"expected policy.weights\[0\].kind to be one of SURPRISAL, .*ATTENTION, got EVERY"),
        (_hybrid((10, 1.0)), "got HYBRID"),
        (_hybrid((77, 1.0)), "got 77"),
        (
            wire.PolicySpec(kind=wire.POLICY_KIND_NOVELTY, coverage=0.1, compared_bookmarks=65_537),
            "expected policy.compared_bookmarks of at most 65536, got 65537",
        ),
    ],
)
def test_a_spec_out_of_range_names_field_value_and_range(spec: wire.PolicySpec, message: str) -> None:
    """Proves that each field of a policy's spec is checked."""
    with pytest.raises(InvalidRequest, match=message):
        make_policy(spec)


def test_a_hybrid_needs_what_its_parts_need() -> None:
    """Proves that signals of the client and measures of the server add up."""
    policy = make_policy(_hybrid((3, 1.0), (9, 1.0), (5, 1.0)))
    assert policy.signals == ("surprisal", "attention_mass")
    assert [measure.signal for measure in policy.measures] == ["attention", "novelty"]


@pytest.mark.parametrize("name", KINDS)
def test_a_policy_names_the_signals_of_the_client(name: str) -> None:
    """Proves that only these three ask the client for more than it sends anyhow."""
    needed = {"surprisal": ("surprisal",), "attention": ("attention_mass",), "hybrid": ("surprisal",)}
    spec = policy_spec(name)
    spec.every_tokens = 1
    assert make_policy(spec).signals == needed.get(name, ())
