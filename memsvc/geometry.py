"""Where sinks, window and blocks lie: arithmetic on positions, the same on both sides of the wire.

Invariants:
    Block b is the positions 64 b to 64 b + 63.
    After n tokens the device holds

        [0, sink_tokens)                 sinks, never evicted
        [window_start(n), n)             window; once n is large enough, window_tokens to window_tokens + 63 of them

    and what lies between is recalled or not seen. Both bounds are multiples of 64: no block is partly sink or partly
    window.
"""

import numpy as np
import numpy.typing as npt

# Tokens of a block; also of a page on the device.
BLOCK_TOKENS = 64

Int64Array = npt.NDArray[np.int64]


def window_start(tokens: int, sink_tokens: int, window_tokens: int) -> int:
    """First position of the window once `tokens` tokens are read; `sink_tokens` while sinks and window touch."""
    return max(sink_tokens, BLOCK_TOKENS * ((tokens - window_tokens) // BLOCK_TOKENS))


def visible_blocks_end(position: int, sink_tokens: int, window_tokens: int) -> int:
    """First block that the token at `position` may not vote for: its window begins there.

    Blocks sink_tokens / 64 to the returned one, exclusive, are visible: past the sinks and wholly before the window.
    """
    return window_start(position + 1, sink_tokens, window_tokens) // BLOCK_TOKENS


def visible_blocks_ends(positions: Int64Array, sink_tokens: int, window_tokens: int) -> Int64Array:
    """`visible_blocks_end` of each of many positions, [n] to [n]."""
    return np.maximum(sink_tokens // BLOCK_TOKENS, (positions + 1 - window_tokens) // BLOCK_TOKENS)
