"""One check, and the worst of several."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class State(enum.StrEnum):
    """How a check came out: a warning can be lived with, a failure cannot."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it.

    Args:
        advice: Empty where nothing has to be done.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def worst(checks: Iterable[Check]) -> State:
    """The worst state of these; OK of none."""
    states = {check.state for check in checks}
    return next((state for state in (State.FAILED, State.WARNING) if state in states), State.OK)
