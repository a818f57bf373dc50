"""Attention that each key receives."""

from dataclasses import replace

import pytest
import torch

from attn_kernels import Impl, Pages, UnsupportedShape, received_mass, reference
from attn_kernels.forward.mass import received_mass as operator
from attn_kernels.quantised import dequantise, quantise
from attn_kernels.records import PAGE_TOKENS, Request
from tests.kernel.bounds import score_error
from tests.kernel.cases import Layout, entries, request, run

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
pytestmark = pytest.mark.usefixtures("poisoned")


def _assert_mass(made: Request) -> torch.Tensor:
    """Compare with float64: weights err by 2 e of their score (tests/kernel/bounds.py), sums by v each term."""
    mass = received_mass(made, run(made).lse, Impl.FUSED)
    exact = reference.received(made, torch.float64)
    eager = received_mass(made, run(made).lse, Impl.REFERENCE).double()
    terms = PAGE_TOKENS * made.table.page.shape[1] + made.query.shape[1] * made.query.shape[2] + 16
    excess = (mass - exact).abs() - (eager - exact).abs().max() - exact * (2 * score_error(made) + terms * 2.0**-24)
    assert bool((excess <= 0).all()), f"beyond by {excess.max().item():.3g}"
    return mass


@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("queries", [1, 70])
def test_mass_of_every_dtype_and_head_size_is_within_bound(dtype: torch.dtype, dim: int, queries: int) -> None:
    """Proves each configuration against the float64 oracle, over rows of different lengths."""
    _assert_mass(request(Layout(heads=6, kv_heads=2, queries=queries, dim=dim, rows=((64, 64, 20), (33,))), dtype))


def test_mass_of_a_row_is_its_heads_times_its_queries() -> None:
    """Proves that all attention of queries that see a key arrives, and none of a row that sees none."""
    made = request(Layout(heads=6, kv_heads=2, queries=9, rows=((64, 0, 12), (33,), ())))
    mass = _assert_mass(made)
    total = mass.sum(dim=(1, 2)).cpu()
    # 54 weights sums, each within 2^-24 of 1 for each of 192 keys.
    assert torch.allclose(total, torch.tensor([54.0, 54.0, 0.0]), rtol=0, atol=54 * 200 * 2.0**-24)
    slots = torch.arange(PAGE_TOKENS, device=mass.device)
    assert not bool(mass[slots >= made.table.tokens[..., None]].any())


def test_mass_over_quantised_pages_is_that_over_what_they_stand_for() -> None:
    """Proves that the second pass dequantises as the first one did."""
    made = request(Layout(heads=4, kv_heads=2, queries=9, rows=((64, 64),)), torch.bfloat16)
    held = quantise(Pages(made.pages.keys.nan_to_num(0), made.pages.values.nan_to_num(0)), torch.int8)
    same = replace(made, pages=dequantise(held))
    quantised = replace(made, pages=held)
    mass = received_mass(quantised, run(quantised).lse, Impl.FUSED)
    exact = reference.received(same, torch.float64)
    eager = reference.received(same, torch.float32, torch.bfloat16).double()
    allowed = (eager - exact).abs().max() + exact * (2 * score_error(replace(same, query=made.query)) + 200 * 2.0**-24)
    assert bool(((mass - exact).abs() <= allowed).all())


def test_mass_is_not_a_number_where_an_entry_leads_outside() -> None:
    """Proves that what cannot be read is not hidden here either."""
    made = request(Layout(queries=2))
    made.table.page[0, 1] = -1
    assert bool(received_mass(made, run(made).lse, Impl.FUSED).isnan().any())


def test_mass_without_entries_is_empty() -> None:
    """Proves the shape for a table without columns, and the refusal of an lse that does not fit."""
    made = entries(request(Layout(queries=2)), slice(0, 0))
    assert received_mass(made, run(made).lse, Impl.FUSED).shape == (1, 0, PAGE_TOKENS)
    with pytest.raises(UnsupportedShape, match="lse: expected"):
        received_mass(made, run(made).lse[:, 1:], Impl.REFERENCE)


def test_mass_operator_agrees_with_its_fake() -> None:
    """Proves by torch's own checks that schema and fake describe the operator."""
    made = request(Layout(queries=3, rows=((64, 9),)), torch.bfloat16)
    pages, table, rope = made.pages, made.table, made.rope
    columns = [table.page, table.tokens, table.position, table.bias]
    pools, tables = [pages.keys, pages.values], [rope.cos, rope.sin]
    arguments = (made.query, run(made).lse, made.position, pools, columns, tables, made.alpha, made.scale)
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
