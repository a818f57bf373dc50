"""What slow and stuck clients cost the others: `python -m benchmarks.bench_slow_clients`.

A real server process and the real client, which takes steps of one token, each with a recall that it waits for, first
alone and then beside a crowd (see `benchmarks.slow_clients`): 256 idle streams, 8 each of three kinds that never read
their answers, 32 that stopped half-way. The crowd is a process of its own, and stuck before anything is measured.
Beside the steps the server's health is asked for every 50 ms, on a channel of its own.

    p99         of a step, beside the crowd over alone; rounds alone and beside take turns with a crowd that is new each
                time, and the ratio is that of all steps of a kind
    health      the longest that a Check took beside the crowd
    memory      what the server holds more once the crowd is stuck, and how much that grows while it stays
"""

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attn_client.embedded import EmbeddedServer
from attn_client.memory import MemoryClient, MemorySession, RecallAsk, StepRecord
from attn_client.session_spec import session_spec
from attn_client.settings import BookmarkSettings, RecallSettings, WindowSettings
from benchmarks.own_session import fingerprint
from benchmarks.slow_clients import Crowd
from benchmarks.summary import RESULTS, ROOT, Row, cpu_name, record
from memsvc.shards.base import Float32Array

DIMS, CHUNK, BLOCK, BLOCK_BYTES, READ_TOKENS = 256, 512, 64, 1024, 8192
HEALTH_EVERY_S, TIMEOUT_S = 0.05, 60.0
RESULT = "bench_slow_clients.json"
COMMAND = "python -m benchmarks.bench_slow_clients"
_NAME = "good"


@dataclass
class Measured:
    """Milliseconds of steps and of health checks, and MiB that the server held, by whether the crowd was there."""

    alone_ms: list[float] = field(default_factory=list)
    beside_ms: list[float] = field(default_factory=list)
    health_alone_ms: list[float] = field(default_factory=list)
    health_beside_ms: list[float] = field(default_factory=list)
    crowd_mib: list[float] = field(default_factory=list)
    grown_mib: list[float] = field(default_factory=list)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each half of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    measured = measure(chosen.seconds, chosen.rounds, chosen.seed)
    rows = _rows(measured, chosen.seed)
    for row in rows:
        print(f"{row.name}: {row.value} ({row.goal}{'' if row.holds else ', missed'})")
    if chosen.record:
        report = {
            "command": COMMAND,
            "device": cpu_name(),
            "seconds": chosen.seconds,
            "seeds": [chosen.seed],
            "crowd": asdict(Crowd()),
            **{name: [round(own, 3) for own in values] for name, values in asdict(measured).items()},
        }
        (ROOT / RESULTS / RESULT).write_text(json.dumps(report) + "\n")
        record(rows)


def measure(seconds: float, rounds: int, seed: int) -> Measured:
    """Rounds alone and beside a crowd."""
    measured = Measured()
    with EmbeddedServer(None) as server, MemoryClient(server.address) as client:
        good = _Good(client, seed)
        good.steps(1.0)
        for _ in range(rounds):
            with _health(server.address) as spent:
                measured.alone_ms += good.steps(seconds)
                measured.health_alone_ms += spent
            before = _held_mib(server.pid)
            with _crowd(server.address):
                measured.crowd_mib.append(_held_mib(server.pid) - before)
                stuck = _held_mib(server.pid)
                with _health(server.address) as spent:
                    measured.beside_ms += good.steps(seconds)
                    measured.health_beside_ms += spent
                measured.grown_mib.append(_held_mib(server.pid) - stuck)
        good.session.close()
    return measured


def _rows(measured: Measured, seed: int) -> list[Row]:
    crowd = "256 idle streams and 56 stuck clients"
    p99 = {name: float(np.quantile(getattr(measured, name), 0.99)) for name in ("alone_ms", "beside_ms")}
    ratio = round(p99["beside_ms"] / p99["alone_ms"], 3)
    health = round(max(measured.health_beside_ms), 2)
    held = round(max(measured.crowd_mib), 1)
    print(f"a step's p99 alone {p99['alone_ms']:.2f} ms, beside {p99['beside_ms']:.2f} ms")
    print(f"health alone at most {max(measured.health_alone_ms):.2f} ms; grown while stuck {measured.grown_mib} MiB")
    return [
        Row(6, f"a step's p99 beside {crowd}, over alone", ratio, "at most 2", ratio <= 2, COMMAND, seeds=(seed,)),
        Row(6, f"health beside {crowd}, longest, ms", health, "at most 50", health <= 50, COMMAND, seeds=(seed,)),
        Row(6, f"memory held for {crowd}, MiB", held, "at most 64", held <= 64, COMMAND, seeds=(seed,)),
    ]


class _Good:
    """A writer of a session of so many tokens that goes on, a token a step."""

    def __init__(self, client: MemoryClient, seed: int) -> None:
        self._random, self._at = np.random.default_rng(seed), 0
        self._ask = _ask()
        mark = fingerprint(DIMS, CHUNK, BLOCK_BYTES)
        client.create_session(_NAME, session_spec(mark, BookmarkSettings()))
        self.session: MemorySession = client.open_writer(_NAME, mark)
        while self._at < READ_TOKENS:
            self.session.append(self._next(CHUNK, None), wait=True)
        for block in range(READ_TOKENS // BLOCK):
            self._put(block)
        self.session.settle(TIMEOUT_S)

    def steps(self, seconds: float) -> list[float]:
        """Milliseconds of each step in so many seconds."""
        spent, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            if self._at % BLOCK == 0:
                self._put(self._at // BLOCK - 1)
                self.session.settle(TIMEOUT_S)
            taken, begun = self._next(1, self._ask), time.perf_counter()
            seq = self.session.append(taken, wait=True)
            answer = None if seq is None else self.session.recall(seq, TIMEOUT_S)
            spent.append((time.perf_counter() - begun) * 1e3)
            if answer is None or not answer.blocks:
                raise SystemExit(f"expected a recall with blocks at position {self._at}, got {answer}")
        return spent

    def _next(self, count: int, ask: RecallAsk | None) -> StepRecord:
        first, self._at = self._at, self._at + count
        rows: Float32Array = self._random.standard_normal((count, DIMS)).astype(np.float32)
        window = WindowSettings().window_tokens
        return StepRecord(
            first_position=first,
            ids=np.arange(first, self._at, dtype=np.uint32),
            embeddings={"probe": rows},
            signals={"surprisal": self._random.gamma(2.0, 1.5, count).astype(np.float32)},
            resident=(max(0, self._at - window) // BLOCK * BLOCK, window),
            recall=ask,
        )

    def _put(self, block: int) -> None:
        self.session.put_block(block, np.full(BLOCK_BYTES, block % 251, dtype=np.uint8), wait=True)


def _ask() -> RecallAsk:
    own = RecallSettings()
    return RecallAsk(own.top_blocks, own.neighbours, own.budget_blocks, deadline_ms=30_000)


@contextlib.contextmanager
def _crowd(address: str) -> Iterator[None]:
    """A crowd that is stuck by now."""
    command = [sys.executable, "-m", "benchmarks.slow_clients", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "stuck\n":
            raise SystemExit("expected a crowd that is stuck, got one that ended")
        yield
        process.communicate()


@contextlib.contextmanager
def _health(address: str) -> Iterator[list[float]]:
    """Milliseconds of each Check meanwhile."""
    spent: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(service="ready"), timeout=TIMEOUT_S)
            while not ended.wait(HEALTH_EVERY_S):
                begun = time.perf_counter()
                stub.Check(health_pb2.HealthCheckRequest(service="ready"), timeout=TIMEOUT_S)
                spent.append((time.perf_counter() - begun) * 1e3)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield spent
    finally:
        ended.set()
        asking.join()


def _held_mib(pid: int) -> float:
    """Anonymous memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


if __name__ == "__main__":
    main()
