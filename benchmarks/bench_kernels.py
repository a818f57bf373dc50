"""What reading through a page table costs: the fused kernel against SDPA over a contiguous copy of the same tokens.

SDPA is given what it needs for nothing: keys gathered, rotated and contiguous, queries rotated (`enable_gqa=True`).
The fused kernel starts from pages in random order, rotates keys and queries itself and adds the bias. One figure is
microseconds a layer, median over replays of a CUDA graph of 16 layers, each with pools of its own as in a model, so
that nothing is measured out of a cache that a model would not have filled. Results are compared before they are timed.

    python -m benchmarks.bench_kernels [--json FILE]
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import triton
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from attn_kernels import PAGE_TOKENS, Impl, Pages, PageTable, Rope, paged_attention

LAYERS = 16
CHUNK_TOKENS = 256
HEADS = ((9, 3, 64), (32, 8, 128))
RESIDENT_TOKENS = (2048, 8192)
# Largest difference from SDPA over the largest magnitude of an output: both round keys, weights and outputs to
# bfloat16 (2^-8 each), and SDPA's keys are rotated in float32 as the kernel's are.
DIFFERENCE_MAX = 4 * 2.0**-8


@dataclass(frozen=True)
class Measured:
    """One line of the table; times in microseconds a layer."""

    query_heads: int
    kv_heads: int
    head_dim: int
    queries: int
    resident_tokens: int
    fused_us: float
    sdpa_us: float
    sdpa_masked: bool

    @property
    def ratio(self) -> float:
        """Fused over SDPA: below 1 the kernel is faster."""
        return self.fused_us / self.sdpa_us


@dataclass(frozen=True)
class Layer:
    """One layer's inputs, for the kernel and for SDPA."""

    query: Tensor
    pages: Pages
    turned_query: Tensor
    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Shared:
    """What all layers share."""

    position: Tensor
    table: PageTable
    rope: Rope
    alpha: Tensor


def main() -> None:
    """Measure every size, print a table, and write it as JSON if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--json", type=Path, help="file for the figures and the versions they hold for")
    chosen = arguments.parse_args()
    device = torch.cuda.get_device_name(0)
    print(f"{device}, torch {torch.__version__}, triton {triton.__version__}, bfloat16")
    print("heads      queries  resident   fused us    SDPA us  ratio  rival")
    lines = []
    for heads, kv_heads, dim in HEADS:
        for queries in (1, CHUNK_TOKENS):
            for resident in RESIDENT_TOKENS:
                line = measure((heads, kv_heads, dim), queries, resident)
                lines.append(line)
                sizes = f"{heads:2}/{kv_heads} x {dim:<4} {queries:6} {resident:9}"
                rival = "-" if queries == 1 else "causal" if line.sdpa_masked else "no mask"
                print(f"{sizes} {line.fused_us:10.1f} {line.sdpa_us:10.1f} {line.ratio:6.2f}  {rival}", flush=True)
    if chosen.json:
        versions = {"device": device, "torch": torch.__version__, "triton": triton.__version__, "layers": LAYERS}
        chosen.json.write_text(json.dumps(versions | {"figures": [asdict(line) for line in lines]}, indent=2) + "\n")


def measure(heads: tuple[int, int, int], queries: int, resident: int) -> Measured:
    """One line; SDPA is the faster of causal and unmasked, where a chunk allows both."""
    shared = _shared(heads, queries, resident)
    layers = [_layer(heads, queries, resident, shared) for _ in range(LAYERS)]
    fused, masked = _fused(shared, heads[2]), _sdpa(queries, resident)
    _compare(fused(layers[0]), masked(layers[0]))
    rivals = {True: _microseconds(masked, layers)}
    if queries > 1:
        rivals[False] = _microseconds(_sdpa(1, resident), layers)
    best = min(rivals, key=lambda causal: rivals[causal])
    return Measured(*heads, queries, resident, _microseconds(fused, layers), rivals[best], best)


def _shared(heads: tuple[int, int, int], queries: int, resident: int) -> Shared:
    entries = resident // PAGE_TOKENS
    page = torch.randperm(entries, device="cuda").to(torch.int32)[None]
    start = (torch.arange(entries, device="cuda") * PAGE_TOKENS).to(torch.int32)[None]
    bias = torch.zeros(1, entries, device="cuda")
    position = torch.arange(resident - queries, resident, device="cuda", dtype=torch.int32)[None]
    frequency = 10000.0 ** -(torch.arange(0, heads[2], 2, device="cuda") / heads[2])
    angle = torch.outer(torch.arange(resident, device="cuda"), frequency).repeat(1, 2)
    table = PageTable(page, torch.full_like(page, PAGE_TOKENS), start, bias)
    return Shared(position, table, Rope(angle.cos(), angle.sin()), torch.ones(heads[0], device="cuda"))


def _layer(heads: tuple[int, int, int], queries: int, resident: int, shared: Shared) -> Layer:
    query_heads, kv_heads, dim = heads
    entries = resident // PAGE_TOKENS
    # As the client holds them: heads first.
    pools = torch.randn(2, kv_heads, entries, PAGE_TOKENS, dim, device="cuda", dtype=torch.bfloat16)
    query = torch.randn(1, query_heads, queries, dim, device="cuda", dtype=torch.bfloat16)
    keys, values = pools[:, :, shared.table.page[0].long()].reshape(2, 1, kv_heads, resident, dim)
    turned = _turned(query, shared.rope, shared.position[0].long())
    turned_keys = _turned(keys, shared.rope, torch.arange(resident, device="cuda"))
    pages = Pages(pools[0].transpose(0, 1), pools[1].transpose(0, 1))
    return Layer(query, pages, turned, turned_keys, values.contiguous())


def _turned(x: Tensor, rope: Rope, at: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    return (x.float() * rope.cos[at] + torch.cat((-second, first), dim=-1) * rope.sin[at]).to(x.dtype)


def _fused(shared: Shared, dim: int) -> Callable[[Layer], Tensor]:
    def attend(layer: Layer) -> Tensor:
        state = paged_attention(
            layer.query,
            shared.position,
            layer.pages,
            shared.table,
            shared.rope,
            shared.alpha,
            dim**-0.5,
            Impl.FUSED,
        )
        return state.out

    return attend


def _sdpa(queries: int, resident: int) -> Callable[[Layer], Tensor]:
    mask = causal_lower_right(queries, resident) if queries > 1 else None

    def attend(layer: Layer) -> Tensor:
        return scaled_dot_product_attention(
            layer.turned_query, layer.keys, layer.values, attn_mask=mask, enable_gqa=True
        )

    return attend


def _compare(got: Tensor, want: Tensor) -> None:
    difference = ((got - want).abs().max() / want.abs().max()).item()
    if not difference <= DIFFERENCE_MAX:
        raise ValueError(
            f"fused: expected SDPA's output within {DIFFERENCE_MAX:.3g} of its largest, got {difference:.3g}"
        )


def _microseconds(attend: Callable[[Layer], Tensor], layers: list[Layer]) -> float:
    def all_layers() -> None:
        for layer in layers:
            attend(layer)

    median_ms = triton.testing.do_bench_cudagraph(all_layers, rep=50, return_mode="median")
    return float(median_ms) * 1000 / len(layers)


if __name__ == "__main__":
    main()
