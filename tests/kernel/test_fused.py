"""The fused kernel against the float64 oracle, and against itself where the result must not depend on something."""

from dataclasses import replace

import pytest
import torch

from attn_kernels import Impl, merge
from attn_kernels.forward import launch
from tests.kernel.bounds import assert_within_bound
from tests.kernel.cases import Layout, entries, mapped, request, row, run

HALVES = (torch.float16, torch.bfloat16)
pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("queries", [1, 20])
def test_every_dtype_and_head_size_is_within_bound(dtype: torch.dtype, dim: int, queries: int) -> None:
    """Proves each configuration, decode and chunk, against the float64 oracle."""
    made = request(Layout(queries=queries, dim=dim, rows=((64, 64, 41),)), dtype)
    state = run(made)
    assert state.out.dtype == dtype
    assert_within_bound(state, made)


@pytest.mark.parametrize("group", [1, 3, 8])
@pytest.mark.parametrize("queries", [1, 63, 100])
def test_every_group_and_number_of_queries_is_within_bound(group: int, queries: int) -> None:
    """Proves that packing the heads of a group into tiles that do not divide them keeps each query's own edge."""
    made = request(Layout(heads=2 * group, kv_heads=2, queries=queries, rows=((64, 64, 3),)), torch.bfloat16)
    assert_within_bound(run(made), made)


@pytest.mark.parametrize("rows", [((1,),), ((63,),), ((64,),), ((64, 0, 12),), ((5, 64, 64, 64, 64, 2),)], ids=str)
def test_every_filling_of_pages_is_within_bound(rows: tuple[tuple[int, ...], ...]) -> None:
    """Proves partial pages anywhere, nothing recalled, and an empty entry in the middle."""
    made = request(Layout(queries=2, rows=rows), torch.float16)
    assert_within_bound(run(made), made)


def test_rows_of_different_lengths_are_each_as_alone() -> None:
    """Proves that a batch changes no row, with ends of 0 to 4 entries, by comparing with each row on its own."""
    made = request(Layout(queries=3, rows=((64, 64, 64, 9), (64, 33), (), (7,))), torch.bfloat16)
    assert_within_bound(run(made), made)
    for index in range(4):
        alone = row(made, index)
        assert_within_bound(run(alone), alone)


def test_queries_before_all_keys_give_zero_and_minus_infinity() -> None:
    """Proves the empty sum beside a full one in one tile, and a table without entries."""
    made = request(Layout(queries=4, rows=((64,),)))
    made.table.position.add_(6)
    made.position.copy_(torch.tensor([[0, 5, 6, 30]]))
    assert_within_bound(run(made), made)
    nothing = run(entries(made, slice(0, 0)))
    assert nothing.out.abs().max().item() == 0
    assert bool((nothing.lse == -torch.inf).all())


def test_bytes_past_the_filled_tokens_never_matter() -> None:
    """Proves that what lies in unfilled slots, unused pages and absent entries changes no bit of the result."""
    made = request(Layout(queries=7, rows=((64, 21), (2,))), torch.bfloat16)
    other = mapped(made, lambda tensor: tensor.nan_to_num(3.0) if tensor.is_floating_point() else tensor)
    one, two = run(made), run(other)
    assert torch.equal(one.out, two.out)
    assert torch.equal(one.lse, two.lse)
    assert not bool(one.out.isnan().any())


def test_strided_inputs_give_the_same_bits() -> None:
    """Proves that strides of any order and steps of 2 are followed, as in the views that the client passes."""
    made = request(Layout(heads=6, kv_heads=2, queries=5, rows=((64, 40), (64,))), torch.bfloat16)

    def spread(tensor: torch.Tensor) -> torch.Tensor:
        turned = tensor.transpose(0, 1) if tensor.ndim > 1 else tensor
        apart = torch.stack((turned, torch.zeros_like(turned)), dim=-1)[..., 0]
        return apart.transpose(0, 1) if tensor.ndim > 1 else apart

    view = mapped(made, spread)
    assert not view.query.is_contiguous()
    assert not view.pages.keys.is_contiguous()
    one, two = run(made), run(view)
    assert torch.equal(one.out, two.out)
    assert torch.equal(one.lse, two.lse)


def test_pools_laid_out_head_first_give_the_same_bits() -> None:
    """Proves the client's own view: [heads, pages, 64, D] transposed to [pages, heads, 64, D]."""
    made = request(Layout(heads=6, kv_heads=2, rows=((64, 40),)), torch.float16)
    swapped = replace(
        made.pages,
        keys=made.pages.keys.transpose(0, 1).contiguous().transpose(0, 1),
        values=made.pages.values.transpose(0, 1).contiguous().transpose(0, 1),
    )
    assert torch.equal(run(made).out, run(replace(made, pages=swapped)).out)


def test_order_of_entries_changes_rounding_only() -> None:
    """Proves that the causal skip never drops a key when entries are not in order of position."""
    made = request(Layout(queries=70, rows=((64, 64, 64, 30),)), torch.bfloat16)
    table = made.table
    order = torch.tensor([2, 3, 0, 1], device=table.page.device)
    shuffled = replace(
        table,
        page=table.page[:, order],
        tokens=table.tokens[:, order],
        position=table.position[:, order],
        bias=table.bias[:, order],
    )
    assert_within_bound(run(replace(made, table=shuffled)), made)


@pytest.mark.parametrize("multiprocessors", [1, 3, 1000])
@pytest.mark.parametrize("queries", [1, 40])
def test_any_number_of_splits_is_within_bound(
    multiprocessors: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves the merge of splits, from one split to one an entry, with splits that have nothing to read."""
    monkeypatch.setattr(launch, "multiprocessors", lambda device: multiprocessors)
    made = request(Layout(queries=queries, rows=((64, 64, 64, 64, 64, 64, 64, 64, 10), (64, 2))), torch.bfloat16)
    assert_within_bound(run(made), made)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_keys_rotated_ahead_are_within_bound(dtype: torch.dtype, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves both ways of rotating keys, in every tile and once ahead of all, over rows of different lengths."""
    monkeypatch.setattr(launch, "turns_ahead", lambda tiling, tiles: ahead)
    made = request(Layout(heads=6, kv_heads=2, queries=50, rows=((64, 64, 20), (33,))), dtype)
    assert_within_bound(run(made), made)


@pytest.mark.parametrize("impl", list(Impl), ids=str)
def test_sharded_attention_merges_to_the_whole(impl: Impl) -> None:
    """Proves that attention over the shards of the entries merges to attention over all, in any bracketing."""
    made = request(Layout(queries=6, rows=((64, 64, 20), (64,))))
    a, b, c = (run(entries(made, slice(i, i + 1)), impl) for i in range(3))
    for merged in (merge([a, b, c]), merge([merge([a, b]), c]), merge([a, merge([b, c])]), merge([c, a, b])):
        assert_within_bound(merged, made)


@pytest.mark.parametrize("column", ["page", "position"])
def test_entry_that_leads_outside_gives_not_a_number(column: str) -> None:
    """Proves that a page outside the pools or a position outside the tables is not followed and not hidden."""
    made = request(Layout(queries=2))
    getattr(made.table, column)[0, 1] = -1 if column == "page" else -64
    assert bool(run(made).out.isnan().all())


def test_query_past_the_tables_gives_not_a_number() -> None:
    """Proves that a query's own position outside the tables spoils that query and no other."""
    made = request(Layout(queries=3))
    made.position[0, 2] = made.rope.cos.shape[0]
    wrong = run(made).out.isnan().all(dim=-1)
    assert torch.equal(wrong, torch.tensor([False, False, True], device=wrong.device).expand_as(wrong))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs 9 GB of GPU memory")
def test_pools_of_more_than_two_to_the_31_elements_are_addressed() -> None:
    """Proves 64-bit addresses: the last page of a pool of 2^31 + 2^20 elements is read from where it lies."""
    small = request(Layout(queries=2, dim=128, rows=((64, 64, 64),)), torch.float16)
    elements = 64 * 128
    pool = torch.empty(((2**31 + 2**20) // elements, 1, 64, 128), dtype=torch.float16, device="cuda")
    last = pool.shape[0] - small.pages.keys.shape[0]
    far = replace(small.table, page=small.table.page + last)
    pool[last:] = small.pages.keys
    values = pool.clone()
    values[last:] = small.pages.values
    big = replace(small, pages=replace(small.pages, keys=pool, values=values), table=far)
    assert torch.equal(run(big).out, run(small).out)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("queries", [1, 64])
def test_launch_is_captured_in_a_cuda_graph(queries: int) -> None:
    """Proves that nothing waits for the device: a captured call follows new inputs when it is replayed."""
    made = request(Layout(queries=queries, rows=((64, 64, 64, 64),)), torch.bfloat16)
    run(made)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(made)
    made.query.normal_()
    graph.replay()
    assert torch.equal(captured.out, run(made).out)
