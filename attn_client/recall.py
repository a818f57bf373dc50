"""What is recalled when: answers taken a fixed number of steps after they were asked for, and their blocks fetched.

The lag is counted in steps and never in time, so output depends on tokens and not on timing. An answer or a block that
does not come within the timeout is noted as degraded and the step goes on with what is there.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attn_client.errors import AttnClientError
from attn_client.memory import HopAsk, MemorySession, RecallAnswer, RecallAsk
from attn_client.residents import ResidentBlock
from attn_client.settings import RecallSettings

Bytes = npt.NDArray[np.uint8]

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


class LaggedRecall:
    """The recalls of one row.

    Attributes:
        answers: The newest that were used; a decode of any length keeps no more.
        prompted: What the newest prompt's last pass attended to; None if that did not come.
    """

    def __init__(self, memory: MemorySession, settings: RecallSettings) -> None:
        self._memory = memory
        self._settings = settings
        self._asked: deque[tuple[int, int]] = deque()
        self._held: OrderedDict[int, Bytes] = OrderedDict()
        self.answers: deque[RecallAnswer] = deque(maxlen=ANSWERS_KEPT)
        self.prompted: RecallAnswer | None = None
        self._missed: list[str] = []
        self._missed_more = 0

    @property
    def degraded(self) -> tuple[str, ...]:
        """What did not come: the first ones in words, the rest as a number."""
        more = (f"{self._missed_more} more recalls did not come in time",) if self._missed_more else ()
        return (*self._missed, *more)

    def ask(self) -> RecallAsk:
        """What to send with a step that wants a recall."""
        s = self._settings
        hops = HopAsk(s.hops, s.hop_blocks, s.link_half_life_tokens) if s.hops else None
        return RecallAsk(s.top_blocks, s.neighbours, s.budget_blocks, int(s.timeout_s * 1000), hops)

    def asked(self, seq: int, before: int) -> None:
        """A step that asks was sent under this sequence number, for blocks that end at or before a position."""
        self._asked.append((seq, before))

    def due(self) -> InForce | None:
        """The recall for the next decode step if an answer falls due now, else None (keep what is there)."""
        newest = None
        while len(self._asked) > self._settings.lag_tokens:
            newest = self._take(*self._asked.popleft()) or newest
        return newest

    def now(self) -> InForce | None:
        """Await every answer asked for and give the newest."""
        newest = None
        while self._asked:
            newest = self._take(*self._asked.popleft()) or newest
        self.prompted = newest.answer if newest is not None else None
        return newest

    def _miss(self, what: str) -> None:
        if len(self._missed) < MISSED_KEPT:
            self._missed.append(what)
        else:
            self._missed_more += 1

    def _take(self, seq: int, before: int) -> InForce | None:
        answer = self._memory.recall(seq, self._settings.timeout_s)
        if answer is None:
            self._miss(f"recall {seq} did not come within {self._settings.timeout_s} s")
            return None
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
