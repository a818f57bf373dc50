"""FlexAttention as a second oracle of the same sum."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from attn_kernels import flex, reference
from tests.kernel.bounds import assert_within_bound
from tests.kernel.cases import Layout, request

LAYOUTS = (
    Layout(queries=1, rows=((64, 64, 20),)),
    Layout(heads=6, kv_heads=2, queries=70, rows=((64, 0, 64, 12), (33,))),
    Layout(heads=2, kv_heads=2, queries=5, rows=((64,), ())),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_flex_attention_and_reference_are_one_sum(layout: Layout) -> None:
    """Proves in float64 that score_mod and mask_mod say what the reference computes, empty sums included."""
    made = request(layout)
    want, got = reference.attend(made, torch.float64), flex.attend(made, torch.float64)
    # Sums of at most 256 terms near 1, each within 2^-53.
    assert (got.out - want.out).abs().max().item() < 512 * 2.0**-53
    unseen = want.lse == -torch.inf
    assert torch.equal(got.lse == -torch.inf, unseen)
    assert (got.lse - want.lse).masked_fill(unseen, 0).abs().max().item() < 512 * 2.0**-53


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("queries", [1, 70])
def test_compiled_flex_attention_is_the_same_sum(queries: int) -> None:
    """Proves that the baseline which is timed computes what the kernel does, in half precision."""
    made = request(Layout(heads=6, kv_heads=2, queries=queries, rows=((64, 64, 64, 12),)), torch.bfloat16)
    compiled = torch.compile(flex_attention, dynamic=False)
    assert_within_bound(flex.attend(made, torch.bfloat16, compiled), made)
