"""Whether a history of calls that overlapped could have been one after the other, each at some moment of its call.

The search of Wing and Gong, with states remembered as Lowe does. What changes nothing is taken as soon as its answer
follows from the state: taking it later could not help anything else, so that only changes branch.

Must not know: what the calls do.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Call(Protocol[S]):
    """A call with its answer."""

    def after(self, state: S) -> S | None:
        """The state once it took place; the very same one if it changed nothing, None if its answer is another."""


@dataclass(frozen=True)
class Operation(Generic[S]):
    """A call that began and ended.

    Args:
        client: Whose it was.
        start, end: Of one clock, each once in a history.
    """

    client: int
    start: int
    end: int
    call: Call[S]


@dataclass(frozen=True)
class Verdict(Generic[S]):
    """What was found.

    Args:
        linearizable: Whether there is an order.
        ordered: How many operations the longest one holds that was found.
        state: After these.
        stuck: The operations of which one would have to be next.
        looked_at: States.
    """

    linearizable: bool
    ordered: int
    state: S
    stuck: Sequence[Operation[S]]
    looked_at: int


@dataclass(frozen=True)
class _Place(Generic[S]):
    """How far an order got: every operation before `first` is in it, and of those after, the ones in the mask."""

    first: int
    mask: int
    state: S

    @property
    def ordered(self) -> int:
        return self.first + self.mask.bit_count()


def check(operations: Sequence[Operation[S]], start: S) -> Verdict[S]:
    """Looks for an order, from a state on."""
    history = sorted(operations, key=lambda operation: operation.start)
    best = place = _Place(0, 0, start)
    waiting: list[_Place[S]] = [place]
    seen: set[_Place[S]] = set()
    while waiting:
        place = _past_reads(history, waiting.pop())
        if place in seen:
            continue
        seen.add(place)
        if place.ordered > best.ordered or len(seen) == 1:
            best = place
        if place.first == len(history):
            return Verdict(True, place.first, place.state, (), len(seen))
        waiting += reversed([*_next(history, place)])
    return Verdict(False, best.ordered, best.state, [history[at] for at in _candidates(history, best)], len(seen))


def _candidates(history: Sequence[Operation[S]], place: _Place[S]) -> list[int]:
    """Operations that may be next: none that is not in the order ended before they began."""
    found = []
    earliest_end: int | None = None
    for at in range(place.first, len(history)):
        if place.mask >> (at - place.first) & 1:
            continue
        operation = history[at]
        if earliest_end is not None and operation.start > earliest_end:
            break
        found.append(at)
        earliest_end = operation.end if earliest_end is None else min(earliest_end, operation.end)
    return found


def _past_reads(history: Sequence[Operation[S]], place: _Place[S]) -> _Place[S]:
    """The same place, with all that changes nothing in the order."""
    while True:
        taken = next(
            (at for at in _candidates(history, place) if history[at].call.after(place.state) is place.state), None
        )
        if taken is None:
            return place
        place = _with(place, taken, place.state)


def _next(history: Sequence[Operation[S]], place: _Place[S]) -> Iterator[_Place[S]]:
    """Places with one operation more, that which ended first, first."""
    for at in sorted(_candidates(history, place), key=lambda at: history[at].end):
        after = history[at].call.after(place.state)
        if after is not None:
            yield _with(place, at, after)


def _with(place: _Place[S], at: int, state: S) -> _Place[S]:
    first, mask = place.first, place.mask | 1 << (at - place.first)
    while mask & 1:
        first, mask = first + 1, mask >> 1
    return _Place(first, mask, state)
