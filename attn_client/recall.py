"""What is recalled when: answers taken a fixed number of steps after they were asked for, and their blocks fetched.

The lag is counted in steps and never in time, so output depends on tokens and not on timing. An answer or a block that
does not come within the timeout is noted as degraded and the step goes on with what is there.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attn_client.errors import AttnClientError
from attn_client.memory import MemorySession, RecallAnswer, RecallAsk
from attn_client.residents import ResidentBlock
from attn_client.settings import RecallSettings

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class InForce:
    """A recall ready to attend to: its blocks, and the position that its candidates end at."""

    blocks: tuple[ResidentBlock, ...]
    before: int


def biases(answer: RecallAnswer) -> dict[int, float]:
    """Standardised score of each recalled block below the best one's, 0 or less; alpha multiplies it in attention.

    A neighbour counts as the hit that brought it along: it holds the other half of the same passage.
    """
    z = {block.block: block.z for block in answer.blocks}
    counted = {block.block: max(block.z, z.get(block.via, block.z)) for block in answer.blocks}
    best = max(counted.values(), default=0.0)
    return {block: value - best for block, value in counted.items()}


class LaggedRecall:
    """The recalls of one row. `answers` keeps those used so far; `degraded` says what did not come."""

    def __init__(self, memory: MemorySession, settings: RecallSettings) -> None:
        self._memory = memory
        self._settings = settings
        self._asked: deque[tuple[int, int]] = deque()
        self._held: OrderedDict[int, Bytes] = OrderedDict()
        self.answers: list[RecallAnswer] = []
        self.degraded: list[str] = []

    def ask(self) -> RecallAsk:
        """What to send with a step that wants a recall."""
        s = self._settings
        return RecallAsk(s.top_blocks, s.neighbours, s.budget_blocks, int(s.timeout_s * 1000))

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
        return newest

    def _take(self, seq: int, before: int) -> InForce | None:
        answer = self._memory.recall(seq, self._settings.timeout_s)
        if answer is None:
            self.degraded.append(f"recall {seq} did not come within {self._settings.timeout_s} s")
            return None
        wanted = biases(answer)
        try:
            lacking = [block for block in wanted if block not in self._held]
            self._held.update(self._memory.fetch_blocks(lacking, self._settings.timeout_s) if lacking else {})
        except AttnClientError as error:
            self.degraded.append(f"blocks of recall {seq} did not come: {error}")
            return None
        self.answers.append(answer)
        for block in wanted:
            self._held.move_to_end(block)
        while len(self._held) > 2 * self._settings.budget_blocks:
            self._held.popitem(last=False)
        blocks = tuple(ResidentBlock(block, self._held[block], bias) for block, bias in wanted.items())
        return InForce(blocks, before)
