"""Every token is a bookmark: the exact, costly policy that the others are measured against."""

from memsvc.policy.base import Decision, Int64Array, Signals
from memsvc.policy.offer import Measure


class EveryPolicy:
    """Makes each token a bookmark as soon as it is fed."""

    signals: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()

    def decide(
        self,
        first_position: int,
        count: int,
        signals: Signals,  # noqa: ARG002
        logged: Int64Array | None = None,  # noqa: ARG002
    ) -> list[Decision]:
        """One decision a token."""
        return [Decision(position, 0.0, forced=False) for position in range(first_position, first_position + count)]

    def skip(self, position: int) -> list[Decision]:  # noqa: ARG002
        """Nothing ever waits."""
        return []
