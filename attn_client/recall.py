"""What is recalled when: answers taken a fixed number of steps after they were asked for, and their blocks fetched.

The lag is counted in steps and never in time, so output depends on tokens and not on timing. An answer or a block that
does not come within the timeout, or that cannot be, is noted as degraded; steps attend to sinks and window alone until
one comes again.
"""

import logging
import math
from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attn_client.errors import AttnClientError
from attn_client.memory import HopAsk, MemorySession, RecallAnswer, RecallAsk
from attn_client.residents import ResidentBlock
from attn_client.settings import BLOCK_TOKENS, RecallSettings

Bytes = npt.NDArray[np.uint8]

_LOGGER = logging.getLogger(__name__)

# Answers that are looked back on, and missed ones that are told one by one.
ANSWERS_KEPT = 64
MISSED_KEPT = 32


@dataclass(frozen=True)
class InForce:
    """A recall ready to attend to: its blocks, the position that its candidates end at, and the answer it came from."""

    blocks: tuple[ResidentBlock, ...]
    before: int
    answer: RecallAnswer


def biases(answer: RecallAnswer, neighbours: int, lift: float) -> dict[int, float]:
    """Bias of each recalled block, at most `lift`; alpha multiplies it in attention.

    A block counts for what the best block within `neighbours` of it counts: a passage that straddles a boundary is one
    passage, whether its other half was voted for a little, or not at all. A block that was reached along links counts
    for no less than the hit that they begin at: what is asked for led to that hit, and its words need not resemble
    those of the block, so the block may have no votes of its own.

    Args:
        lift: Bias of the best passage. What is recalled competes with a window of text that goes on in its own way;
            without a lift a small model reads its window on (docs/LOG.md).
    """
    own = {block.block: block.z for block in answer.blocks}
    begun = {block.block: own.get(block.via, block.z) for block in answer.blocks if block.reached == "hop"}
    z = {block: max(value, begun.get(block, value)) for block, value in own.items()}
    reach = range(-neighbours, neighbours + 1)
    counted = {block: max(z[block + step] for step in reach if block + step in z) for block in z}
    best = max(counted.values(), default=0.0)
    return {block: value - best + lift for block, value in counted.items()}


def what_is_wrong(answer: RecallAnswer, blocks: range, budget: int) -> str | None:
    """Why an answer cannot be one, in words; None if it can.

    Attending to it would count a token twice, look ahead, or make every score NaN.

    Args:
        blocks: Those that could be chosen: past the sinks and before the window.
    """
    numbers = [one.block for one in answer.blocks]
    outside = [block for block in numbers if block not in blocks]
    if outside:
        return f"expected blocks {blocks.start} to {blocks.stop - 1}, got {outside[0]}"
    if len(set(numbers)) < len(numbers) or len(numbers) > budget:
        return f"expected at most {budget} different blocks, got {len(numbers)}, {len(set(numbers))} of them different"
    # Of n scores none is further from their mean than sqrt(n - 1) standard deviations.
    far = [one.z for one in answer.blocks if not abs(one.z) <= math.sqrt(len(blocks))]
    return f"expected scores within {math.sqrt(len(blocks)):.1f} of their mean, got {far[0]}" if far else None


class LaggedRecall:
    """The recalls of one row.

    Attributes:
        answers: The newest that were used; a decode of any length keeps no more.
        prompted: What the newest prompt's last pass attended to; None if that did not come.
        missed: Recalls that were asked for and did not come.
        missing: Whether the newest that fell due is one of them.
    """

    def __init__(self, memory: MemorySession, settings: RecallSettings) -> None:
        self._memory = memory
        self._settings = settings
        self._asked: deque[tuple[int | None, int]] = deque()
        self._sink_blocks = memory.info.spec.fingerprint.sink_tokens // BLOCK_TOKENS
        self._held: OrderedDict[int, Bytes] = OrderedDict()
        self.answers: deque[RecallAnswer] = deque(maxlen=ANSWERS_KEPT)
        self.prompted: RecallAnswer | None = None
        self.missed = 0
        self.missing = False
        self._told: list[str] = []

    @property
    def degraded(self) -> tuple[str, ...]:
        """What did not come: the first ones in words, the rest as a number."""
        untold = self.missed - len(self._told)
        more = (f"{untold} more recalls did not come in time",) if untold else ()
        return (*self._told, *more)

    def ask(self) -> RecallAsk:
        """What to send with a step that wants a recall."""
        s = self._settings
        hops = HopAsk(s.hops, s.hop_blocks, s.link_half_life_tokens) if s.hops else None
        return RecallAsk(s.top_blocks, s.neighbours, s.budget_blocks, int(s.timeout_s * 1000), hops)

    def asked(self, seq: int | None, before: int) -> None:
        """A step that asks was sent, for blocks that end at or before a position.

        Args:
            seq: Its sequence number; None if memory did not take it, so that no answer will come.
        """
        self._asked.append((seq, before))

    def due(self) -> InForce | None:
        """The recall for the next decode step if an answer falls due now and is there, else None."""
        newest = None
        while len(self._asked) > self._settings.lag_tokens:
            newest = self._take(*self._asked.popleft(), patient=False) or newest
        return newest

    def now(self) -> InForce | None:
        """Await every answer asked for and give the newest."""
        newest = None
        while self._asked:
            newest = self._take(*self._asked.popleft(), patient=True) or newest
        self.prompted = newest.answer if newest is not None else None
        return newest

    def _miss(self, what: str) -> None:
        if not self.missing:
            _LOGGER.warning("memory is out, attending to sinks and window: %s", what)
        self.missing, self.missed = True, self.missed + 1
        if len(self._told) < MISSED_KEPT:
            self._told.append(what)

    def _take(self, seq: int | None, before: int, *, patient: bool) -> InForce | None:
        if seq is None:
            self._miss(f"a recall before position {before} was not asked for: memory did not take its step")
            return None
        answer = self._memory.recall(seq, self._settings.timeout_s, patient=patient)
        if answer is None:
            self._miss(f"recall {seq} did not come within {self._settings.timeout_s} s")
            return None
        wrong = what_is_wrong(answer, range(self._sink_blocks, before // BLOCK_TOKENS), self._settings.budget_blocks)
        if wrong is not None:
            self._miss(f"recall {seq} cannot be: {wrong}")
            return None
        found = self._fetched(seq, before, answer)
        if found is not None and self.missing:
            _LOGGER.warning("memory is back: recall %d is used", seq)
            self.missing = False
        return found

    def _fetched(self, seq: int, before: int, answer: RecallAnswer) -> InForce | None:
        """The answer with its blocks; None if they did not come."""
        wanted = biases(answer, self._settings.neighbours, self._settings.lift)
        try:
            lacking = [block for block in wanted if block not in self._held]
            self._held.update(self._memory.fetch_blocks(lacking, self._settings.timeout_s) if lacking else {})
        except AttnClientError as error:
            self._miss(f"blocks of recall {seq} did not come: {error}")
            return None
        self.answers.append(answer)
        for block in wanted:
            self._held.move_to_end(block)
        while len(self._held) > 2 * self._settings.budget_blocks:
            self._held.popitem(last=False)
        blocks = tuple(ResidentBlock(block, self._held[block], bias) for block, bias in wanted.items())
        return InForce(blocks, before, answer)
