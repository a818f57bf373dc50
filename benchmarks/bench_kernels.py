"""The fused kernels against FlexAttention and SDPA, on one GPU, in one run: misses are printed as they are.

    alone      decode from pages against SDPA over a contiguous, rotated copy, batch 1, 2K resident
    whole      table, rotation and attention against gathering, rotation, mask and compiled FlexAttention, the better of
               compiled as one and in parts; and against gathering and SDPA with a mask of biases
    training   forward and backward against compiled FlexAttention alone, which is given keys rotated
    batched    64 rows of 16K and 4K resident in one launch, as a share of the measured bandwidth of reading

One figure is microseconds a layer, the median over replays of a CUDA graph of several layers ("graph"), or over single
calls, the host's share included ("called"). A rival that cannot be captured has no figure of the first kind, and it is
said why. A backward pass is forward and backward less forward. Results are compared before they are timed.

    python -m benchmarks.bench_kernels [--json FILE] [--parts alone,whole-1-8192]
"""

import argparse
import json
import math
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import triton
from torch import Tensor

from attn_kernels import Pages, Request
from benchmarks import kernel_cases as cases
from benchmarks.kernel_cases import Attend, Sizes

MODELS = ((9, 3, 64), (32, 8, 128))
CHUNK_TOKENS = 512
RESIDENT_TOKENS = (8192, 32768, 131072)
# Largest difference from a rival over the largest magnitude of an output: both round keys, weights and outputs to
# bfloat16 (2^-8 each), and SDPA rounds angles and biases (at most 4) too.
DIFFERENCE_MAX = 16 * 2.0**-8


@dataclass(frozen=True)
class Figure:
    """One comparison: microseconds a layer of the kernel and of a rival, and how many times faster it has to be.

    `timed` is "graph" or "called". For bandwidth, `rival_us` is how long reading the same bytes takes.
    """

    part: str
    sizes: str
    rival: str
    fused_us: float
    rival_us: float
    goal: float
    timed: str

    @property
    def times_faster(self) -> float:
        """Rival over fused."""
        return self.rival_us / self.fused_us


def main() -> None:
    """Measure the parts, print a table, and write it as JSON if asked to."""
    parts: dict[str, Callable[[], Sequence[Figure]]] = {
        "alone": alone,
        "batched": batched,
        "training": training,
    }
    for resident in RESIDENT_TOKENS:
        for queries in (1, CHUNK_TOKENS):
            parts[f"whole-{queries}-{resident}"] = partial(whole, queries, resident)
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--json", type=Path, help="file for the figures and the versions they hold for")
    arguments.add_argument("--parts", default=",".join(parts), help="which parts, with commas")
    chosen = arguments.parse_args()
    about = {
        "device": torch.cuda.get_device_name(0),
        "driver": _driver(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "dtype": "bfloat16",
        "seeds": [cases.SEED],
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    figures: list[Figure] = []
    for part in chosen.parts.split(","):
        started = time.monotonic()
        figures += parts[part]()
        print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)
        if chosen.json:
            rows = [{name: _number(value) for name, value in _fields(figure).items()} for figure in figures]
            chosen.json.write_text(json.dumps(about | {"figures": rows}, indent=2) + "\n")


def alone() -> list[Figure]:
    """Decode of batch 1 with 2K resident: at most 1.5 times as long as SDPA over a contiguous copy."""
    made = []
    for model in MODELS:
        sizes = Sizes(*model, queries=1, resident=2048)
        held = cases.layers(sizes, 16)
        ready = [cases.alone(layer) for layer in held]
        rival = _graph(cases.sdpa_alone, ready)
        made.append(
            _told(Figure("alone", str(sizes), "SDPA contiguous", _graph(cases.fused, held), rival, 0.667, "graph"))
        )
    return made


def batched() -> list[Figure]:
    """64 rows in one launch, in bfloat16 and in 8 bits: at least 85 % of the bandwidth of reading."""
    bytes_per_us = _read_bandwidth()
    made = []
    for model in MODELS:
        for resident in (16384, 4096):
            sizes = Sizes(*model, queries=1, resident=resident, batch=64)
            held = cases.layers(sizes, 1 if resident > 4096 else 2)
            elements = 2 * sizes.kv_heads * sizes.dim * resident * sizes.batch
            # Keys and values alone: angles are read too, but all rows and heads share them.
            floor = 2 * elements / bytes_per_us
            made.append(
                _told(Figure("batched", str(sizes), "reading", _graph(cases.fused, held), floor, 0.85, "graph"))
            )
            for dtype in (torch.int8, torch.float8_e4m3fn):
                small = [cases.eight_bits(layer, dtype) for layer in held]
                name = f"reading {str(dtype).removeprefix('torch.')}"
                made.append(
                    _told(Figure("batched", str(sizes), name, _graph(cases.fused, small), floor / 2, 0.85, "graph"))
                )
    return made


def training() -> list[Figure]:
    """Forward and backward over whole sequences, against FlexAttention alone."""
    made = []
    for model, batch in zip(MODELS, (4, 2), strict=True):
        sizes = Sizes(*model, queries=4096, resident=4096, batch=batch)
        torch.compiler.reset()
        request = cases.layers(sizes, 1)[0]
        ready = cases.alone(request)
        rival = cases.flex_alone(request)
        _compare(cases.fused(request), rival(ready), DIFFERENCE_MAX)
        for timed, time_of in (("graph", _graph), ("called", _called)):
            pairs = {
                "forward": (1.3, time_of(cases.fused, [request]), time_of(rival, [ready])),
                "backward": (1.0, _backward(time_of, cases.fused, request), _backward(time_of, rival, ready)),
            }
            for name, (goal, ours, theirs) in pairs.items():
                figure = Figure(f"training {name}", str(sizes), "FlexAttention alone", ours, theirs, goal, timed)
                made.append(_told(figure))
    return made


def whole(queries: int, resident: int) -> list[Figure]:
    """Decode or a chunk, end to end."""
    made = []
    for model in MODELS:
        # The mask of biases of the longest chunk would take gigabytes.
        masked = queries == 1 or resident <= 32768
        made += _whole(Sizes(*model, queries=queries, resident=resident), masked)
    return made


def _whole(sizes: Sizes, masked: bool) -> list[Figure]:
    # What was compiled for other sizes counts against a limit.
    torch.compiler.reset()
    held = cases.layers(sizes, 4)
    want = cases.fused(held[0])
    ours = {"graph": _graph(cases.fused_with_table, held), "called": _called(cases.fused_with_table, held)}
    rivals: dict[str, dict[str, float]] = {}
    choices = [("FlexAttention as one", cases.flex_end_to_end), ("FlexAttention in parts", cases.flex_in_parts)]
    for name, make in choices:
        attend = make()
        _compare(want, attend(held[0]), DIFFERENCE_MAX)
        rivals[name] = {"called": _called(attend, held), "graph": _graph(attend, held)}
    made = []
    for timed in ours:
        best = min(rivals, key=lambda name: (math.isnan(rivals[name][timed]), rivals[name][timed]))
        made.append(Figure("whole", str(sizes), best, ours[timed], rivals[best][timed], 2.0, timed))
    if masked:
        _compare(want, cases.gather_and_sdpa(held[0]), DIFFERENCE_MAX)
        rival = _graph(cases.gather_and_sdpa, held)
        made.append(Figure("whole", str(sizes), "gather and SDPA", ours["graph"], rival, 2.0, "graph"))
    return [_told(figure) for figure in made]


def _fields(figure: Figure) -> dict[str, str | float]:
    return asdict(figure) | {"times_faster": figure.times_faster}


def _number(value: str | float) -> str | float | None:
    """JSON knows no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _told(figure: Figure) -> Figure:
    verdict = "" if figure.times_faster >= figure.goal else "  MISS" if figure.rival_us == figure.rival_us else "  ?"
    times = f"{figure.fused_us:10.1f} {figure.rival_us:10.1f} us {figure.times_faster:6.2f} of {figure.goal:.2f}"
    print(f"{figure.part:17} {figure.sizes:32} {figure.rival:22} {figure.timed:6} {times}{verdict}", flush=True)
    return figure


def _compare(got: Tensor, want: Tensor, largest: float) -> None:
    difference = ((got - want).abs().max() / want.abs().max()).item()
    if not difference <= largest:
        raise ValueError(
            f"fused: expected the rival's output within {largest:.3g} of its largest, got {difference:.3g}"
        )


def _graph(attend: Attend, held: list[Request]) -> float:
    """Of one layer in a captured graph; NaN where it cannot be captured."""
    return _captured(lambda: [attend(layer) for layer in held]) / len(held)


def _called(attend: Attend, held: list[Request]) -> float:
    """Of one call, the host's share included."""
    return float(triton.testing.do_bench(lambda: attend(held[0]), warmup=10, rep=60, return_mode="median")) * 1000


def _backward(time_of: Callable[[Attend, list[Request]], float], attend: Attend, request: Request) -> float:
    """Forward and backward, less forward."""
    leaves = [x.detach().requires_grad_() for x in (request.query, request.pages.keys, request.pages.values)]
    held = replace(request, query=leaves[0], pages=Pages(leaves[1], leaves[2]))
    grad = torch.randn_like(attend(held))

    def both(made: Request) -> Tensor:
        return torch.autograd.grad(attend(made), leaves, grad)[0]

    return time_of(both, [held]) - time_of(attend, [held])


def _captured(run: Callable[[], object]) -> float:
    try:
        return float(triton.testing.do_bench_cudagraph(run, rep=30, return_mode="median")) * 1000
    except RuntimeError as failure:
        print(f"not captured: {str(failure).splitlines()[0]}")
        return float("nan")


def _read_bandwidth() -> float:
    """Bytes a microsecond of summing 4 GiB, the fastest of a few."""
    data = torch.randn(2**30, device="cuda")
    took_ms = min(triton.testing.do_bench(lambda: data.sum(), warmup=5, rep=40, return_mode="all"))
    bytes_per_us = data.numel() * 4 / (took_ms * 1000)
    print(f"reading: {bytes_per_us / 1e6:.2f} TB/s")
    return float(bytes_per_us)


def _driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]


if __name__ == "__main__":
    main()
