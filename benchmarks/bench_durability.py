"""What safety costs, and how long a restart takes: `python -m benchmarks.bench_durability`.

    ingest      steps and blocks of a session, then log and blocks alone, then the same bytes to one plain file, with
                the same rounds of fsyncs: see `benchmarks.durable_ingest`. Ways take turns; ratios are those of the
                medians. The whole session also makes bookmarks of the tokens: what that takes is no cost of safety, and
                is there however slow or quick the disk is
    restart     a session of about `--bookmarks` bookmarks, the finder left to the server, synced every 200 ms as the
                server does, is left as kill -9 leaves it and opened anew. Time is from asking for it to having it; a
                recall right after is timed apart. With `every` each token is a bookmark; with another policy there are
                more tokens to replay for each. What is read: log and blocks, saved shards, manifest. There are
                no blocks: recovery reads only those of what came after the last fsync
    snapshot    rounds of group commit, and fsyncs, that a saved tail and a snapshot take after a step and its blocks

Blocks are of the demo's model, 30 layers of 3 heads; embeddings are synthetic, all else at its default.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from attn_client.session_spec import session_spec
from attn_client.settings import BookmarkSettings
from benchmarks.bench_finders import DIMS
from benchmarks.counted_disk import CountedDisk
from benchmarks.durable_ingest import CHUNK, INTERVAL_S, Ingest, measure_ingest, steps_of
from benchmarks.own_session import NAME, fingerprint, limits, new_writer, open_writer
from benchmarks.summary import RESULTS, ROOT, Row, cpu_name, record
from benchmarks.sync_cadence import Rounds
from memsvc.manifest import SqliteManifest
from memsvc.session import Attachment, Sessions
from memsvc.storage import Machine
from protos.memsvc.v1 import memory_pb2

# Of the restart: its blocks are not read.
SMALL_BLOCK_BYTES = 64
# Tokens before the first bookmark: until the centre is frozen none enters.
CENTRING_TOKENS = BookmarkSettings().centring_tokens
RESULT = "bench_durability.json"
COMMAND = "python -m benchmarks.bench_durability"


@dataclass(frozen=True)
class Restart:
    """One session opened anew.

    Args:
        read_bytes: Of log, blocks, saved shards and manifest.
        open_cpu_s: Of the process while it opened: what a busy machine adds to `open_s` is not in it.
    """

    policy: str
    bookmarks: int
    tokens: int
    log_bytes: int
    manifest_bytes: int
    read_bytes: int
    open_s: float
    open_cpu_s: float
    recall_s: float

    @property
    def seconds_per_100_000(self) -> float:
        """Of opening, for each 100,000 bookmarks."""
        return self.open_s * 100_000 / self.bookmarks

    @property
    def read_ratio(self) -> float:
        """What was read over log and manifest: the log's beginning is the last sealed state of a session."""
        return self.read_bytes / (self.log_bytes + self.manifest_bytes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and record if wanted."""
    chosen = _parsed(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-durability-", dir=chosen.folder) as folder:
        ingest = measure_ingest(Path(folder), chosen.blocks, chosen.rounds, chosen.seed)
        print(f"ingest of {(ingest.block_bytes + ingest.log_bytes) / 2**20:.0f} MiB")
        for name, own in (("session", ingest.session), ("log and blocks", ingest.files)):
            rounds = ", ".join(
                f"{seconds:.2f} s of {plain_s:.2f} s with {syncs} rounds"
                for seconds, plain_s, syncs in zip(own.seconds, own.plain_s, own.syncs, strict=True)
            )
            print(f"  {name}, of plain writing: {rounds}; ratio {own.ratio:.2f}")
        print(f"a commit: {ingest.commit}; a saved tail: {ingest.tail}; a snapshot: {ingest.snapshot}", flush=True)
        restarts = []
        for policy in chosen.policies:
            restarts.append(measure_restart(Path(folder), chosen.bookmarks, policy, chosen.seed))
            print(_line(restarts[-1]), flush=True)
    if chosen.record:
        _record(chosen, ingest, restarts)


def measure_restart(folder: Path, bookmarks: int, policy: str, seed: int) -> Restart:
    """A session of about so many bookmarks, killed, and opened anew."""
    data, settings = folder / f"restart-{policy}", BookmarkSettings(policy=policy, finder="auto")
    data.mkdir()
    coverage = 1.0 if policy == "every" else settings.coverage
    # The last step is for the recall; with few bookmarks, enough tokens for any all the same.
    count = max(round(bookmarks / coverage), CENTRING_TOKENS + CHUNK) // CHUNK + 1
    steps = steps_of((count + 1) * CHUNK, seed)
    manifest, disk = SqliteManifest(data / "manifest.sqlite"), CountedDisk()
    killed = Sessions(data, manifest, limits())
    writer = _written(killed, settings, islice(steps, count))
    again = Sessions(data, manifest, limits(), Machine(storage=disk))
    begun, begun_cpu = time.perf_counter(), time.process_time()
    session = again.get(NAME)
    open_s, open_cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    read_bytes, log_bytes = disk.read_bytes, session.core.files.log_bytes
    manifest_bytes = _bytes_of(data, "manifest.sqlite")
    read_bytes += _bytes_of(data, "sessions/*/shards/*/*.bin") + manifest_bytes
    found, position = session.bookmarks, session.core.state.tokens.position
    recall_s = _recall_s(again, writer, next(steps))
    again.close()
    killed.close()
    manifest.close()
    return Restart(policy, found, position, log_bytes, manifest_bytes, read_bytes, open_s, open_cpu_s, recall_s)


def _written(sessions: Sessions, settings: BookmarkSettings, steps: Iterable[memory_pb2.Step]) -> Attachment:
    """The writer of a session that took these steps; its full shards are saved, and nothing else is closed."""
    mark = fingerprint(DIMS, CHUNK, SMALL_BLOCK_BYTES, memory_layers=range(30))
    writer = new_writer(sessions, session_spec(mark, settings))
    with Rounds().every(INTERVAL_S, sessions.sync):
        for step in steps:
            writer.session.apply(writer, step)
    for index in writer.session.core.state.indexes.values():
        index.settle()
    return writer


def _recall_s(sessions: Sessions, killed: Attachment, step: memory_pb2.Step) -> float:
    """Seconds of a step with a recall, by the writer that resumes."""
    writer = open_writer(sessions, killed.session.spec.fingerprint, resume_epoch=killed.epoch)
    step.recall.CopyFrom(memory_pb2.RecallRequest(top_blocks=4, budget_blocks=8))
    asked = time.perf_counter()
    _, pending = writer.session.apply(writer, step)
    assert pending is not None
    writer.session.recall(pending)
    return time.perf_counter() - asked


def _bytes_of(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def _line(own: Restart) -> str:
    return (
        f"restart, {own.policy}: {own.bookmarks} bookmarks of {own.tokens} tokens, {own.log_bytes / 2**20:.0f} MiB of "
        f"log, {own.open_s:.2f} s ({own.open_cpu_s:.2f} s of CPU), {own.seconds_per_100_000:.2f} s per 100,000; "
        f"read {own.read_ratio:.3f} of log and manifest; first recall {own.recall_s:.2f} s"
    )


def _record(chosen: argparse.Namespace, ingest: Ingest, restarts: Sequence[Restart]) -> None:
    command = f"{COMMAND} --blocks {chosen.blocks} --rounds {chosen.rounds} --bookmarks {chosen.bookmarks}"
    details = {
        "command": command,
        "device": cpu_name(),
        "seeds": [chosen.seed],
        "ingest": asdict(ingest) | {"files_ratio": ingest.files.ratio, "session_ratio": ingest.session.ratio},
        "restarts": [
            asdict(own) | {"seconds_per_100_000": own.seconds_per_100_000, "read_ratio": own.read_ratio}
            for own in restarts
        ],
    }
    (ROOT / RESULTS / RESULT).write_text(json.dumps(details, indent=1) + "\n")
    figures = [
        ("BUFFERED log and blocks over plain writing, ratio", ingest.files.ratio, "at least 0.7"),
        ("BUFFERED ingest with bookmarks made over plain writing, ratio", ingest.session.ratio, "at least 0.7"),
        ("group commits of a saved tail", ingest.tail.commits, "exactly 1"),
        ("group commits of a snapshot", ingest.snapshot.commits, "exactly 1"),
        ("fsyncs of a saved tail over those of a group commit, ratio", ingest.tail_syncs_ratio, "exactly 1"),
    ]
    for own in restarts:
        seconds = f"restart with policy {own.policy}, s per 100,000 bookmarks"
        read = f"bytes read by a restart with policy {own.policy} over log and manifest, ratio"
        figures += [(seconds, own.seconds_per_100_000, "at most 2"), (read, own.read_ratio, "at most 1.2")]
    record([_row(name, round(value, 3), goal, command, chosen.seed) for name, value, goal in figures])


def _row(name: str, value: float, goal: str, command: str, seed: int) -> Row:
    bound = float(goal.rpartition(" ")[2])
    holds = {"at least": value >= bound, "at most": value <= bound, "exactly": value == bound}[goal.rpartition(" ")[0]]
    return Row(6, name, value, goal, holds, command, seeds=(seed,))


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=256, help="of the ingest, a multiple of 8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bookmarks", type=int, default=16384, help="of the restart, about")
    parser.add_argument("--policies", nargs="+", default=["every", BookmarkSettings().policy])
    parser.add_argument("--folder", type=Path, help="on the disk that is meant; a temporary one if absent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="into benchmarks/results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
