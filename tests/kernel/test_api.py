"""What `paged_attention` refuses, and how it behaves as an operator of torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from attn_kernels import (
    AttentionKernelError,
    AttentionState,
    DeviceMismatch,
    Impl,
    Pages,
    Rope,
    UnsupportedDtype,
    UnsupportedShape,
    paged_attention,
)
from attn_kernels.forward.launch import paged_forward
from attn_kernels.records import Request
from tests.kernel.bounds import assert_within_bound
from tests.kernel.cases import Layout, request, run

REFUSED: dict[str, tuple[Callable[[Request], Request], type[AttentionKernelError], str]] = {
    "three axes": (lambda r: replace(r, query=r.query[0]), UnsupportedShape, "query: expected"),
    "head size": (lambda r: replace(r, query=r.query[..., :32]), UnsupportedShape, "D of 64, 128, 256, got"),
    "no query": (lambda r: replace(r, query=r.query[:, :, :0]), UnsupportedShape, "query: expected"),
    "group": (lambda r: replace(r, query=r.query[:, :3]), UnsupportedShape, "multiple of Hkv"),
    "dtype": (lambda r: replace(r, query=r.query.double()), UnsupportedDtype, "query: expected one of"),
    "keys dtype": (lambda r: _paged(r, keys=r.pages.keys.half()), UnsupportedDtype, "pages.keys: expected"),
    "page size": (lambda r: _paged(r, keys=r.pages.keys[:, :, :32]), UnsupportedShape, "pages.keys: expected"),
    "values": (lambda r: _paged(r, values=r.pages.values[1:]), UnsupportedShape, "pages.values: expected"),
    "positions": (lambda r: replace(r, position=r.position[:, 1:]), UnsupportedShape, "position: expected"),
    "position dtype": (lambda r: replace(r, position=r.position.long()), UnsupportedDtype, "int32, got torch.int64"),
    "bias": (lambda r: _tabled(r, bias=r.table.bias[:, 1:]), UnsupportedShape, "table.bias: expected"),
    "tokens": (lambda r: _tabled(r, tokens=r.table.tokens.long()), UnsupportedDtype, "table.tokens: expected"),
    "alpha": (lambda r: replace(r, alpha=r.alpha[:1]), UnsupportedShape, r"alpha: expected \(4,\)"),
    "device": (lambda r: replace(r, alpha=r.alpha.to("meta")), DeviceMismatch, "alpha: expected the query's device"),
}


def _paged(made: Request, **change: torch.Tensor) -> Request:
    return replace(made, pages=replace(made.pages, **change))


def _tabled(made: Request, **change: torch.Tensor) -> Request:
    return replace(made, table=replace(made.table, **change))


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("impl", list(Impl), ids=str)
def test_arguments_that_do_not_fit_are_refused(why: str, impl: Impl) -> None:
    """Proves that each misfit is a typed error of one line that names the argument, in both implementations."""
    change, error, message = REFUSED[why]
    with pytest.raises(error, match=message) as refusal:
        run(change(request(Layout(heads=4, kv_heads=2))), impl)
    assert "\n" not in str(refusal.value)


def test_rotary_tables_with_unequal_halves_are_refused() -> None:
    """Proves that the half which the kernel does not read is known to be equal."""
    good = request(Layout()).rope
    other = good.cos.clone()
    other[0, -1] += 1
    with pytest.raises(UnsupportedShape, match="two equal halves"):
        Rope(other, good.sin)
    with pytest.raises(UnsupportedShape, match="one shape"):
        Rope(good.cos, good.sin[1:])
    with pytest.raises(UnsupportedDtype, match="float32"):
        Rope(good.cos.half(), good.sin)


def test_fused_on_a_cpu_outside_the_interpreter_is_refused() -> None:
    """Proves in a fresh process that FUSED never falls back: compiled kernels do not take CPU tensors."""
    code = (
        "import torch, attn_kernels as k\n"
        "table = k.PageTable(*(torch.zeros(1, 1, dtype=torch.int32) for _ in range(3)), torch.zeros(1, 1))\n"
        "pages = k.Pages(torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64))\n"
        "rope = k.Rope(torch.zeros(8, 64), torch.zeros(8, 64))\n"
        "k.paged_attention(torch.zeros(1, 1, 1, 64), torch.zeros(1, 1, dtype=torch.int32), pages, table, rope,\n"
        "                  torch.zeros(1), 1.0, k.Impl.FUSED)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = "kernels"
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith("attn_kernels.errors.FusedUnavailable: impl: expected CUDA tensors")


def test_importing_the_package_imports_no_triton() -> None:
    """Proves that the reference works where triton is not installed."""
    code = "import sys, attn_kernels; assert 'triton' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": "kernels"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_operator_agrees_with_its_fake() -> None:
    """Proves by torch's own checks that schema and fake describe the operator, as torch.compile relies on."""
    made = request(Layout(queries=3, rows=((64, 9),)), torch.bfloat16)
    pages, table, rope = made.pages, made.table, made.rope
    columns = [table.page, table.tokens, table.position, table.bias]
    arguments = (made.query, made.position, [pages.keys, pages.values], columns, [rope.cos, rope.sin], made.alpha)
    torch.library.opcheck(paged_forward, (*arguments, made.scale), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("impl", list(Impl), ids=str)
def test_compiled_call_is_one_graph(impl: Impl) -> None:
    """Proves that torch.compile takes the call without a break, strided query and records included."""
    made = request(Layout(queries=3, rows=((64, 9),)), torch.bfloat16)

    def doubled(query: torch.Tensor, pages: Pages) -> AttentionState:
        attended = paged_attention(
            query.transpose(1, 2), made.position, pages, made.table, made.rope, made.alpha, made.scale, impl
        )
        return AttentionState(attended.out * 2, attended.lse)

    # The backend that traces, functionalises and runs eagerly: what is tested is the graph, not inductor.
    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    state = compiled(made.query.transpose(1, 2).contiguous(), made.pages)
    assert_within_bound(AttentionState(state.out / 2, state.lse), made)


def test_reference_passes_gradients_to_all_that_learns() -> None:
    """Proves that alpha, queries, keys and values can be trained through the reference."""
    made = request(Layout(queries=2, rows=((64, 9),)))
    learnt = (made.query, made.pages.keys, made.pages.values, made.alpha)
    for tensor in learnt:
        tensor.requires_grad_()
    run(made, Impl.REFERENCE).out.sum().backward()
    assert all(tensor.grad is not None and bool(tensor.grad.isfinite().all()) for tensor in learnt)
