"""Every n-th position is a bookmark: a stride, blind to the text."""

from memsvc.geometry import BLOCK_TOKENS
from memsvc.policy.base import Decision, Int64Array, Signals
from memsvc.policy.offer import Measure


class FixedPolicy:
    """Bookmarks the positions divisible by `every_tokens`, and the first token of a block that has none of them."""

    signals: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()

    def __init__(self, every_tokens: int) -> None:
        self._every_tokens = every_tokens
        # Position after the last gap; a block that begins earlier is not whole.
        self._run_start = 0

    def decide(
        self,
        first_position: int,
        count: int,
        signals: Signals,  # noqa: ARG002
        logged: Int64Array | None = None,  # noqa: ARG002
    ) -> list[Decision]:
        """Regular bookmarks at their own token, forced ones when their block's last token is fed."""
        end = first_position + count
        next_regular = -(-first_position // self._every_tokens) * self._every_tokens
        decisions = [Decision(position, 0.0, forced=False) for position in range(next_regular, end, self._every_tokens)]
        if self._every_tokens > BLOCK_TOKENS:
            decisions += [Decision(position, 0.0, forced=True) for position in self._bare_blocks(first_position, end)]
            decisions.sort(key=lambda decision: decision.position)
        return decisions

    def skip(self, position: int) -> list[Decision]:
        """Nothing ever waits; the block around the gap is forgotten."""
        self._run_start = position
        return []

    def _bare_blocks(self, first_position: int, end: int) -> list[int]:
        """First positions of the whole blocks that end in [first_position, end) and hold no regular bookmark."""
        first_block, blocks_end = first_position // BLOCK_TOKENS, end // BLOCK_TOKENS
        starts = range(first_block * BLOCK_TOKENS, blocks_end * BLOCK_TOKENS, BLOCK_TOKENS)
        return [start for start in starts if start >= self._run_start and -start % self._every_tokens >= BLOCK_TOKENS]
