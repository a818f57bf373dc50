"""A session's policy, fed as tokens and their vectors come.

    tokens taken ---> wait, if the policy looks at vectors, until the centre is frozen ---> measured ---> decided

So a policy that looks at vectors decides nothing before centring, and then all of it, in order: what comes out does not
depend on how tokens were cut into steps, and on when the centre was frozen only through the centre itself.

In a replay nothing is measured: the numbers come from the log, and the policy decides again by them.

Must not know: logs, indexes. One caller at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

import numpy as np

from memsvc.errors import CorruptLog
from memsvc.policy import Decision, Measured, Offer, make_policy, needs_of
from memsvc.policy.earlier import COMPARED_BOOKMARKS, EarlierBookmarks, piece_bounds
from memsvc.session.records import Decided, StepRecord, TailRecord
from memsvc.session.steps import TokenStep
from memsvc.session.vectors import TokenRows
from memsvc.shards.base import Float32Array, Int16Array, Int64Array
from protos.memsvc.v1 import types_pb2


@dataclass(frozen=True)
class Settled:
    """What the policy decided, and the numbers that its measures gave for the tokens that it was fed."""

    decided: Decided
    measured: Measured


class Decider:
    """Feeds tokens to a policy, each once, and remembers the bookmarks that its measures look back at.

    Attributes:
        policy: Of the session's spec.
        needs: What its measures look at.
    """

    def __init__(self, spec: types_pb2.SessionSpec) -> None:
        self.policy = make_policy(spec.policy)
        self.needs = needs_of(self.policy.measures)
        stream = spec.fingerprint.streams[0]
        self._stream = stream.name
        compared = spec.policy.compared_bookmarks or COMPARED_BOOKMARKS
        self._earlier = EarlierBookmarks(stream.dims, compared) if self.needs.earlier else None
        self._waiting: list[TokenStep] = []

    def take(self, step: TokenStep) -> None:
        """Adds tokens that follow, and the gap before them."""
        self._waiting.append(step)

    def settle(self, known: TokenRows | None, record: StepRecord | TailRecord | None = None) -> Settled:
        """Decides about all that was taken.

        Args:
            known: Vectors of the tokens taken and of those shortly before; None before centring.
            record: In a replay, what was logged then.

        Raises:
            CorruptLog: What was logged are not the numbers of these tokens, or the policy decides otherwise.
        """
        if known is None and self.needs.vectors:
            return self._checked(Settled(Decided.of([]), {}), record)
        steps, self._waiting = self._waiting, []
        logged = _taken(record)
        measured = {name: values.copy() for name, values in self._room(steps, record).items()}
        decisions: list[Decision] = []
        place = 0
        for step in steps:
            if step.gap_tokens:
                decisions += self._remember(self._skip(step.first_position), known, record)
            numbers = {name: values[place : place + step.count] for name, values in measured.items()}
            whole = [step.first_position, step.end]
            # What looks at no bookmark is measured over the whole step: calls cost more than tokens.
            for offer in self._offers(step, whole, known):
                self._measure(offer, numbers, record, earlier=False)
            if self._earlier is not None and record is None:
                self._earlier.expect(*self._vectors(step.first_position, step.end, known))
            # In a replay nothing is compared with bookmarks that a piece might settle.
            pieces = whole if self._earlier is None or record is not None else piece_bounds(*whole)
            for offer in self._offers(step, pieces, known):
                first = offer.first_position - step.first_position
                own = {name: values[first : first + offer.count] for name, values in numbers.items()}
                self._measure(offer, own, record, earlier=True)
                found = self.policy.decide(offer.first_position, offer.count, {**offer.signals, **own}, logged)
                decisions += self._remember(found, known, record)
            place += step.count
        settled = self._checked(Settled(Decided.of(decisions), measured), record)
        if record is not None:
            self._remember(decisions, known, None)
        return settled

    def _measure(
        self, offer: Offer, numbers: Measured, record: StepRecord | TailRecord | None, *, earlier: bool
    ) -> None:
        """Fills in the numbers of the measures that look at earlier bookmarks, or of the others, for these tokens."""
        for measure in self.policy.measures:
            if measure.needs.earlier is not earlier:
                continue
            if record is None:
                numbers[measure.signal][:] = measure.measure(offer)
            else:
                measure.recollect(offer)

    def _skip(self, position: int) -> list[Decision]:
        for measure in self.policy.measures:
            measure.skip()
        return self.policy.skip(position)

    def _offers(self, step: TokenStep, bounds: list[int], known: TokenRows | None) -> Iterator[Offer]:
        """The step's tokens, cut at these positions."""
        for first, end in pairwise(bounds):
            if first == end:
                continue
            own = slice(first - step.first_position, end - step.first_position)
            positions, vectors = self._vectors(first, end, known)
            yield Offer(
                first_position=first,
                count=end - first,
                signals={name: values[own] for name, values in step.signals.items()},
                ids=step.ids[own],
                vectors=vectors,
                best_earlier=cache(partial(self._best_earlier, positions, vectors)),
            )

    def _vectors(self, first: int, end: int, known: TokenRows | None) -> tuple[Int64Array, Int16Array]:
        """Those of tokens `first` to `end` that are known; none for a policy that looks at none."""
        if known is None or not self.needs.vectors:
            return np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.int16)
        own = slice(*np.searchsorted(known.positions, [first, end]).tolist())
        return known.positions[own], known.rows[self._stream][own]

    def _best_earlier(self, positions: Int64Array, vectors: Int16Array) -> Float32Array:
        assert self._earlier is not None
        return self._earlier.best(positions, vectors)

    def _remember(
        self, decisions: list[Decision], known: TokenRows | None, record: StepRecord | TailRecord | None
    ) -> list[Decision]:
        """Adds new bookmarks to those looked back at; in a replay that comes last, once all is checked."""
        if self._earlier is not None and decisions and record is None:
            assert known is not None
            positions = np.array([decision.position for decision in decisions])
            self._earlier.add(positions, known.at(positions).rows[self._stream])
        return decisions

    def _room(self, steps: list[TokenStep], record: StepRecord | TailRecord | None) -> Measured:
        """Numbers of all tokens of these steps: as logged, or zeros to be filled."""
        fed = sum(step.count for step in steps)
        names = [measure.signal for measure in self.policy.measures]
        if record is None:
            return {name: np.zeros(fed, dtype=np.float32) for name in names}
        expected, got = dict.fromkeys(names, fed), {name: len(own) for name, own in record.measured.items()}
        if got != expected:
            raise CorruptLog(f"expected measured numbers of {expected}, as of the tokens fed, got {got}")
        return record.measured

    def _checked(self, settled: Settled, record: StepRecord | TailRecord | None) -> Settled:
        if isinstance(record, StepRecord) and not settled.decided.equals(record.decided):
            expected, got = record.decided.positions, settled.decided.positions
            shared = min(len(expected), len(got))
            # From where they differ on: steps in a row come as one.
            own = slice(int((expected[:shared] == got[:shared]).cumprod().sum()), None)
            raise CorruptLog(
                f"expected bookmarks at {expected[own][:8].tolist()}, as logged from step {record.seq} on, "
                f"got {got[own][:8].tolist()}"
            )
        return settled


def _taken(record: StepRecord | TailRecord | None) -> Int64Array | None:
    """Positions that a step's record says were decided, without the forced ones; None where nothing says."""
    # Arrays of other lengths are told apart once the policy has decided without them.
    if not isinstance(record, StepRecord) or len(record.decided.forced) != len(record.decided):
        return None
    return record.decided.positions[~record.decided.forced]
