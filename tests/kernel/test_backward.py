"""Gradients of the fused kernels against the float64 oracle, and against themselves."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from attn_kernels import AttentionState, Impl, Pages, UnsupportedGradient
from attn_kernels.backward import paged_backward
from attn_kernels.quantised import dequantise, quantise
from attn_kernels.records import Request
from tests.kernel.cases import Layout, entries, request, run
from tests.kernel.gradient_bounds import assert_gradients_within_bound, gradients, upstream

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
pytestmark = pytest.mark.usefixtures("poisoned")


def _assert_gradients(made: Request) -> dict[str, torch.Tensor]:
    given = upstream(made)
    got = gradients(made, given, Impl.FUSED)
    assert_gradients_within_bound(got, made, given)
    return got


@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("queries", [1, 20])
def test_gradients_of_every_dtype_and_head_size_are_within_bound(dtype: torch.dtype, dim: int, queries: int) -> None:
    """Proves each configuration's gradients of query, keys, values, alpha and bias against float64."""
    _assert_gradients(request(Layout(queries=queries, dim=dim, rows=((64, 64, 41),)), dtype))


@pytest.mark.parametrize("group", [1, 3, 8])
@pytest.mark.parametrize("queries", [1, 63, 100])
def test_gradients_of_every_group_and_number_of_queries_are_within_bound(group: int, queries: int) -> None:
    """Proves packed heads, tiles that do not divide rows, and the causal start of each page."""
    made = request(Layout(heads=2 * group, kv_heads=2, queries=queries, rows=((64, 64, 3),)), torch.bfloat16)
    _assert_gradients(made)


def test_gradients_of_rows_of_different_lengths_are_within_bound() -> None:
    """Proves partial pages, an empty entry in the middle, absent entries and a row that sees nothing."""
    made = request(Layout(heads=6, kv_heads=2, queries=20, rows=((64, 0, 12, 9), (33,), ())), torch.float16)
    assert not bool(_assert_gradients(made)["query"][2].any())


def test_what_no_query_reads_has_gradient_zero() -> None:
    """Proves that unfilled slots, pages without entry and keys after all queries get 0 and not what memory held."""
    made = request(Layout(queries=4, rows=((64, 21),)), torch.bfloat16)
    got = _assert_gradients(made)
    filled = torch.zeros((*made.pages.keys.shape[:1], 64), dtype=torch.bool, device=made.query.device)
    for page, tokens in zip(made.table.page[0].tolist(), made.table.tokens[0].tolist(), strict=True):
        filled[page, :tokens] = True
    for name in ("keys", "values"):
        assert not bool(got[name].transpose(1, 2)[~filled].any())
    nothing = gradients(entries(made, slice(0, 0)), upstream(made), Impl.FUSED)
    assert all(not bool(gradient.any()) for gradient in nothing.values())


def test_page_named_by_several_entries_gets_the_sum_of_their_gradients() -> None:
    """Proves a page shared by two rows, at other positions and fillings, and twice by one row."""
    made = request(Layout(queries=30, rows=((64, 64, 20), (64, 40))), torch.bfloat16)
    made.table.page[1, 0] = made.table.page[0, 0]
    made.table.page[0, 1] = made.table.page[0, 0]
    made.table.tokens[1, 0] = 50
    _assert_gradients(made)


def test_gradients_are_the_same_bits_every_time() -> None:
    """Proves that sums over entries that share a page are done in a fixed order."""
    made = request(Layout(heads=8, kv_heads=2, queries=40, rows=((64, 64, 30),) * 4), torch.bfloat16)
    made.table.page[:, 0] = made.table.page[0, 0]
    given = upstream(made)
    one, two = (gradients(made, given, Impl.FUSED) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_order_of_entries_changes_no_bound_of_gradients() -> None:
    """Proves that nothing relies on entries, or queries, in order of position."""
    made = request(Layout(queries=70, rows=((64, 64, 64, 30),)), torch.bfloat16)
    order = torch.tensor([2, 3, 0, 1], device=made.query.device)
    table = replace(
        made.table,
        page=made.table.page[:, order],
        tokens=made.table.tokens[:, order],
        position=made.table.position[:, order],
        bias=made.table.bias[:, order],
    )
    _assert_gradients(replace(made, table=table, position=made.position.flip(1)))


def test_strided_tensors_and_gradients_give_the_same_bits() -> None:
    """Proves that strides of inputs and of the incoming gradient are followed."""
    made = request(Layout(heads=6, kv_heads=2, queries=5, rows=((64, 40), (64,))), torch.bfloat16)
    given = upstream(made)

    def turned(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)

    pages = Pages(turned(made.pages.keys), turned(made.pages.values))
    view = replace(made, query=turned(made.query), pages=pages)
    one = gradients(made, given, Impl.FUSED)
    two = gradients(view, AttentionState(turned(given.out), turned(given.lse)), Impl.FUSED)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_only_wanted_gradients_are_given() -> None:
    """Proves that alpha alone can be trained, over frozen pages, and gets the gradient it has among all."""
    made = request(Layout(heads=4, kv_heads=2, queries=9, rows=((64, 9),)), torch.bfloat16)
    given = upstream(made)
    alpha = made.alpha.clone().requires_grad_()
    state = run(replace(made, alpha=alpha))
    torch.autograd.backward((state.out, state.lse), (given.out, given.lse))
    assert alpha.grad is not None
    assert torch.equal(alpha.grad, gradients(made, given, Impl.FUSED)["alpha"])
    assert made.query.grad is None


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_alpha_and_queries_learn_over_quantised_pages(dtype: torch.dtype) -> None:
    """Proves gradients through dequantised pages, against those over pages that hold the same numbers."""
    made = request(Layout(heads=4, kv_heads=2, queries=9, rows=((64, 64),)), torch.float32)
    clean = Pages(made.pages.keys.nan_to_num(0), made.pages.values.nan_to_num(0))
    held = quantise(clean, dtype)
    same, given = replace(made, pages=dequantise(held)), upstream(made)
    query, alpha = made.query.clone().requires_grad_(), made.alpha.clone().requires_grad_()
    state = run(replace(made, query=query, alpha=alpha, pages=held))
    torch.autograd.backward((state.out, state.lse), (given.out, given.lse))
    assert query.grad is not None
    assert alpha.grad is not None
    got = gradients(same, given, Impl.FUSED) | {"query": query.grad, "alpha": alpha.grad}
    assert_gradients_within_bound(got, same, given)


REFUSED: dict[str, Callable[[Request], torch.Tensor]] = {
    "rope.cos": lambda made: made.rope.cos,
    "pages.key_scale": lambda made: made.pages.key_scale,  # type: ignore[union-attr]
}


@pytest.mark.parametrize("name", REFUSED)
def test_gradient_that_would_be_left_out_is_refused(name: str) -> None:
    """Proves that FUSED never passes over a tensor that wants a gradient."""
    made = request(Layout(queries=2, rows=((64,),)))
    pages = Pages(made.pages.keys.nan_to_num(0), made.pages.values.nan_to_num(0))
    made = replace(made, pages=quantise(pages, torch.int8))
    REFUSED[name](made).requires_grad_()
    with pytest.raises(UnsupportedGradient, match=f"^{name}: expected"):
        run(made)
    with torch.no_grad():
        run(made)


def test_gradient_operator_agrees_with_its_fake() -> None:
    """Proves by torch's own checks that schema and fake describe the operator, as torch.compile relies on."""
    made = request(Layout(queries=3, rows=((64, 9),)), torch.bfloat16)
    pages, table, rope = made.pages, made.table, made.rope
    columns = [table.page, table.tokens, table.position, table.bias]
    state, given = run(made), upstream(made)
    saved = [given.out, given.lse, state.out, state.lse, made.query, made.position]
    for wanted in (True, False):
        arguments = (saved, [pages.keys, pages.values], columns, [rope.cos, rope.sin], made.alpha, made.scale)
        checks = ("test_schema", "test_faketensor")
        torch.library.opcheck(paged_backward, (*arguments, wanted, wanted), test_utils=checks)


def test_compiled_training_step_is_one_graph_with_the_same_gradients() -> None:
    """Proves that torch.compile traces forward and backward without a break."""
    made = request(Layout(queries=3, rows=((64, 9),)), torch.bfloat16)
    given = upstream(made)

    def attend(query: torch.Tensor, keys: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return run(replace(made, query=query, pages=Pages(keys, made.pages.values), alpha=alpha)).out

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    found = []
    for step in (attend, compiled):
        leaves = [x.clone().requires_grad_() for x in (made.query, made.pages.keys, made.alpha)]
        step(*leaves).backward(given.out)
        found.append([leaf.grad for leaf in leaves])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
