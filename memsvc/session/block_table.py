"""Which blocks of a session are stored, and where; which were dropped.

Invariants:
    A whole block's reference never changes once added, until the block is forgotten. A partial block gives way to a
    longer one or the whole.
    A block that is stored is no gap.
Must not know: bytes.
"""

import numpy as np

from memsvc.blocks import BlockRef
from memsvc.columns import Column
from memsvc.geometry import BLOCK_TOKENS
from memsvc.session.ranges import RangeSet, runs
from memsvc.shards.base import Int64Array


class BlockTable:
    """References by block.

    Attributes:
        gaps: Blocks that were dropped or forgotten.

    Concurrency: one caller at a time, but what `whole` returns stays constant.
    """

    def __init__(self) -> None:
        self.gaps = RangeSet()
        self._whole: dict[int, BlockRef] = {}
        self._partial: dict[int, BlockRef] = {}
        # Keys of `_whole`, ascending.
        self._order: Column[np.int64] = Column(np.int64)
        self._through = 0

    def __len__(self) -> int:
        return len(self._whole)

    @property
    def through(self) -> int:
        """First block that is neither stored whole nor a gap."""
        while True:
            if self._through in self._whole:
                self._through += 1
            elif (end := self.gaps.end_of_range_at(self._through)) is not None:
                self._through = end
            else:
                return self._through

    def get(self, block: int) -> BlockRef | None:
        """The whole block if it is stored, else the partial one."""
        return self._whole.get(block) or self._partial.get(block)

    def whole(self, first: int, end: int) -> Int64Array:
        """Whole blocks stored, `first` to `end`, exclusive; ascending, read-only."""
        order = self._order.view()
        low, high = np.searchsorted(order, [first, end]).tolist()
        return order[low:high]

    def add(self, ref: BlockRef) -> None:
        """Adds a block, or a longer part of one. A whole block is added once."""
        if ref.partial_tokens:
            self._partial[ref.block] = ref
            return
        assert ref.block not in self._whole, f"expected block {ref.block} once"
        order = self._order.view()
        if len(order) and ref.block < order[-1]:
            self._order = _column(np.insert(order, np.searchsorted(order, ref.block), ref.block))
        else:
            self._order.extend(np.array([ref.block]))
        self._whole[ref.block] = ref
        self._partial.pop(ref.block, None)

    def declare_gap(self, first: int, end: int) -> None:
        """Notes that the blocks `first` to `end`, exclusive, were dropped, as far as they are not stored."""
        at = first
        for stored in runs(self.whole(first, end)):
            self.gaps.add(at, stored.start)
            at = stored.stop
        self.gaps.add(at, end)

    def refs(self) -> list[BlockRef]:
        """All references, in order of block."""
        return [ref for _, ref in sorted({**self._partial, **self._whole}.items())]

    def forget(self, first: int, end: int) -> None:
        """Drops the blocks `first` to `end`, exclusive: they are gaps from now on."""
        self._whole = {block: ref for block, ref in self._whole.items() if not first <= block < end}
        self._partial = {block: ref for block, ref in self._partial.items() if not first <= block < end}
        order = self._order.view()
        self._order = _column(order[(order < first) | (order >= end)])
        self.gaps.add(first, end)

    def cut(self, position: int) -> None:
        """Forgets what holds tokens at `position` or later."""
        end, filled = divmod(position, BLOCK_TOKENS)
        self._whole = {block: ref for block, ref in self._whole.items() if block < end}
        self._partial = {
            block: ref
            for block, ref in self._partial.items()
            if block < end or (block == end and ref.partial_tokens <= filled)
        }
        self._order = _column(self.whole(0, end))
        self.gaps = self.gaps.before(-(-position // BLOCK_TOKENS))
        self._through = 0


def _column(blocks: Int64Array) -> Column[np.int64]:
    column: Column[np.int64] = Column(np.int64)
    column.extend(blocks)
    return column
