"""What safety costs, and how long a restart takes: `python -m benchmarks.bench_durability`.

    ingest      a session of the server, in this process, takes steps of 512 tokens and their blocks, BUFFERED, while a
                thread makes everything durable every 200 ms as the server does. Then its log and blocks alone take the
                same records and blocks, packed, checked and written, without bookmarks being made of them. Beside
                them the same bytes, in the same pieces, are written one after the other to one file with the same
                fsyncs. All end with an fsync. Rounds take turns; ratios are those of the medians.
    restart     a session of `--bookmarks` bookmarks, the finder left to the server, is left as kill -9 leaves it and
                opened anew. Time is from asking for it to having it; a recall right after is timed apart. With
                `every` each token is a bookmark; with another policy there are more tokens to replay for each.
    snapshot    rounds of group commit that one saved tail takes.

Blocks are of the demo's model, 30 layers of 3 heads; embeddings are synthetic, all else at its default.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from attn_client.session_spec import session_spec
from attn_client.settings import BookmarkSettings
from benchmarks.bench_finders import DIMS, make_text
from benchmarks.own_session import NAME, fingerprint, limits, new_writer, open_writer, served
from benchmarks.summary import RESULTS, ROOT, Row, cpu_name, record
from memsvc.log import SessionLog
from memsvc.manifest import SqliteManifest
from memsvc.session import Sessions
from memsvc.session.files import SessionFiles
from memsvc.session.records import RecordKind, pack_block
from memsvc.settings import TimingSettings
from memsvc.shards.base import Float32Array
from protos import codec
from protos.memsvc.v1 import memory_pb2, session_pb2, types_pb2

CHUNK, BLOCK = 512, 64
# Keys and values of 64 tokens, 30 layers, 3 heads of 64 dimensions, 2 bytes each.
BLOCK_BYTES = 2 * 64 * 30 * 3 * 64 * 2
# Of the restart: its blocks are not read.
SMALL_BLOCK_BYTES = 64
RESULT = "bench_durability.json"
COMMAND = "python -m benchmarks.bench_durability"


@dataclass(frozen=True)
class Ingest:
    """Seconds of each round, and how many bytes each wrote."""

    session_s: list[float]
    files_s: list[float]
    plain_s: list[float]
    block_bytes: int
    log_bytes: int
    commits_of_a_tail: int

    @property
    def session_ratio(self) -> float:
        """Bytes a second of the session over those of the plain file."""
        return float(np.median(self.plain_s) / np.median(self.session_s))

    @property
    def files_ratio(self) -> float:
        """Bytes a second of log and blocks alone over those of the plain file: what safety costs."""
        return float(np.median(self.plain_s) / np.median(self.files_s))


@dataclass(frozen=True)
class Restart:
    """One session opened anew."""

    policy: str
    bookmarks: int
    tokens: int
    log_bytes: int
    open_s: float
    recall_s: float

    @property
    def seconds_per_100_000(self) -> float:
        """Of opening."""
        return self.open_s * 100_000 / self.bookmarks


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and record if wanted."""
    chosen = _parsed(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-durability-", dir=chosen.folder) as folder:
        ingest = measure_ingest(Path(folder), chosen.blocks, chosen.rounds, chosen.seed)
        print(
            f"ingest of {(ingest.block_bytes + ingest.log_bytes) / 2**20:.0f} MiB: plain "
            f"{np.median(ingest.plain_s):.2f} s, log and blocks {np.median(ingest.files_s):.2f} s (ratio "
            f"{ingest.files_ratio:.2f}), session {np.median(ingest.session_s):.2f} s (ratio "
            f"{ingest.session_ratio:.2f}); {ingest.commits_of_a_tail} commit a tail"
        )
        restarts = [measure_restart(Path(folder), chosen.bookmarks, policy, chosen.seed) for policy in chosen.policies]
    for own in restarts:
        print(
            f"restart, {own.policy}: {own.bookmarks} bookmarks of {own.tokens} tokens, "
            f"{own.log_bytes / 2**20:.0f} MiB of log, "
            f"{own.open_s:.2f} s, {own.seconds_per_100_000:.2f} s per 100,000; first recall {own.recall_s:.2f} s"
        )
    if chosen.record:
        _record(chosen, ingest, restarts)


def measure_ingest(folder: Path, blocks: int, rounds: int, seed: int) -> Ingest:
    """Both ways of writing, in turns."""
    generator = np.random.default_rng(seed)
    data = [generator.bytes(BLOCK_BYTES) for _ in range(CHUNK // BLOCK)]
    steps = _steps(_embeddings(blocks * BLOCK, seed), seed)
    session_s, files_s, plain_s = [], [], []
    log_bytes = commits = 0
    for at in range(rounds):
        seconds, log_bytes, commits = _ingest(folder / f"session-{at}", steps, data)
        session_s.append(seconds)
        files_s.append(_files(folder / f"session-{at}", folder / f"files-{at}", data))
        plain_s.append(_plain(folder / f"plain-{at}", len(steps), log_bytes // len(steps), data))
    return Ingest(session_s, files_s, plain_s, blocks * BLOCK_BYTES, log_bytes, commits)


def _ingest(data: Path, steps: Sequence[memory_pb2.Step], blocks: Sequence[bytes]) -> tuple[float, int, int]:
    """Seconds that a session takes, bytes of its log, and commits of a tail after that."""
    checks = [google_crc32c.value(block) for block in blocks]
    with served(_made(data)) as sessions:
        writer = new_writer(sessions, _spec(BLOCK_BYTES, BookmarkSettings()))
        session = writer.session
        begun = time.perf_counter()
        with _every_interval(sessions.sync):
            for step in steps:
                session.apply(writer, step)
                first = step.first_position // BLOCK
                for at, (block, check) in enumerate(zip(blocks, checks, strict=True)):
                    session.put_block(writer, first + at, 0, block, check, types_pb2.DURABILITY_BUFFERED)
        session.core.sync()
        seconds = time.perf_counter() - begun
        (log,) = data.glob("sessions/*/log")
        log_bytes, files = log.stat().st_size, session.core.files
        before = files.commits
        tail = session_pb2.Tail(version=1, position=CHUNK * len(steps), last_id=1)
        session.save_tail(writer, writer.epoch, tail)
        return seconds, log_bytes, files.commits - before


def _files(session: Path, folder: Path, blocks: Sequence[bytes]) -> float:
    """Seconds that log and blocks alone take for what a session took."""
    (own,) = session.glob("sessions/*")
    log, records = SessionLog.open(own, own.name)
    log.close()
    checks = [google_crc32c.value(block) for block in blocks]
    files = SessionFiles.create(folder, own.name, records[0].body)
    begun = time.perf_counter()
    with _every_interval(files.sync):
        for record in records[1:]:
            body = record.body
            if record.kind == RecordKind.BLOCK:
                at = body["block"] % len(blocks)
                body = {**body, **pack_block(files.put(body["block"], 0, blocks[at], checks[at]))}
            files.append(RecordKind(record.kind), record.epoch, body)
    files.sync()
    seconds = time.perf_counter() - begun
    files.close()
    return seconds


def _plain(path: Path, steps: int, step_bytes: int, blocks: Sequence[bytes]) -> float:
    """Seconds that one file takes for the same bytes."""
    piece = os.urandom(step_bytes)
    begun = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        with _every_interval(lambda: os.fsync(file.fileno())):
            for _ in range(steps):
                file.write(piece)
                for block in blocks:
                    file.write(block)
        os.fsync(file.fileno())
    return time.perf_counter() - begun


def measure_restart(folder: Path, bookmarks: int, policy: str, seed: int) -> Restart:
    """A session of about so many bookmarks, killed, and opened anew."""
    data, settings = folder / f"restart-{policy}", BookmarkSettings(policy=policy, finder="auto")
    coverage = 1.0 if policy == "every" else settings.coverage
    steps = _steps(_embeddings((round(bookmarks / coverage) // CHUNK + 1) * CHUNK, seed), seed)
    manifest = SqliteManifest(_made(data) / "manifest.sqlite")
    spec = _spec(SMALL_BLOCK_BYTES, settings)
    killed = Sessions(data, manifest, limits())
    writer = new_writer(killed, spec)
    for step in steps[:-1]:
        writer.session.apply(writer, step)
    # All full shards are saved by now, and nothing else is closed or synced.
    for index in writer.session.core.state.indexes.values():
        index.settle()
    (log,) = data.glob("sessions/*/log")
    found, tokens = len(writer.session.core.state.graph), writer.session.core.state.tokens.position
    again = Sessions(data, manifest, limits())
    begun = time.perf_counter()
    session = again.get(NAME)
    opened = time.perf_counter()
    writer = open_writer(again, spec.fingerprint, resume_epoch=writer.epoch)
    last = steps[-1]
    last.recall.CopyFrom(memory_pb2.RecallRequest(top_blocks=4, budget_blocks=8))
    asked = time.perf_counter()
    _, pending = session.apply(writer, last)
    assert pending is not None
    session.recall(pending)
    recalled = time.perf_counter()
    result = Restart(policy, found, tokens, log.stat().st_size, opened - begun, recalled - asked)
    again.close()
    killed.close()
    manifest.close()
    return result


@contextmanager
def _every_interval(sync: Callable[[], None]) -> Iterator[None]:
    """Around work during which a thread syncs as often as the server does."""
    stopping, interval_s = threading.Event(), TimingSettings().sync_interval_ms / 1000

    def run() -> None:
        while not stopping.wait(interval_s):
            sync()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _spec(block_bytes: int, bookmarks: BookmarkSettings) -> types_pb2.SessionSpec:
    return session_spec(fingerprint(DIMS, CHUNK, block_bytes, memory_layers=range(30)), bookmarks)


def _embeddings(count: int, seed: int) -> Float32Array:
    return make_text(count, 1, seed).rows.astype(np.float32)


def _steps(rows: Float32Array, seed: int) -> list[memory_pb2.Step]:
    """The rows as steps of the session's first writer."""
    surprisal = np.random.default_rng(seed).gamma(2.0, 1.5, len(rows)).astype(np.float32)
    return [
        memory_pb2.Step(
            attachment=NAME,
            epoch=1,
            seq=at + 1,
            first_position=start,
            count=min(CHUNK, len(rows) - start),
            ids=np.arange(start, min(len(rows), start + CHUNK), dtype="<u4").tobytes(),
            embeddings={"probe": codec.encode(rows[start : start + CHUNK])},
            signals={"surprisal": codec.encode(surprisal[start : start + CHUNK])},
        )
        for at, start in enumerate(range(0, len(rows), CHUNK))
    ]


def _record(chosen: argparse.Namespace, ingest: Ingest, restarts: Sequence[Restart]) -> None:
    details = {
        "command": COMMAND,
        "device": cpu_name(),
        "seeds": [chosen.seed],
        "ingest": asdict(ingest) | {"files_ratio": ingest.files_ratio, "session_ratio": ingest.session_ratio},
        "restarts": [asdict(own) | {"seconds_per_100_000": own.seconds_per_100_000} for own in restarts],
    }
    (ROOT / RESULTS / RESULT).write_text(json.dumps(details, indent=1) + "\n")
    seeds = (chosen.seed,)
    commits = ingest.commits_of_a_tail
    rows = [
        Row(6, name, round(ratio, 3), "at least 0.7", round(ratio, 3) >= 0.7, COMMAND, seeds=seeds)
        for name, ratio in (
            ("BUFFERED log and blocks over plain writing, ratio", ingest.files_ratio),
            ("BUFFERED ingest with bookmarks made over plain writing, ratio", ingest.session_ratio),
        )
    ]
    rows += [
        Row(6, "group commits of a saved tail", commits, "exactly 1", commits == 1, COMMAND, seeds=seeds),
    ]
    for own in restarts:
        value = round(own.seconds_per_100_000, 3)
        name = f"restart with policy {own.policy}, s per 100,000 bookmarks"
        rows.append(Row(6, name, value, "at most 2", value <= 2, COMMAND, seeds=seeds))
    record(rows)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=128, help="of the ingest, a multiple of 8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bookmarks", type=int, default=16384, help="of the restart, about")
    parser.add_argument("--policies", nargs="+", default=["every", BookmarkSettings().policy])
    parser.add_argument("--folder", type=Path, help="on the disk that is meant; a temporary one if absent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="into benchmarks/results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
