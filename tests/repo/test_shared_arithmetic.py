"""What both sides compute for themselves, because they never import each other, is the same."""

import pytest

from attn_client.settings import BLOCK_TOKENS, Settings, WindowSettings
from attn_client.window import Geometry
from attn_kernels.records import PAGE_TOKENS
from memsvc import geometry


def test_a_block_has_as_many_tokens_everywhere() -> None:
    """Proves that client, server and kernels mean the same by a block."""
    assert geometry.BLOCK_TOKENS == BLOCK_TOKENS == PAGE_TOKENS


@pytest.mark.parametrize(("sinks", "window"), [(64, 64), (64, 512), (192, 128), (1024, 64)])
def test_the_window_starts_at_the_same_position_on_both_sides(sinks: int, window: int) -> None:
    """Proves that client and server agree where the window begins, from an empty session to far past the sinks."""
    client = Geometry.of(Settings(window=WindowSettings(sinks, window)))
    tokens = range(3 * (sinks + window))
    assert [client.window_start(n) for n in tokens] == [geometry.window_start(n, sinks, window) for n in tokens]
