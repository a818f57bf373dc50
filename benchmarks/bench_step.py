"""One decode step through gRPC on a Unix socket, at a long session: `python -m benchmarks.bench_step`.

A real server process and the real client. A session of `--tokens` tokens is read with the default settings but for the
finder, its blocks of 1 KiB with it; then `--steps` steps of one token each ask for a recall and wait for it, as with a
lag of 0. A step's time is from handing it over to having the answer, without the blocks.

Embeddings are those of `--vectors` (see `benchmarks.bench_index`), one after the other as if they were consecutive
tokens, or synthetic; surprisal is random.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attn_client.memory import MemoryClient, MemorySession, RecallAsk, StepRecord
from attn_client.session_spec import session_spec
from attn_client.settings import BookmarkSettings, RecallSettings, WindowSettings
from benchmarks.bench_finders import make_text
from benchmarks.own_session import fingerprint
from benchmarks.summary import RESULTS, ROOT, Row, cpu_name, record
from memsvc.shards.base import Float32Array

CHUNK, BLOCK, BLOCK_BYTES = 512, 64, 1024
WARM_STEPS, TIMEOUT_S = 20, 60.0
COMMAND = "python -m benchmarks.bench_step"


def main() -> None:
    """Read the session, take the steps, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--finders", nargs="+", default=[BookmarkSettings().finder])
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    rows = embeddings(chosen.vectors, chosen.tokens + WARM_STEPS + chosen.steps, chosen.seed)
    measured = {finder: steps_ms(rows, chosen.steps, finder, chosen.seed) for finder in chosen.finders}
    results = []
    for finder, (times, status) in measured.items():
        p50, p99 = float(np.median(times)), float(np.quantile(times, 0.99))
        print(f"{finder}: {chosen.tokens} tokens, step p50 {p50:.2f} ms, p99 {p99:.2f} ms ({status})")
        name = f"a step of one token with its recall through gRPC at {chosen.tokens:,} tokens, {finder}, p50, ms"
        results.append(Row(4, name, round(p50, 3), "at most 1.5", round(p50, 3) <= 1.5, COMMAND, seeds=(chosen.seed,)))
    if chosen.record:
        report = {
            "command": COMMAND,
            "device": cpu_name(),
            "tokens": chosen.tokens,
            "seeds": [chosen.seed],
            "steps_ms": {finder: [round(own, 3) for own in times] for finder, (times, _) in measured.items()},
            "finder_status": {finder: status for finder, (_, status) in measured.items()},
        }
        (ROOT / RESULTS / "bench_step.json").write_text(json.dumps(report) + "\n")
        record(results)


def embeddings(vectors: Path | None, count: int, seed: int) -> Float32Array:
    """Rows that follow each other, float32 [count, dims]."""
    if vectors is None:
        return make_text(count, 1, seed).rows.astype(np.float32)
    with np.load(vectors) as file:
        rows = file["codes"][:count] * file["scale"][:count, None]
    if len(rows) < count:
        raise SystemExit(f"expected at least {count} rows, got {len(rows)}, in {vectors}")
    return np.asarray(rows, dtype=np.float32)


def steps_ms(rows: Float32Array, steps: int, finder: str, seed: int) -> tuple[list[float], str]:
    """Time of each step in ms, and how bookmarks were found then."""
    surprisal = np.random.default_rng(seed).gamma(2.0, 1.5, len(rows)).astype(np.float32)
    read = len(rows) - WARM_STEPS - steps
    ask = _ask()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-step-"))
        client = stack.enter_context(MemoryClient(stack.enter_context(_server(Path(folder)))))
        mark = fingerprint(rows.shape[1], CHUNK, BLOCK_BYTES)
        client.create_session("s", session_spec(mark, BookmarkSettings(finder=finder)))  # type: ignore[arg-type]
        session = client.open_writer("s", mark)
        for start in range(0, read, CHUNK):
            own = slice(start, min(read, start + CHUNK))
            session.append(_record(rows, surprisal, own, None), wait=True)
            for block in range(start // BLOCK, own.stop // BLOCK):
                session.put_block(block, np.full(BLOCK_BYTES, block % 251, dtype=np.uint8), wait=True)
        session.settle(TIMEOUT_S)
        times = [_step(session, rows, surprisal, at, ask) for at in range(read, len(rows))]
        status = client.get_session("s").finder_status
        session.close()
    return times[WARM_STEPS:], status


def _step(session: MemorySession, rows: Float32Array, surprisal: Float32Array, at: int, ask: RecallAsk) -> float:
    taken = _record(rows, surprisal, slice(at, at + 1), ask)
    # A block that got full before is in the memory before a decode step waits, as the window holds it back.
    if at % BLOCK == 0:
        session.put_block(at // BLOCK - 1, np.zeros(BLOCK_BYTES, dtype=np.uint8), wait=True)
        session.settle(TIMEOUT_S)
    begun = time.perf_counter()
    seq = session.append(taken, wait=True)
    answer = None if seq is None else session.recall(seq, TIMEOUT_S)
    spent = (time.perf_counter() - begun) * 1e3
    if answer is None or not answer.blocks:
        raise SystemExit(f"expected a recall with blocks at position {at}, got {answer}")
    return spent


def _record(rows: Float32Array, surprisal: Float32Array, own: slice, ask: RecallAsk | None) -> StepRecord:
    return StepRecord(
        first_position=own.start,
        ids=np.arange(own.start, own.stop, dtype=np.uint32),
        embeddings={"probe": rows[own]},
        signals={"surprisal": surprisal[own]},
        resident=(max(0, own.stop - WindowSettings().window_tokens) // BLOCK * BLOCK, WindowSettings().window_tokens),
        recall=ask,
    )


def _ask() -> RecallAsk:
    own = RecallSettings()
    return RecallAsk(own.top_blocks, own.neighbours, own.budget_blocks, deadline_ms=30_000)


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Address of a server process that is gone afterwards."""
    address = f"unix://{folder}/socket"
    command = [sys.executable, "-m", "memsvc.cli", "serve", "--data", str(folder / "data"), "--listen", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield address
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
