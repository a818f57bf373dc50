"""Bookmarks for the benchmark of top-K similarity, made on the GPU in chunks, and what is true of them.

Of 576 dimensions and length 1:
    clustered    60 topics, passages of 8 to 45 bookmarks about one, noise on each; a spectrum that falls off
    replicated   real bookmarks again and again, each with 0.3 of the difference of two others: noise of their own kind

The last chunk are queries: what such a text goes on with, at its end or about an old passage; with real bookmarks, what
a model asked with. Invariant: the same chunks come at every call with the same count.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DIMS, K, SEED = 576, 16, 0
TRUTH_QUERIES = 64
TOPICS, PASSAGE_MIN, PASSAGE_MAX = 60, 8, 46
# Of a copy of a real bookmark, against the bookmark's own length.
NOISE = 0.3
# Bookmarks made at once.
CHUNK = 100_000

# So many bookmarks, then queries.
Chunks = Callable[[int], Iterator[Tensor]]


@dataclass(frozen=True)
class Real:
    """Real bookmarks, [n, DIMS], and vectors that the model asked with, [TRUTH_QUERIES, DIMS], centred as these are."""

    rows: Tensor
    queries: Tensor


@dataclass(frozen=True)
class Truth:
    """Queries, [m, DIMS], and their best K bookmarks, [m, K]."""

    queries: Tensor
    best: Tensor


def clustered(count: int) -> Iterator[Tensor]:
    """Synthetic bookmarks, a function of the count; the last chunk, of TRUTH_QUERIES, are queries."""
    generator = torch.Generator("cuda").manual_seed(SEED)
    spectrum = (1.0 + torch.arange(DIMS, device="cuda") / 8.0).rsqrt()

    def noise(rows: int) -> Tensor:
        return torch.randn((rows, DIMS), generator=generator, device="cuda") * spectrum

    topics = noise(TOPICS)
    kept = []
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        lengths = torch.randint(
            PASSAGE_MIN, PASSAGE_MAX, (size // PASSAGE_MIN + 1,), generator=generator, device="cuda"
        )
        about = torch.randint(TOPICS, lengths.shape, generator=generator, device="cuda")
        passages = topics[about] + 0.5 * noise(len(lengths))
        own = torch.repeat_interleave(torch.arange(len(lengths), device="cuda"), lengths)[:size]
        kept += [passages[own[-1:]], passages[:1]]
        yield _unit(passages[own] + 0.6 * noise(size))
    old = torch.cat(kept[1::2])
    picked = torch.randint(len(old), (TRUTH_QUERIES // 2,), generator=generator, device="cuda")
    asked = torch.cat([kept[-2].expand(TRUTH_QUERIES // 2, -1), old[picked]])
    yield _unit(asked + 0.6 * noise(TRUTH_QUERIES))


def replicated(real: Real, count: int) -> Iterator[Tensor]:
    """Real bookmarks in their order, over and over, with noise of their own kind; then the real queries."""
    generator = torch.Generator("cuda").manual_seed(SEED)
    for start in range(0, count, CHUNK):
        index = torch.arange(start, min(start + CHUNK, count), device="cuda") % len(real.rows)
        two = torch.randint(len(real.rows), (2, len(index)), generator=generator, device="cuda")
        noise = (real.rows[two[0]] - real.rows[two[1]]) * 2**-0.5
        yield _unit(real.rows[index] + NOISE * noise)
    yield real.queries


def read_real(path: Path) -> Real:
    """Bookmarks and queries of a file: `codes` int8 [n, DIMS] and `scale` [n]; `query_codes` and `query_scale`."""
    with np.load(path) as held:
        rows, asked = (
            torch.from_numpy(held[f"{name}codes"]).cuda().float()
            * torch.from_numpy(held[f"{name}scale"]).cuda().float()[:, None]
            for name in ("", "query_")
        )
    centre = rows.mean(dim=0)
    some = torch.linspace(0, len(asked) - 1, TRUTH_QUERIES, device="cuda").long()
    return Real(_unit(rows - centre), _unit(asked[some] - centre))


def truth_of(count: int, chunks: Chunks) -> Truth:
    """The best of float32 vectors. Queries come last, so the bookmarks are made twice."""
    queries = deque(chunks(count), maxlen=1).pop()
    best = torch.full((len(queries), K), -torch.inf, device="cuda")
    index = torch.full((len(queries), K), -1, device="cuda")
    start = 0
    for chunk in chunks(count):
        if start < count:
            scores = torch.cat([best, queries @ chunk.T], dim=1)
            numbers = torch.arange(start, start + len(chunk), device="cuda").expand(len(queries), -1)
            best, place = scores.topk(K, dim=1)
            index = torch.cat([index, numbers], dim=1).gather(1, place)
        start += len(chunk)
    return Truth(queries, index)


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)
