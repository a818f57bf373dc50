"""Merging attention states."""

import pytest
import torch

from attn_kernels import AttentionState, UnsupportedShape, merge


def _state(seed: int, dtype: torch.dtype = torch.float64) -> AttentionState:
    rng = torch.Generator().manual_seed(seed)
    out = torch.randn(2, 3, 4, 8, generator=rng, dtype=dtype)
    return AttentionState(out, torch.randn(2, 3, 4, generator=rng, dtype=dtype))


def test_merge_is_associative_and_commutative() -> None:
    """Proves that shards may be merged in any order and bracketing, up to float64 rounding."""
    a, b, c = map(_state, range(3))
    want = merge([a, b, c])
    for got in (merge([merge([a, b]), c]), merge([a, merge([b, c])]), merge([b, c, a])):
        # A handful of operations on numbers near 1, each within 2^-53.
        assert (got.out - want.out).abs().max().item() < 32 * 2.0**-53
        assert (got.lse - want.lse).abs().max().item() < 32 * 2.0**-53


def test_state_without_keys_is_the_neutral_element() -> None:
    """Proves that a shard in which a query saw nothing changes nothing, and that nothing merged stays nothing."""
    state = _state(0)
    empty = AttentionState(torch.zeros_like(state.out), torch.full_like(state.lse, -torch.inf))
    assert torch.equal(merge([state, empty]).out, state.out)
    assert torch.equal(merge([empty, state]).lse, state.lse)
    both = merge([empty, empty])
    assert both.out.abs().max().item() == 0
    assert bool((both.lse == -torch.inf).all())


def test_merge_keeps_the_dtype_of_its_states() -> None:
    """Proves that half-precision outputs stay so and that their lse stays float32."""
    half = AttentionState(_state(0).out.half(), _state(0).lse.float())
    merged = merge([half, half])
    assert merged.out.dtype == torch.float16
    assert merged.lse.dtype == torch.float32


def test_merge_refuses_states_that_do_not_fit() -> None:
    """Proves that no state, and states of different sizes, are typed errors."""
    with pytest.raises(UnsupportedShape, match="got none"):
        merge([])
    other = AttentionState(torch.zeros(1, 3, 4, 8), torch.zeros(1, 3, 4))
    with pytest.raises(UnsupportedShape, match="one shape"):
        merge([_state(0), other])
