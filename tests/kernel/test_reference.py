"""The eager oracle against a softmax written out key by key."""

import math

import pytest
import torch

from attn_kernels import reference
from attn_kernels.records import PAGE_TOKENS, Request
from tests.kernel.bounds import assert_within_bound
from tests.kernel.cases import Layout, request, run


def _turned(x: torch.Tensor, position: int, made: Request) -> torch.Tensor:
    """Rotation by complex multiplication of the pairs (d, d + D / 2)."""
    half = x.shape[-1] // 2
    angle = torch.complex(made.rope.cos[position, :half].double(), made.rope.sin[position, :half].double())
    turned = torch.complex(x[:half].double(), x[half:].double()) * angle
    return torch.cat((turned.real, turned.imag))


def _written_out(made: Request, batch: int, head: int, index: int) -> tuple[torch.Tensor, float]:
    """Output and lse of one query, float64, by a loop over its keys."""
    table, at = made.table, int(made.position[batch, index])
    kv_head = head // (made.query.shape[1] // made.pages.keys.shape[1])
    query = _turned(made.query[batch, head, index], at, made)
    scores, values = [], []
    for entry in range(table.page.shape[1]):
        for slot in range(min(PAGE_TOKENS, int(table.tokens[batch, entry]))):
            key_at, page = int(table.position[batch, entry]) + slot, int(table.page[batch, entry])
            if key_at <= at:
                key = _turned(made.pages.keys[page, kv_head, slot], key_at, made)
                bias = float(made.alpha[head]) * float(table.bias[batch, entry])
                scores.append(made.scale * float(query @ key) + bias)
                values.append(made.pages.values[page, kv_head, slot].double())
    lse = math.log(math.fsum(map(math.exp, scores)))
    out = sum(math.exp(score - lse) * value for score, value in zip(scores, values, strict=True))
    assert isinstance(out, torch.Tensor)
    return out, lse


def test_float64_oracle_equals_a_softmax_written_out_key_by_key() -> None:
    """Proves the oracle's rotation, bias, grouping and masks, on queries within, between and after the entries."""
    made = request(Layout(heads=4, kv_heads=2, queries=70, rows=((64, 30, 9), (17,))))
    state = reference.attend(made, torch.float64)
    for batch in range(2):
        for head, index in ((0, 69), (1, 40), (2, 64), (3, 69)):
            out, lse = _written_out(made, batch, head, index)
            # Angles agree to the last bit, so what is left is float64 rounding of about 150 terms near 1.
            assert (state.out[batch, head, index] - out).abs().max().item() < 1e-13
            assert abs(state.lse[batch, head, index].item() - lse) < 1e-13


def test_rotated_scores_depend_on_distance_alone() -> None:
    """Proves that shifting all packed positions by one amount changes nothing but rounding."""
    near = request(Layout(rows=((64, 5),)))
    far = request(Layout(rows=((64, 5),)))
    shift = 40
    far.table.position.add_(shift)
    far.position.add_(shift)
    one, other = reference.attend(near, torch.float64), reference.attend(far, torch.float64)
    # Angles are float32: 2^-24 each, times at most 64 terms.
    assert (one.out - other.out).abs().max().item() < 64 * 2.0**-24


def test_query_without_visible_keys_gives_zero_and_minus_infinity() -> None:
    """Proves the value of an empty sum, for a query before all keys and for a row without entries."""
    made = request(Layout(rows=((64,), ())))
    made.table.position[0] += 6
    made.position[0] = torch.arange(4, 9)
    state = reference.attend(made, torch.float64)
    assert torch.equal(state.lse == -torch.inf, (made.position < 6)[:, None].expand(2, 3, 5) | _second_row(state.lse))
    assert torch.equal(state.out[state.lse == -torch.inf].unique().cpu(), torch.zeros(1, dtype=torch.float64))


def _second_row(lse: torch.Tensor) -> torch.Tensor:
    return (torch.arange(2, device=lse.device) == 1)[:, None, None].expand_as(lse)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_low_precision_reference_stays_within_its_bound(dtype: torch.dtype) -> None:
    """Proves that the public reference is the eager computation that the fused kernel is measured by."""
    from attn_kernels import Impl

    made = request(Layout(rows=((64, 64, 20),)), dtype)
    state = run(made, Impl.REFERENCE)
    assert state.out.dtype == dtype
    assert state.lse.dtype == torch.float32
    assert_within_bound(state, made)


def test_position_past_the_tables_raises_in_the_reference() -> None:
    """Proves that the reference does not answer for a position that the tables do not cover."""
    made = request(Layout())
    made.position[0, -1] = made.rope.cos.shape[0]
    if made.query.is_cuda:
        pytest.skip("a device-side assertion ends the process's CUDA context")
    with pytest.raises(IndexError):
        reference.attend(made)
