"""Top-K similarity over bookmarks on one GPU, beside a matrix product with torch.topk and FAISS's flat GPU index.

    python -m benchmarks.bench_similarity [--sizes 1000000 10000000] [--real FILE] [--json FILE]
    python -m benchmarks.bench_similarity --from FILE --record

The second form needs no GPU: it records the rows of figures that were measured elsewhere.

The data are those of benchmarks/similarity_cases.py. The truth are the best 16 of the float32 vectors, before any
rounding; agreement is the share of them found, over 64 queries. Times are medians: "graph" of
replays of a captured search, "called" of single calls with cold caches, the host's share included. Share is of the
measured bandwidth of reading, counting sketches once.
"""

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import triton
from torch import Tensor

from attn_kernels.similarity import ResidentBookmarks, allocate, append, learn_projection, nearest
from benchmarks.similarity_cases import DIMS, SEED, Chunks, K, Truth, clustered, read_real, replicated, truth_of
from benchmarks.summary import Row, record

QUERIES, GROUPS = (1, 8, 32), (256, 512)
# Projected dimensions and dtype of rows.
RESIDENT = ((256, torch.int8), (256, torch.float16), (384, torch.float16))
# The setting that is recorded: time and agreement of the same one.
WIDTH_RECORDED, ROWS_RECORDED, GROUPS_RECORDED = 256, "float16", 512
SIZE_RECORDED, MS_GOAL, AGREEMENT_GOAL = 10_000_000, 1.0, 0.95
# Bookmarks that the projection is learnt from.
SAMPLE = 65_536
COMMAND = "python -m benchmarks.bench_similarity --json benchmarks/results/bench_similarity.json"


@dataclass(frozen=True)
class Figure:
    """One method on one set of bookmarks. Times are NaN where a method was not timed so.

    Args:
        setting: Of the method, in words.
        bytes_read: Of sketches and scales, or of rows, by one search.
        share: Of the bandwidth of reading, by the time in a graph, or called where there is none.
    """

    data: str
    bookmarks: int
    queries: int
    method: str
    setting: str
    graph_ms: float
    called_ms: float
    called_p99_ms: float
    agreement: float
    bytes_read: int
    share: float


def main() -> None:
    """Measure and print, or record what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000], help="bookmarks")
    parser.add_argument("--real", type=Path, help="real bookmarks and queries, see `read_real`")
    parser.add_argument("--json", type=Path, help="file for the figures and the versions they hold for")
    parser.add_argument("--from", type=Path, dest="measured", help="figures that were measured, instead of measuring")
    parser.add_argument("--record", action="store_true", help="merge the figures into the table of all")
    chosen = parser.parse_args()
    found = json.loads(chosen.measured.read_text()) if chosen.measured else measure(chosen.sizes, chosen.real)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    if chosen.record:
        record(rows_of(found))


def measure(sizes: Sequence[int], real: Path | None) -> dict[str, object]:
    """Every figure with what it holds for, as JSON takes it."""
    about: dict[str, object] = {
        "device": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "seeds": [SEED],
    }
    bandwidth = read_bandwidth()
    about["read_gb_s"] = bandwidth / 1e9
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    sources: dict[str, Chunks] = {"clustered": clustered}
    if real is not None:
        held = read_real(real)
        about["real_rows"] = len(held.rows)
        sources["replicated"] = lambda count: replicated(held, count)
    figures: list[Figure] = []
    for name, chunks in sources.items():
        for count in sizes:
            figures += _of_data(name, count, chunks, bandwidth)
    return about | {"figures": [{k: _number(v) for k, v in asdict(figure).items()} for figure in figures]}


def rows_of(found: dict[str, object]) -> list[Row]:
    """Rows for the table: the worst of all kinds of data, at the setting that is recorded."""
    figures = found["figures"]
    assert isinstance(figures, list)
    wanted = (SIZE_RECORDED, 1, "sketches", _setting(WIDTH_RECORDED, ROWS_RECORDED, GROUPS_RECORDED))
    own = [f for f in figures if (f["bookmarks"], f["queries"], f["method"], f["setting"]) == wanted]
    if not own:
        raise SystemExit(f"expected figures of {wanted}, got none")
    ms, agreement = max(f["graph_ms"] for f in own), min(f["agreement"] for f in own)
    device = str(found["device"])
    name = f"search of {SIZE_RECORDED:,} bookmarks on one GPU"
    return [
        Row(
            4, f"{name}, ms", round(ms, 3), f"at most {MS_GOAL:g}", round(ms, 3) <= MS_GOAL, COMMAND, device, "", [SEED]
        ),
        Row(
            4,
            f"{name}, agreement",
            round(agreement, 3),
            f"at least {AGREEMENT_GOAL}",
            round(agreement, 3) >= AGREEMENT_GOAL,
            COMMAND,
            device,
            "",
            [SEED],
        ),
    ]


def read_bandwidth() -> float:
    """Bytes a second of summing 4 GiB, the fastest of a few."""
    data = torch.randn(2**30, device="cuda")
    took_ms = min(triton.testing.do_bench(lambda: data.sum(), warmup=5, rep=40, return_mode="all"))
    return float(data.numel() * 4 / (took_ms / 1000))


def _of_data(name: str, count: int, chunks: Chunks, bandwidth: float) -> Iterator[Figure]:
    """Figures of one set of bookmarks, each method by itself in memory."""
    started = time.monotonic()
    truth = truth_of(count, chunks)
    for width, dtype in RESIDENT:
        held = _resident(count, chunks, dtype, width)
        for groups in GROUPS:
            setting = _setting(width, str(dtype).removeprefix("torch."), groups)
            for queries in QUERIES:
                yield _told(_sketches(name, truth, held, (setting, groups, queries), bandwidth))
        del held
    rows = torch.cat([chunk.half() for chunk in chunks(count)][:-1])
    for queries in QUERIES:
        yield _told(_matrix(name, truth, rows, queries, bandwidth))
    del rows
    if importlib.util.find_spec("faiss") is not None:
        yield from _faiss(name, count, chunks, truth, bandwidth)
    print(f"{name} {count}: {time.monotonic() - started:.0f} s", flush=True)


def _setting(width: int, rows: str, groups: int) -> str:
    return f"{width} of {DIMS} in 4 bits, rows {rows}, {groups} groups"


def _resident(count: int, chunks: Chunks, dtype: torch.dtype, width: int) -> ResidentBookmarks:
    held: ResidentBookmarks | None = None
    for chunk in chunks(count):
        if held is None:
            held = allocate(count, DIMS, "cuda", dtype, learn_projection(chunk[:SAMPLE], width))
        if held.count < count:
            held = append(held, chunk)
    assert held is not None
    return held


def _sketches(
    name: str, truth: Truth, held: ResidentBookmarks, setting: tuple[str, int, int], bandwidth: float
) -> Figure:
    words, groups, count = setting
    asked = truth.queries[:count]

    def run() -> Tensor:
        return nearest(held, asked, K, groups=groups).index

    found = torch.cat([nearest(held, part, K, groups=groups).index for part in torch.split(truth.queries, 32)])
    bytes_read = held.count * (held.sketch.shape[1] + 4)
    return _figure((name, held.count, count, "sketches", words), run, _agreement(found, truth), bytes_read, bandwidth)


def _matrix(name: str, truth: Truth, rows: Tensor, count: int, bandwidth: float) -> Figure:
    asked = truth.queries[:count].half()

    def run() -> Tensor:
        return (asked @ rows.T).topk(K, dim=1).indices

    found = torch.cat([(part.half() @ rows.T).topk(K, dim=1).indices for part in torch.split(truth.queries, 8)])
    bytes_read = rows.numel() * rows.element_size()
    about = (name, len(rows), count, "matmul and topk", "rows float16")
    return _figure(about, run, _agreement(found, truth), bytes_read, bandwidth)


def _figure(
    about: tuple[str, int, int, str, str],
    run: Callable[[], Tensor],
    agreement: float,
    bytes_read: int,
    bandwidth: float,
) -> Figure:
    graph = float(triton.testing.do_bench_cudagraph(run, rep=20, return_mode="median"))
    called = torch.tensor(triton.testing.do_bench(run, warmup=5, rep=80, return_mode="all"))
    share = bytes_read / bandwidth * 1000 / graph
    p99 = called.quantile(0.99).item()
    return Figure(*about, graph, called.median().item(), p99, agreement, bytes_read, share)


def _faiss(name: str, count: int, chunks: Chunks, truth: Truth, bandwidth: float) -> Iterator[Figure]:
    from memsvc.shards.faiss_gpu import GpuIndexes

    index = GpuIndexes()(DIMS)
    start = 0
    for chunk in chunks(count):
        if start < count:
            index.add(chunk.cpu().numpy())
        start += len(chunk)
    asked = truth.queries.cpu().numpy()
    agreement = _agreement(torch.from_numpy(index.search(asked, K)[1]).cuda(), truth)
    bytes_read = 2 * DIMS * count
    for queries in QUERIES:
        took = []
        for _ in range(15):
            started = time.perf_counter()
            index.search(asked[:queries], K)
            took.append((time.perf_counter() - started) * 1000)
        p50, p99 = float(np.median(took[3:])), float(np.quantile(took[3:], 0.99))
        share = bytes_read / bandwidth * 1000 / p50
        yield _told(
            Figure(
                data=name,
                bookmarks=count,
                queries=queries,
                method="FAISS flat",
                setting="rows float16, from and to the host",
                graph_ms=math.nan,
                called_ms=p50,
                called_p99_ms=p99,
                agreement=agreement,
                bytes_read=bytes_read,
                share=share,
            )
        )


def _agreement(found: Tensor, truth: Truth) -> float:
    return float((found[:, :, None] == truth.best[:, None, :]).any(dim=2).double().mean().item())


def _told(figure: Figure) -> Figure:
    print(
        f"{figure.data:10} {figure.bookmarks:9} x{figure.queries:<3} {figure.method:16} {figure.setting:46} "
        f"graph {figure.graph_ms:7.3f} ms, called {figure.called_ms:7.3f} (p99 {figure.called_p99_ms:.3f}), "
        f"agreement {figure.agreement:.4f}, share {figure.share:.2f}",
        flush=True,
    )
    return figure


def _number(value: str | float) -> str | float | None:
    """JSON knows no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    main()
