"""How fast can a session take tokens in, with policy, links, log and index, whatever the policy?

Inside the server: `Session.apply`, decoding and logging included, on steps made outside the clock. Through gRPC: a
server process on a Unix socket and the client's writer, from the first step to the last acknowledgement.

    tokens     synthetic passages of topics that come back (`--vectors`: real rows instead, drawn in runs, with noise)
    columns    tokens a second of the whole run and of its last quarter; CPU time a token, of all threads; share
               bookmarked; the longest step after the centre was fixed (a stall), the longest of those in which
               bookmarks were sealed and of all others, the step that fixed the centre, and bytes of log a token

Steps are the client's: of 256 tokens, so one at the goal's 20,000 tokens a second takes 12.8 ms. Run it with
OPENBLAS_NUM_THREADS=1, as private servers are: on a machine that does anything else, threads of OpenBLAS that wait for
each other take several times as long as one.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attn_client.embedded import EmbeddedServer
from attn_client.memory import MemoryClient, StepRecord
from attn_client.session_spec import session_spec
from attn_client.settings import BookmarkSettings
from benchmarks.own_session import NAME, fingerprint, new_writer, served
from benchmarks.summary import RESULTS, ROOT, Row, cpu_name, record
from protos import codec
from protos.memsvc.v1 import memory_pb2, types_pb2

DIMS = 576
STEP_TOKENS = 256
TOPICS = 300
CENTRING_TOKENS = BookmarkSettings().centring_tokens
GOAL_TOKENS_PER_S = 20_000
GOAL_STALL_MS = 50
RESULT = "bench_insertion.json"
# Seconds until a step is acknowledged at most; a benchmark that meets it has failed.
_TIMEOUT_S = 600.0
# Share of a real row's length that is added as noise each time it comes back.
_NOISE = 0.3
_HYBRID = (("surprisal", 1.0), ("novelty", 1.0), ("topic_shift", 1.0), ("rarity", 1.0))

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tokens:
    """Consecutive tokens: embeddings float32 [n, DIMS], ids uint32 [n], signals float32 [n] by name."""

    embeddings: Float32Array
    ids: npt.NDArray[np.uint32]
    signals: dict[str, Float32Array]


@dataclass(frozen=True)
class Insertion:
    """One run; `tokens_per_s_late` is of its last quarter, `stall_ms` and `p99_ms` of single steps of `step_tokens`.

    A stall is the longest step of all, `sealing_stall_ms` of those in which bookmarks were sealed, `other_stall_ms` of
    those in which none were; 0 where there was none. What is not measured through gRPC, where the server is another
    process, is 0.
    """

    policy: str
    finder: str
    through: str
    tokens: int
    tokens_per_s: float
    tokens_per_s_late: float
    cpu_us_a_token: float
    share_bookmarked: float
    stall_ms: float
    p99_ms: float
    centring_ms: float
    log_bytes_a_token: float
    sealing_stall_ms: float = 0
    other_stall_ms: float = 0
    sealing_steps: int = 0
    step_tokens: int = STEP_TOKENS
    index_every_tokens: int = 0


def main() -> None:
    """Measure each policy with each finder, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--policies", nargs="+", default=sorted(_kinds()), choices=sorted(_kinds()))
    arguments.add_argument("--finders", nargs="+", default=["flat"], help="flat, auto, hnsw, faiss, ...")
    arguments.add_argument("--tokens", type=int, default=32_768, help="of each run")
    arguments.add_argument("--coverage", type=float, default=0.15)
    arguments.add_argument("--vectors", type=Path, help="npz with codes int8 [n, 576] and scale float32 [n]")
    arguments.add_argument("--index-every", type=int, nargs="+", default=[0], help="tokens between index updates")
    arguments.add_argument("--grpc", action="store_true", help="one more run of the first policy through gRPC")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--record", action="store_true")
    chosen = arguments.parse_args()
    print(
        f"{'policy':12} {'finder':8} {'through':8} tokens/s  (late)  CPU us  share  stall ms  sealing    other"
        "  p99 ms  centring  log B"
    )
    runs = []
    for finder in chosen.finders:
        for policy in chosen.policies:
            for every in chosen.index_every:
                own = spec_of(policy, finder, chosen.coverage)
                own.search.index_every_tokens = every
                runs.append(insert(own, steps_of(chosen), chosen.tokens))
                _print(runs[-1])
    if chosen.grpc:
        spec = spec_of(chosen.policies[0], chosen.finders[0], chosen.coverage)
        runs.append(insert_through_grpc(spec, steps_of(chosen), chosen.tokens))
        _print(runs[-1])
    if chosen.record:
        details: dict[str, object] = {"command": command_of(chosen), "device": cpu_name(), "numpy": np.__version__}
        details["runs"] = [asdict(run) for run in runs]
        (ROOT / RESULTS / RESULT).write_text(json.dumps(details, indent=2) + "\n")
        record([row for run in runs for row in rows_of(run, chosen)])


def spec_of(policy: str, finder: str, coverage: float) -> types_pb2.SessionSpec:
    """A session with the client's defaults, but for policy, finder and coverage."""
    bookmarks = BookmarkSettings(
        policy=policy,
        coverage=coverage,
        every_tokens=round(1 / coverage),
        finder=finder,  # type: ignore[arg-type]
        hybrid_weights=_HYBRID,
    )
    return session_spec(fingerprint(DIMS, STEP_TOKENS, block_bytes=4096, memory_layers=[0]), bookmarks)


def steps_of(chosen: argparse.Namespace) -> Iterator[Tokens]:
    """Steps of tokens without end, a function of the arguments; one at a time, so that none waits in memory."""
    generator = np.random.default_rng(chosen.seed)
    rows = synthetic_rows(generator) if chosen.vectors is None else real_rows(chosen.vectors, generator)
    while True:
        signals = {
            "surprisal": generator.gamma(2.0, 1.5, STEP_TOKENS).astype(np.float32),
            "attention_mass": generator.gamma(0.5, 1.0, STEP_TOKENS).astype(np.float32),
        }
        ids = np.minimum(generator.zipf(1.3, STEP_TOKENS), 49_151).astype(np.uint32)
        yield Tokens(next(rows), ids, signals)


def synthetic_rows(generator: np.random.Generator) -> Iterator[Float32Array]:
    """Embeddings, [STEP_TOKENS, DIMS] at a time: topics that come back, passages in them, tokens around these."""
    spectrum = (1.0 / np.sqrt(1.0 + np.arange(DIMS) / 8.0)).astype(np.float32)

    def noise(*shape: int) -> Float32Array:
        return generator.standard_normal((*shape, DIMS), dtype=np.float32) * spectrum

    topics = noise(TOPICS)
    passage, left = topics[0], 0
    while True:
        rows = 0.6 * noise(STEP_TOKENS)
        at = 0
        while at < STEP_TOKENS:
            if left == 0:
                passage, left = topics[generator.integers(TOPICS)] + 0.5 * noise(), int(generator.integers(16, 300))
            own = min(left, STEP_TOKENS - at)
            rows[at : at + own] += passage
            at, left = at + own, left - own
        yield rows


def real_rows(vectors: Path, generator: np.random.Generator) -> Iterator[Float32Array]:
    """Real embeddings in their order, from the start again once they are through, with noise of their own each time."""
    with np.load(vectors) as stored:
        codes, scale = stored["codes"], stored["scale"].astype(np.float32)
    at = 0
    while True:
        own = np.arange(at, at + STEP_TOKENS) % len(codes)
        rows = codes[own].astype(np.float32) * scale[own, None]
        lengths = np.linalg.norm(rows - rows.mean(axis=0), axis=1, keepdims=True)
        noise = generator.standard_normal(rows.shape, dtype=np.float32) / np.float32(np.sqrt(DIMS))
        yield rows + _NOISE * lengths * noise
        at += STEP_TOKENS


def insert(spec: types_pb2.SessionSpec, steps: Iterator[Tokens], tokens: int) -> Insertion:
    """Feeds one session of an own data folder, inside this process."""
    with tempfile.TemporaryDirectory(prefix="insertion-") as folder, served(Path(folder)) as sessions:
        writer = new_writer(sessions, spec)
        times_s, sealed, cpu_s = [], [0], 0.0
        for seq in range(1, tokens // STEP_TOKENS + 1):
            message = message_of(next(steps), seq, writer.epoch)
            busy, begun = time.process_time(), time.perf_counter()
            ack, _ = writer.session.apply(writer, message)
            times_s.append(time.perf_counter() - begun)
            cpu_s += time.process_time() - busy
            sealed.append(sealed_of(writer.session.core.state.links.status()))
        log_bytes = sum(file.stat().st_size for file in Path(folder).rglob("log"))
    return insertion_of(spec, np.array(times_s), np.diff(sealed) > 0, cpu_s, ack.bookmarks, log_bytes)


def sealed_of(status: str) -> int:
    """Sealed bookmarks, as the status of an index says; 0 of one that seals none."""
    told = re.search(r"(\d+) bookmarks in ", status)
    return int(told[1]) if told else 0


def message_of(tokens: Tokens, seq: int, epoch: int) -> memory_pb2.Step:
    """A step as it comes off the wire; embeddings as bfloat16, as a model on a GPU has them."""
    half = (tokens.embeddings.view(np.uint32) >> 16).astype(np.uint16)
    return memory_pb2.Step(
        attachment=NAME,
        epoch=epoch,
        seq=seq,
        first_position=(seq - 1) * STEP_TOKENS,
        count=STEP_TOKENS,
        ids=tokens.ids.tobytes(),
        embeddings={"probe": codec.encode(half)},
        signals={name: codec.encode(values) for name, values in tokens.signals.items()},
    )


def insert_through_grpc(spec: types_pb2.SessionSpec, steps: Iterator[Tokens], tokens: int) -> Insertion:
    """Feeds one session of a server process; the steps are made beforehand, and only the whole is timed."""
    records = []
    for at in range(0, tokens, STEP_TOKENS):
        own = next(steps)
        half = (own.embeddings.view(np.uint32) >> 16).astype(np.uint16)
        records.append(StepRecord(at, own.ids, {"probe": half}, own.signals, (0, 0), None))
    with EmbeddedServer(None) as server, MemoryClient(server.address) as client:
        client.create_session(NAME, spec)
        writer = client.open_writer(NAME, spec.fingerprint)
        begun = time.perf_counter()
        for step in records:
            if not writer.append(step, wait=True):
                raise RuntimeError(f"expected room for every step, got none at position {step.first_position}")
        writer.settle(_TIMEOUT_S)
        whole_s = time.perf_counter() - begun
        bookmarks = client.get_session(NAME).bookmarks
        writer.close()
    return Insertion(
        policy=_word(spec.policy.kind),
        finder=_finder(spec.search.finder),
        through="gRPC",
        tokens=tokens,
        tokens_per_s=round(tokens / whole_s),
        tokens_per_s_late=0,
        cpu_us_a_token=0,
        share_bookmarked=round(bookmarks / tokens, 4),
        stall_ms=0,
        p99_ms=0,
        centring_ms=0,
        log_bytes_a_token=0,
    )


def insertion_of(
    spec: types_pb2.SessionSpec,
    times_s: npt.NDArray[np.float64],
    sealing: npt.NDArray[np.bool_],
    cpu_s: float,
    bookmarks: int,
    log_bytes: int,
) -> Insertion:
    """Figures of a run out of the seconds that each step took, [n], and whether it sealed bookmarks, [n]."""
    tokens, late = STEP_TOKENS * len(times_s), times_s[-(len(times_s) // 4) :]
    centring = CENTRING_TOKENS // STEP_TOKENS - 1
    after, sealed = 1e3 * times_s[centring + 1 :], sealing[centring + 1 :]
    return Insertion(
        policy=_word(spec.policy.kind),
        finder=_finder(spec.search.finder),
        through="session",
        tokens=tokens,
        tokens_per_s=round(tokens / times_s.sum()),
        tokens_per_s_late=round(STEP_TOKENS * len(late) / late.sum()),
        cpu_us_a_token=round(1e6 * cpu_s / tokens, 1),
        share_bookmarked=round(bookmarks / tokens, 4),
        stall_ms=round(float(after.max()), 1),
        p99_ms=round(float(np.percentile(after, 99)), 1),
        centring_ms=round(1e3 * float(times_s[centring]), 1),
        log_bytes_a_token=round(log_bytes / tokens),
        sealing_stall_ms=round(float(after[sealed].max(initial=0)), 1),
        other_stall_ms=round(float(after[~sealed].max(initial=0)), 1),
        sealing_steps=int(sealed.sum()),
        index_every_tokens=spec.search.index_every_tokens,
    )


def rows_of(run: Insertion, chosen: argparse.Namespace) -> list[Row]:
    """The figures that the issue asks for."""
    rows = "synthetic" if chosen.vectors is None else "real"
    place = f"policy {run.policy}, finder {run.finder}, {run.tokens} tokens, {rows} rows, through {run.through}"
    place += f", index updated every {run.index_every_tokens} tokens" if run.index_every_tokens else ""
    command, seeds = command_of(chosen), [chosen.seed]
    goal, holds = f"at least {GOAL_TOKENS_PER_S}", run.tokens_per_s >= GOAL_TOKENS_PER_S
    rates = [Row(4, f"sustained insertion, {place}, tokens/s", run.tokens_per_s, goal, holds, command, seeds=seeds)]
    if run.through != "session":
        return rates
    goal, steps = f"at most {GOAL_STALL_MS}", f"steps of {run.step_tokens} tokens"
    stalls = [("longest step of insertion", run.stall_ms)]
    if run.sealing_steps:
        stalls.append((f"longest step of insertion in which bookmarks are sealed, {steps}", run.sealing_stall_ms))
        stalls.append((f"longest other step of insertion, {steps}", run.other_stall_ms))
    return rates + [
        Row(4, f"{what}, {place}, ms", value, goal, value <= GOAL_STALL_MS, command, seeds=seeds)
        for what, value in stalls
    ]


def command_of(chosen: argparse.Namespace) -> str:
    """What measures the same again; a file of vectors is any machine's own."""
    flags = f"--policies {' '.join(chosen.policies)} --finders {' '.join(chosen.finders)} --tokens {chosen.tokens}"
    flags += f" --coverage {chosen.coverage} --seed {chosen.seed}"
    flags += "" if chosen.vectors is None else " --vectors FILE"
    flags += " --grpc --record" if chosen.grpc else " --record"
    return f"OPENBLAS_NUM_THREADS=1 python -m benchmarks.bench_insertion {flags}"


def _word(policy: types_pb2.PolicyKind.ValueType) -> str:
    return types_pb2.PolicyKind.Name(policy).removeprefix("POLICY_KIND_").lower()


def _finder(finder: types_pb2.FinderKind.ValueType) -> str:
    return types_pb2.FinderKind.Name(finder).removeprefix("FINDER_KIND_").lower()


def _kinds() -> dict[str, types_pb2.PolicyKind.ValueType]:
    return {_word(kind): kind for kind in types_pb2.PolicyKind.values() if kind}


def _print(run: Insertion) -> None:
    print(
        f"{run.policy:12} {run.finder:8} {run.through:8} {run.tokens_per_s:8.0f} {run.tokens_per_s_late:7.0f} "
        f"{run.cpu_us_a_token:7.1f} {run.share_bookmarked:6.3f} {run.stall_ms:9.1f} "
        f"{run.sealing_stall_ms:8.1f} {run.other_stall_ms:8.1f} {run.p99_ms:7.1f} "
        f"{run.centring_ms:9.1f} {run.log_bytes_a_token:6.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
