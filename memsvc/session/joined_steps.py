"""Steps of a log that follow each other, taken as one by a replay: what a step costs beside its tokens is paid once.

    STEP STEP STEP BLOCK STEP      first   first + count   ...      the same form: one gapless run of positions
    `-------- one step -----'

That changes nothing: what a session knows does not depend on how tokens were split into steps.

Must not know: states, policies, logs.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from memsvc.session.records import Decided, Entry, StepRecord
from memsvc.session.steps import TokenStep
from memsvc.session.tokens import TokenText
from memsvc.session.vectors import TokenRows
from memsvc.shards.base import Int64Array

# Tokens of a joined step at most, unless one step has more: a step of a prompt's chunk is worth joining, too.
_TOKENS_MAX = 4096


class JoinedSteps:
    """Steps that wait to be taken as one.

    Attributes:
        end: Position after the last token; 0 if there is none.
    """

    def __init__(self) -> None:
        self.end = 0
        self._steps: list[StepRecord] = []
        self._tokens = 0

    def __bool__(self) -> bool:
        return bool(self._steps)

    def fits(self, own: StepRecord) -> bool:
        """Whether a step follows those that wait as if they were one.

        Not before centring, where vectors come as they were sent, nor around gaps of blocks, which count from where
        they were declared on. Nor if its sizes differ: another step's might make up for it.
        """
        if own.kept is None or own.step.block_gaps or not _agrees(own):
            return False
        if not self._steps:
            return True
        joins = own.step.gap_tokens == 0 and own.step.first_position == self.end
        return joins and self._tokens + own.step.count <= _TOKENS_MAX and _form(own) == _form(self._steps[-1])

    def add(self, own: StepRecord) -> None:
        """Adds a step that fits."""
        self._steps.append(own)
        self._tokens += own.step.count
        self.end = own.step.end

    def take(self) -> StepRecord:
        """All that wait, at least one, as one step of the first one's number; none wait afterwards."""
        steps, self._steps, self._tokens = self._steps, [], 0
        return steps[0] if len(steps) == 1 else _joined(steps)


def _agrees(own: StepRecord) -> bool:
    """Whether there are as many numbers as tokens, and as many links as bookmarks."""
    measured = {len(values) for values in own.measured.values()}
    decided = {len(own.decided.signal), len(own.decided.forced), len(own.entry.parents)}
    return measured <= {own.step.count} and decided == {len(own.decided)}


def _form(own: StepRecord) -> tuple[bool, bool, frozenset[str], frozenset[str]]:
    """What steps must have in common, as far as their log may differ."""
    return len(own.step.ids) == 0, own.step.text is None, frozenset(own.step.signals), frozenset(own.measured)


def _joined(steps: Sequence[StepRecord]) -> StepRecord:
    first = steps[0]
    texts = [own.step.text for own in steps if own.step.text is not None]
    step = TokenStep(
        first_position=first.step.first_position,
        count=sum(own.step.count for own in steps),
        gap_tokens=first.step.gap_tokens,
        ids=np.concatenate([own.step.ids for own in steps]),
        signals={name: np.concatenate([own.step.signals[name] for own in steps]) for name in first.step.signals},
        block_gaps=(),
        tensors={},
        embeddings={},
        text=TokenText.joined(texts) if texts else None,
    )
    decided = Decided(
        np.concatenate([own.decided.positions for own in steps]),
        np.concatenate([own.decided.signal for own in steps]),
        np.concatenate([own.decided.forced for own in steps]),
    )
    return StepRecord(
        attachment=first.attachment,
        seq=first.seq,
        step=step,
        decided=decided,
        kept=_kept(steps, decided.positions),
        entry=Entry(
            np.concatenate([own.entry.parents for own in steps]), np.concatenate([own.entry.weights for own in steps])
        ),
        measured={name: np.concatenate([own.measured[name] for own in steps]) for name in first.measured},
    )


def _kept(steps: Sequence[StepRecord], decided: Int64Array) -> TokenRows:
    """The vectors that anything later needs, as a step keeps them: of the tokens decided, and of the newest.

    A step that kept fewer than it has holds as many of the newest as anyone needs.
    """
    whole_from = max(at for at, own in enumerate(steps) if at == 0 or len(_rows_of(own)) < own.step.count)
    found = [_rows_of(own) for own in steps]
    chosen = [
        np.isin(own.positions, decided) if at < whole_from else np.ones(len(own), dtype=np.bool_)
        for at, own in enumerate(found)
    ]
    bounds = np.cumsum([0, *(int(np.count_nonzero(mask)) for mask in chosen)]).tolist()
    rows = {name: np.empty((bounds[-1], own.shape[1]), dtype=own.dtype) for name, own in found[0].rows.items()}
    for own, mask, (start, end) in zip(found, chosen, pairwise(bounds), strict=True):
        for name, taken in rows.items():
            # Straight to their place: most of what a log holds passes here.
            np.compress(mask, own.rows[name], axis=0, out=taken[start:end])
    return TokenRows(np.concatenate([own.positions[mask] for own, mask in zip(found, chosen, strict=True)]), rows)


def _rows_of(own: StepRecord) -> TokenRows:
    assert own.kept is not None
    return own.kept
