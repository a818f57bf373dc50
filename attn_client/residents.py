"""One row's keys and values on the device: sinks, window ring and recalled blocks, in slots of 64 tokens.

Owns the pools and the plan of a pass. Invariants:
  - `keys` and `values` hold pre-rotary keys, so that a slot can be stored as a block and placed anywhere;
  - `rotated` holds the same keys at the positions in `_rotated_at`; a slot whose position changed is rotated again
    before it is read;
  - a pass writes the slots of its own tokens only; running it twice is harmless, and nothing counts as read until
    `commit`.

Knows nothing of models, servers or sessions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attn_client.settings import BLOCK_TOKENS
from attn_client.window import Geometry

UNUSED = -1


@dataclass(frozen=True)
class RowShape:
    """What a model's keys and values look like."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def block_bytes(self) -> int:
        """Bytes of one block: every layer's K and V of 64 tokens."""
        element = torch.empty((), dtype=self.dtype).element_size()
        return self.layers * 2 * self.kv_heads * BLOCK_TOKENS * self.head_dim * element


@dataclass(frozen=True)
class ResidentBlock:
    """A block to attend to, its bytes, and the bias that alpha multiplies."""

    block: int
    data: npt.NDArray[np.uint8]
    bias: float


@dataclass(frozen=True)
class Plan:
    """Where everything is in one pass over `count` tokens from position `first`. The same for every layer.

    Shapes: `written` int64 [count] flat pool offsets of the new tokens; `query_position` int64 [count];
    `slot_position` int64 [slots] of each slot's first token (UNUSED: not read); `slot_tokens` int64 [slots];
    `slot_bias` float32 [slots]; `stale` slots to rotate again; `recalled` slots that hold recalled blocks.
    """

    first: int
    count: int
    written: Tensor
    query_position: Tensor
    slot_position: npt.NDArray[np.int64]
    slot_tokens: npt.NDArray[np.int64]
    slot_bias: npt.NDArray[np.float32]
    stale: npt.NDArray[np.int64]
    recalled: slice


class Residents:
    """Device memory of one row. Not thread-safe: one pass at a time."""

    def __init__(self, shape: RowShape, geometry: Geometry) -> None:
        self.shape = shape
        self.geometry = geometry
        self.tokens = 0
        size = (shape.layers, shape.kv_heads, geometry.slots, BLOCK_TOKENS, shape.head_dim)
        self.keys = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.values = torch.zeros_like(self.keys)
        self.rotated = torch.zeros_like(self.keys)
        self._rotated_at = np.full(geometry.slots, UNUSED, dtype=np.int64)
        self._recalled: tuple[ResidentBlock, ...] = ()
        self._held_start: int | None = None
        self._slot_blocks: dict[int, int] = {}
        # Sink and window blocks that nobody has: never attended to.
        self._missing: frozenset[int] = frozenset()

    @property
    def recalled_blocks(self) -> tuple[int, ...]:
        """Blocks recalled now, ascending."""
        return tuple(recalled.block for recalled in self._recalled)

    @property
    def resident_tokens(self) -> int:
        """Tokens held on the device now: sinks, recalled and window."""
        window = max(0, self.tokens - self.window_start)
        return min(self.tokens, self.geometry.sink_tokens) + window + BLOCK_TOKENS * len(self._recalled)

    @property
    def window_start(self) -> int:
        """First position in the window now.

        A block stays until the recall that could bring it back is in force: the window begins where that recall's
        candidates end, so that no block is in neither.
        """
        start, held = self.geometry.window_start(self.tokens), self._held_start
        longest = self.geometry.chunk_tokens + BLOCK_TOKENS - 1
        return held if held is not None and start - held <= longest else start

    def copy(self) -> "Residents":
        """Residents with the same tokens and contents, on their own from here on."""
        copy = Residents(self.shape, self.geometry)
        for own, new in ((self.keys, copy.keys), (self.values, copy.values), (self.rotated, copy.rotated)):
            new.copy_(own)
        copy.tokens, copy._rotated_at = self.tokens, self._rotated_at.copy()
        copy._recalled, copy._held_start, copy._slot_blocks = self._recalled, self._held_start, dict(self._slot_blocks)
        copy._missing = self._missing
        return copy

    def commit(self, count: int) -> None:
        """The last planned pass stands: `count` more tokens have been read."""
        self.tokens += count

    def plan(self, count: int) -> Plan:
        """Place the next `count` tokens, at most the geometry's chunk."""
        if not 0 < count <= self.geometry.chunk_tokens:
            raise ValueError(f"expected 1 to {self.geometry.chunk_tokens} tokens in a pass, got {count}")
        g, first, end = self.geometry, self.tokens, self.tokens + count
        start = self.window_start
        position, tokens = self._place(start, end)
        bias = np.zeros(g.slots, dtype=np.float32)
        for order, recalled in enumerate(self._recalled):
            slot = g.recalled_slot + order
            position[slot], tokens[slot] = g.recalled_position(order, recalled.block, start), BLOCK_TOKENS
            bias[slot] = recalled.bias
        new = np.arange(first, end)
        slots = np.array([g.slot_of_block(int(block)) for block in new // BLOCK_TOKENS])
        in_slot = new % BLOCK_TOKENS
        # A slot that only gained new tokens is not stale: they are rotated as they are written.
        stale = np.flatnonzero((position != UNUSED) & (position != self._rotated_at))
        return Plan(
            first=first,
            count=count,
            written=torch.from_numpy(slots * BLOCK_TOKENS + in_slot).to(self.shape.device),
            query_position=torch.from_numpy(position[slots] + in_slot).to(self.shape.device),
            slot_position=position,
            slot_tokens=tokens,
            slot_bias=bias,
            stale=stale,
            recalled=slice(g.recalled_slot, g.recalled_slot + len(self._recalled)),
        )

    def _place(self, start: int, end: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First-token position and token count of each sink and window slot for tokens [0, end)."""
        g = self.geometry
        position = np.full(g.slots, UNUSED, dtype=np.int64)
        tokens = np.zeros(g.slots, dtype=np.int64)
        last = (end - 1) // BLOCK_TOKENS
        for block in (*range(min(g.sink_blocks, last + 1)), *range(start // BLOCK_TOKENS, last + 1)):
            if block in self._missing:
                continue
            slot, at = g.slot_of_block(block), block * BLOCK_TOKENS
            is_sink = block < g.sink_blocks
            position[slot] = g.sink_position(at, start) if is_sink else g.window_position(at, start)
            tokens[slot] = min(BLOCK_TOKENS, end - at)
        return position, tokens

    def finish(self, plan: Plan) -> None:
        """All layers ran with `plan`: its positions are now those of the rotated keys."""
        used = plan.slot_position != UNUSED
        self._rotated_at[used] = plan.slot_position[used]

    def clear_recalled(self) -> None:
        """Attend to sinks and window only from the next pass on."""
        self._recalled, self._held_start = (), None

    def set_recalled(self, blocks: Sequence[ResidentBlock], before: int) -> None:
        """Attend to these blocks from the next pass on, in place of the earlier ones.

        Args:
            blocks: At most the budget.
            before: Position that all blocks that could be recalled end at or before; the window begins there.
        """
        g = self.geometry
        ordered = sorted(blocks, key=lambda recalled: recalled.block)
        if len(ordered) > g.budget_blocks:
            raise ValueError(f"expected at most {g.budget_blocks} recalled blocks, got {len(ordered)}")
        for order, recalled in enumerate(ordered):
            if self._slot_blocks.get(order) != recalled.block:
                self._load(g.recalled_slot + order, recalled.data)
                self._slot_blocks[order] = recalled.block
        self._recalled, self._held_start = tuple(ordered), before

    def load_block(self, block: int, data: npt.NDArray[np.uint8]) -> None:
        """Put a stored block back into its sink or window slot (a tail being opened)."""
        self._load(self.geometry.slot_of_block(block), data)

    def leave_out(self, blocks: Iterable[int]) -> None:
        """Never attend to these whole sink or window blocks: they are lost (a tail being opened)."""
        self._missing = frozenset(blocks)

    def _load(self, slot: int, data: npt.NDArray[np.uint8]) -> None:
        shape = self.shape
        if data.nbytes != shape.block_bytes:
            raise ValueError(f"expected a block of {shape.block_bytes} bytes, got {data.nbytes}")
        # A private copy: the caller's bytes may be read-only or reused.
        block = torch.from_numpy(data.copy()).view(shape.dtype)
        paged = block.view(shape.layers, 2, shape.kv_heads, BLOCK_TOKENS, shape.head_dim).to(shape.device)
        self.keys[:, :, slot] = paged[:, 0]
        self.values[:, :, slot] = paged[:, 1]
        self._rotated_at[slot] = UNUSED

    def block_bytes(self, block: int) -> npt.NDArray[np.uint8]:
        """Bytes of a sink or window block as stored: [layers, K|V, heads, 64, D]; tokens not yet read are zero."""
        slot = self.geometry.slot_of_block(block)
        paged = torch.stack((self.keys[:, :, slot], self.values[:, :, slot]), dim=1)
        filled = self.tokens - block * BLOCK_TOKENS
        if filled < BLOCK_TOKENS:
            paged[:, :, :, max(0, filled) :] = 0
        return paged.cpu().contiguous().view(torch.uint8).numpy().reshape(-1)

    def write(self, layer: int, plan: Plan, keys: Tensor, values: Tensor) -> None:
        """Store a pass's own keys (pre-rotary) and values, each [kv heads, count, D], in one layer."""
        self._flat(self.keys, layer).index_copy_(1, plan.written, keys)
        self._flat(self.values, layer).index_copy_(1, plan.written, values)

    def write_rotated(self, layer: int, plan: Plan, keys: Tensor) -> None:
        """Store a pass's own keys after rotation, [kv heads, count, D]."""
        self._flat(self.rotated, layer).index_copy_(1, plan.written, keys)

    def _flat(self, pool: Tensor, layer: int) -> Tensor:
        return pool[layer].view(self.shape.kv_heads, -1, self.shape.head_dim)
