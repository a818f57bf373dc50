"""Policies: which tokens become bookmarks. One file each, one protocol; `make_policy` picks by a session's spec."""

from memsvc.errors import InvalidRequest
from memsvc.policy.base import LOOKBACK_TOKENS, Decision, Policy
from memsvc.policy.every import EveryPolicy
from memsvc.policy.fixed import FixedPolicy
from memsvc.policy.surprisal import SurprisalPolicy
from protos.memsvc.v1 import types_pb2 as wire

__all__ = ["LOOKBACK_TOKENS", "Decision", "Policy", "make_policy"]


def make_policy(spec: wire.PolicySpec) -> Policy:
    """A fresh policy as specified.

    Raises:
        InvalidRequest: The kind is unknown, or its setting is out of range.
    """
    if spec.kind == wire.POLICY_KIND_EVERY:
        return EveryPolicy()
    if spec.kind == wire.POLICY_KIND_FIXED:
        if spec.every_tokens < 1:
            raise InvalidRequest(f"expected policy.every_tokens of at least 1, got {spec.every_tokens}")
        return FixedPolicy(spec.every_tokens)
    if spec.kind == wire.POLICY_KIND_SURPRISAL:
        if not 0 < spec.coverage <= 1:
            raise InvalidRequest(f"expected policy.coverage in (0, 1], got {spec.coverage}")
        return SurprisalPolicy(spec.coverage)
    raise InvalidRequest(f"expected policy.kind EVERY, FIXED or SURPRISAL, got {spec.kind}")
