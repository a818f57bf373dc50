"""Positions, blocks and the window."""

import numpy as np
import pytest

from memsvc.geometry import BLOCK_TOKENS, visible_blocks_end, visible_blocks_ends, window_start


@pytest.mark.parametrize(
    ("tokens", "start"), [(0, 64), (1, 64), (512, 64), (639, 64), (640, 128), (703, 128), (704, 192), (24_000, 23_488)]
)
def test_the_window_starts_where_the_table_says(tokens: int, start: int) -> None:
    """Proves the window's start at each edge, for one block of sinks and a window of 512."""
    assert window_start(tokens, sink_tokens=64, window_tokens=512) == start


@pytest.mark.parametrize(("sink_tokens", "window_tokens"), [(0, 64), (64, 512), (128, 100), (64, 1)])
def test_the_window_holds_its_tokens_and_at_most_63_more(sink_tokens: int, window_tokens: int) -> None:
    """Proves that past the sinks the window holds window_tokens to window_tokens + 63 tokens, from a whole block on."""
    for tokens in range(2000):
        start = window_start(tokens, sink_tokens, window_tokens)
        assert start % BLOCK_TOKENS == 0
        if start > sink_tokens:
            assert window_tokens <= tokens - start < window_tokens + BLOCK_TOKENS


def test_a_token_sees_no_block_of_its_own_window() -> None:
    """Proves that visible blocks end where the window begins once the token itself is read."""
    for position in range(2000):
        end = visible_blocks_end(position, sink_tokens=64, window_tokens=256)
        assert end * BLOCK_TOKENS == window_start(position + 1, sink_tokens=64, window_tokens=256)


def test_many_positions_at_once_give_what_each_gives_alone() -> None:
    """Proves that the array form equals the scalar form."""
    positions = np.arange(3000)
    alone = [visible_blocks_end(position, 128, 500) for position in range(3000)]
    assert visible_blocks_ends(positions, 128, 500).tolist() == alone
