"""Three ways of writing the same blocks and records, with the same rounds of fsyncs: what safety costs.

    session    steps of 512 tokens on one thread and their blocks on another, as the server takes them, BUFFERED; a
               third makes everything durable every 200 ms
    files      log and blocks alone take the same records and blocks, packed, checked and written, without bookmarks
    plain      the same bytes in the same pieces, one after the other, to one file

Each ends with an fsync. A plain file is written for each of the two others, with its rounds of fsyncs: see
`benchmarks.sync_cadence`.
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from attn_client.session_spec import session_spec
from attn_client.settings import BookmarkSettings
from benchmarks.bench_finders import DIMS, make_text
from benchmarks.counted_disk import CountedDisk
from benchmarks.own_session import NAME, STREAM, fingerprint, limits, new_writer
from benchmarks.sync_cadence import Rounds
from memsvc.log import read_log
from memsvc.log_format import LogRecord
from memsvc.manifest import SqliteManifest
from memsvc.session import Sessions
from memsvc.session.files import SessionFiles
from memsvc.session.records import RecordKind, pack_block
from memsvc.settings import TimingSettings
from memsvc.storage import Machine
from protos import codec
from protos.memsvc.v1 import memory_pb2, session_pb2, types_pb2

CHUNK, BLOCK = 512, 64
# Keys and values of 64 tokens, 30 layers, 3 heads of 64 dimensions, 2 bytes each.
BLOCK_BYTES = 2 * 64 * 30 * 3 * 64 * 2
# Tokens of a made-up text that are made at once.
_PASSAGE_TOKENS = 32 * CHUNK
# Between two rounds, as the server has it.
INTERVAL_S = TimingSettings().sync_interval_ms / 1000


@dataclass(frozen=True)
class Written:
    """One way of writing, and the plain file beside it.

    Args:
        seconds: Of each round of the measurement.
        plain_s: Of the plain file of each.
        syncs: Rounds of fsyncs while writing, of each.
    """

    seconds: list[float] = field(default_factory=list)
    plain_s: list[float] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)

    def note(self, seconds: float, places: Sequence[int], plain_s: float) -> None:
        """Adds a round."""
        self.seconds.append(seconds)
        self.plain_s.append(plain_s)
        self.syncs.append(len(places))

    @property
    def ratio(self) -> float:
        """Bytes a second over those of the plain file, by medians."""
        return float(np.median(self.plain_s) / np.median(self.seconds))


@dataclass(frozen=True)
class Cost:
    """What something took that was to be durable, right after a step and its blocks.

    Args:
        commits: Rounds of group commit.
        syncs: Fsyncs of files and folders.
    """

    commits: int = 0
    syncs: int = 0


@dataclass(frozen=True)
class Ingest:
    """What was written and how, and what a commit, a saved tail and a snapshot took after it."""

    session: Written
    files: Written
    block_bytes: int
    log_bytes: int
    commit: Cost
    tail: Cost
    snapshot: Cost

    @property
    def tail_syncs_ratio(self) -> float:
        """Fsyncs of a saved tail over those of a commit."""
        return self.tail.syncs / self.commit.syncs


@dataclass(frozen=True)
class _Pieces:
    """What a plain file is written in: for each step a record, then blocks."""

    record_bytes: int
    steps: int
    blocks: Sequence[bytes]


def measure_ingest(folder: Path, blocks: int, rounds: int, seed: int) -> Ingest:
    """All ways of writing, in turns; at most two of them are on the disk at a time."""
    generator = np.random.default_rng(seed)
    data = [generator.bytes(BLOCK_BYTES) for _ in range(CHUNK // BLOCK)]
    # Three more for what is to be durable one by one.
    steps = list(steps_of(blocks * BLOCK + 3 * CHUNK, seed))
    session, files, costs, log_bytes = Written(), Written(), [Cost()] * 3, 0
    for _ in range(rounds):
        with _Session(folder / "session", data) as own:
            session_s, places = own.ingest(steps[:-3])
            records, log_bytes = own.records(), own.log_bytes
            costs = own.costs(steps[-3:])
        shutil.rmtree(folder / "session")
        pieces = _Pieces(log_bytes // (len(steps) - 3), len(steps) - 3, data)
        session.note(session_s, places, _plain(folder / "plain", pieces, places))
        files_s, places = _files(folder / "files", records, data)
        shutil.rmtree(folder / "files")
        files.note(files_s, places, _plain(folder / "plain", pieces, places))
    return Ingest(session, files, blocks * BLOCK_BYTES, log_bytes, *costs)


def steps_of(tokens: int, seed: int) -> Iterator[memory_pb2.Step]:
    """A made-up text of a multiple of CHUNK tokens, as steps of the session's first writer, made as they are taken."""
    surprisals = np.random.default_rng(seed)
    for first in range(0, tokens, _PASSAGE_TOKENS):
        count = min(_PASSAGE_TOKENS, tokens - first)
        rows = make_text(count, 1, seed + first).rows.astype(np.float32)
        surprisal = surprisals.gamma(2.0, 1.5, count).astype(np.float32)
        for start in range(0, count, CHUNK):
            own, position = slice(start, start + CHUNK), first + start
            yield memory_pb2.Step(
                attachment=NAME,
                epoch=1,
                seq=position // CHUNK + 1,
                first_position=position,
                count=CHUNK,
                ids=np.arange(position, position + CHUNK, dtype="<u4").tobytes(),
                embeddings={STREAM: codec.encode(rows[own])},
                signals={"surprisal": codec.encode(surprisal[own])},
            )


class _Session:
    """A session in this process, and the blocks that all its steps have."""

    def __init__(self, folder: Path, data: Sequence[bytes]) -> None:
        folder.mkdir()
        self._disk = CountedDisk()
        self._manifest = SqliteManifest(folder / "manifest.sqlite")
        self._sessions = Sessions(folder, self._manifest, limits(), Machine(storage=self._disk))
        mark = fingerprint(DIMS, CHUNK, BLOCK_BYTES, memory_layers=range(30))
        self._writer = new_writer(self._sessions, session_spec(mark, BookmarkSettings()))
        self._files = self._writer.session.core.files
        self._blocks = [(block, google_crc32c.value(block)) for block in data]

    def __enter__(self) -> "_Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._sessions.close()
        self._manifest.close()

    @property
    def log_bytes(self) -> int:
        """Length of the log."""
        return self._files.log_bytes

    def records(self) -> list[LogRecord]:
        """All of the log."""
        return read_log(self._files.folder, self._files.folder.name, self._files.sequence)

    def ingest(self, steps: Sequence[memory_pb2.Step]) -> tuple[float, list[int]]:
        """Seconds that steps and their blocks take, and how many pieces were written when each round began."""
        rounds = Rounds()
        begun = time.perf_counter()
        with rounds.every(INTERVAL_S, self._sessions.sync), ThreadPoolExecutor(1) as outbox:
            puts = []
            for step in steps:
                self._writer.session.apply(self._writer, step)
                rounds.wrote()
                puts.append(outbox.submit(self._put, step, rounds))
            for put in puts:
                put.result()
        self._writer.session.core.sync()
        return time.perf_counter() - begun, rounds.begun_at

    def costs(self, steps: Sequence[memory_pb2.Step]) -> list[Cost]:
        """Of a commit, of a saved tail, of a snapshot of it, each after one of these steps and its blocks."""
        writer, session = self._writer, self._writer.session
        costs = []
        for step, what in zip(steps, ("commit", "tail", "snapshot"), strict=True):
            session.apply(writer, step)
            self._put(step, Rounds())
            tail = session_pb2.Tail(version=1, position=step.first_position + step.count, last_id=1)
            if what == "snapshot":
                # A snapshot names a tail: the rounds of saving it do not count here.
                session.save_tail(writer, writer.epoch, tail)
            commits, syncs = self._files.commits, self._disk.syncs
            if what == "commit":
                session.core.sync()
            elif what == "tail":
                session.save_tail(writer, writer.epoch, tail)
            else:
                self._sessions.create_snapshot(NAME, "named")
            costs.append(Cost(self._files.commits - commits, self._disk.syncs - syncs))
        return costs

    def _put(self, step: memory_pb2.Step, rounds: Rounds) -> None:
        """The blocks of a step."""
        first = step.first_position // BLOCK
        for at, (block, check) in enumerate(self._blocks):
            self._writer.session.put_block(self._writer, first + at, 0, block, check, types_pb2.DURABILITY_BUFFERED)
            rounds.wrote()


def _files(folder: Path, records: Sequence[LogRecord], data: Sequence[bytes]) -> tuple[float, list[int]]:
    """Seconds that log and blocks alone take for what a session took, and how many pieces came before each round."""
    checks, rounds = [google_crc32c.value(block) for block in data], Rounds()
    files = SessionFiles.create(folder, uuid.uuid4().hex, records[0].body)
    begun = time.perf_counter()
    with rounds.every(INTERVAL_S, files.sync):
        for record in records[1:]:
            body = record.body
            if record.kind == RecordKind.BLOCK:
                at = body["block"] % len(data)
                body = {**body, **pack_block(files.put(body["block"], 0, data[at], checks[at]))}
            files.append(RecordKind(record.kind), record.epoch, body)
            rounds.wrote()
    files.sync()
    seconds = time.perf_counter() - begun
    files.close()
    return seconds, rounds.begun_at


def _plain(path: Path, pieces: _Pieces, places: Sequence[int]) -> float:
    """Seconds that one file takes for the same bytes, with rounds after so many pieces each."""
    record, rounds = os.urandom(pieces.record_bytes), Rounds()
    begun = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        with rounds.after(places, lambda: os.fsync(file.fileno())):
            for _ in range(pieces.steps):
                for own in (record, *pieces.blocks):
                    file.write(own)
                    rounds.wrote()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begun
    path.unlink()
    return seconds
