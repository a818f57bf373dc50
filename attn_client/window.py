"""Where tokens sit: positions in the stream, blocks, ring slots and packed positions. Pure functions of integers.

A row that has read n tokens keeps, of positions [0, n):

    [0, sinks)            sinks, never evicted
    [sinks, start)        left the window; in the memory server as blocks, recalled when asked for
    [start, n)            window, start = window_start(n): whole blocks leave, so it holds window .. window + 63 tokens

The server computes the same window_start (memsvc.geometry); tests hold the two together.
"""

from dataclasses import dataclass

from attn_client.settings import BLOCK_TOKENS, Settings

# Packed positions are shifted by a multiple of this, so that keys in the window are rotated once and not at every
# step; relative positions, all that rotary attention sees, are unchanged.
FRAME_TOKENS = 4096


@dataclass(frozen=True)
class Geometry:
    """Sizes in tokens and slots that a row's device memory is laid out by."""

    sink_tokens: int
    window_tokens: int
    chunk_tokens: int
    budget_blocks: int
    packed: bool

    @classmethod
    def of(cls, settings: Settings) -> "Geometry":
        """Geometry that the settings ask for."""
        window, recall = settings.window, settings.recall
        packed = recall.positions == "packed"
        return cls(window.sink_tokens, window.window_tokens, window.chunk_tokens, recall.budget_blocks, packed)

    @property
    def sink_blocks(self) -> int:
        """Slots that hold the sinks."""
        return self.sink_tokens // BLOCK_TOKENS

    @property
    def ring_blocks(self) -> int:
        """Slots that a full window and one chunk, neither of them aligned, may touch."""
        return (self.window_tokens + BLOCK_TOKENS + self.chunk_tokens) // BLOCK_TOKENS + 2

    @property
    def slots(self) -> int:
        """All slots of a row: sinks, ring, recalled."""
        return self.sink_blocks + self.ring_blocks + self.budget_blocks

    @property
    def recalled_slot(self) -> int:
        """First slot of the recalled blocks."""
        return self.sink_blocks + self.ring_blocks

    def window_start(self, tokens: int) -> int:
        """First position in the window once `tokens` have been read."""
        return max(self.sink_tokens, BLOCK_TOKENS * ((tokens - self.window_tokens) // BLOCK_TOKENS))

    def slot_of_block(self, block: int) -> int:
        """Slot of a sink or window block."""
        return block if block < self.sink_blocks else self.sink_blocks + block % self.ring_blocks

    def frame(self, start: int) -> int:
        """Shift of all packed positions while the window starts at `start`; a function of position alone."""
        return start % FRAME_TOKENS if self.packed else 0

    def window_position(self, position: int, start: int) -> int:
        """Where a window token is rotated to, in the frame of a window that starts at `start`."""
        if not self.packed:
            return position
        base = self.sink_tokens + self.budget_blocks * BLOCK_TOKENS
        return self.frame(start) + base + position - start

    def sink_position(self, position: int, start: int) -> int:
        """Where a sink token is rotated to."""
        return self.frame(start) + position if self.packed else position

    def recalled_position(self, order: int, block: int, start: int) -> int:
        """Where the first token of a recalled block is rotated to; `order` is its rank among the recalled."""
        if not self.packed:
            return block * BLOCK_TOKENS
        return self.frame(start) + self.sink_tokens + order * BLOCK_TOKENS

    @property
    def table_tokens(self) -> int:
        """Length of the rotary table that covers every packed position in every frame."""
        window = self.window_tokens + BLOCK_TOKENS + self.chunk_tokens
        return FRAME_TOKENS + self.sink_tokens + self.budget_blocks * BLOCK_TOKENS + window
