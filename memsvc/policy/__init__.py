"""Policies: which tokens become bookmarks. One file each, one protocol; `make_policy` picks by a session's spec."""

from memsvc.policy.base import LOOKBACK_TOKENS, Decision, Policy
from memsvc.policy.choice import COVERAGE_MIN, make_policy
from memsvc.policy.offer import Measure, Measured, Needs, Offer, needs_of

__all__ = [
    "COVERAGE_MIN",
    "LOOKBACK_TOKENS",
    "Decision",
    "Measure",
    "Measured",
    "Needs",
    "Offer",
    "Policy",
    "make_policy",
    "needs_of",
]
