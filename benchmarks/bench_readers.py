"""Recalls of eight readers on one session, beside those of one: `python -m benchmarks.bench_readers`.

A made-up text that returns to its topics is written into a session of a private server. Then views of it, each with a
connection of its own as a worker has, ask for a recall with every token, at the pace of a model that decodes 10 tokens
a second. Measured is the time from handing over the token to having the answer.

    one          one reader
    eight        eight readers at the same time
    eight + 1    the same while a writer goes on in the session

All readers send the same tokens, so all must get the very same answers in all three: a reader that saw a part of the
writer's steps, or another reader's trail, would not.
"""

import argparse
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from attn_client.embedded import EmbeddedServer
from attn_client.memory import MemoryClient, MemorySession, RecallAnswer, RecallAsk, StepRecord
from attn_client.session_spec import session_spec
from attn_client.settings import BLOCK_TOKENS, BookmarkSettings, RecallSettings, WindowSettings
from benchmarks.summary import RESULTS, ROOT, Row, record
from protos.memsvc.v1 import types_pb2

READERS = 8
TOKENS, QUICK_TOKENS = 32_768, 8_192
RECALLS, QUICK_RECALLS = 300, 60
PACE_S = 0.1
# Recalls of each reader that are not timed: the first of a server that has just read the session.
WARM = 10
DIMS, TOPICS, TOPIC_TOKENS = 576, 64, 40
BLOCK_BYTES = 4096
CHUNK = 256
TIMEOUT_S = 20.0
SESSION = "shared"
SEED = 7
GOAL = 2.0
RESULT = "bench_readers.json"
COMMAND = "python -m benchmarks.bench_readers --record"


@dataclass(frozen=True)
class Stream:
    """Embeddings [n, DIMS] and surprisal [n] of a text around TOPICS topics, each returning many times."""

    embeddings: npt.NDArray[np.float32]
    surprisal: npt.NDArray[np.float32]

    @classmethod
    def made(cls, tokens: int, seed: int) -> "Stream":
        """A text of so many tokens."""
        rng = np.random.default_rng(seed)
        topics = rng.normal(size=(TOPICS, DIMS))
        topic = np.repeat(rng.integers(0, TOPICS, tokens // TOPIC_TOKENS + 1), TOPIC_TOKENS)[:tokens]
        embeddings = (topics[topic] + 0.8 * rng.normal(size=(tokens, DIMS))).astype(np.float32)
        return cls(embeddings, rng.gamma(2.0, 1.5, tokens).astype(np.float32))

    def record(self, rows: slice, position: int, ask: RecallAsk | None) -> StepRecord:
        """Some of its tokens as a step at a position."""
        count = len(self.surprisal[rows])
        window = WindowSettings()
        start = max(window.sink_tokens, BLOCK_TOKENS * ((position + count - window.window_tokens) // BLOCK_TOKENS))
        return StepRecord(
            first_position=position,
            ids=np.arange(count, dtype=np.uint32),
            embeddings={"probe": self.embeddings[rows]},
            signals={"surprisal": self.surprisal[rows]},
            resident=(start, max(0, position + count - start)),
            recall=ask,
        )


@dataclass(frozen=True)
class Measured:
    """Recalls of so many readers, in milliseconds."""

    readers: int
    writer: bool
    recalls: int
    p50_ms: float
    p99_ms: float
    max_ms: float


Answers = list[RecallAnswer | None]


def main() -> None:
    """Measure, compare the answers, print, and record if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--record", action="store_true", help=f"{TOKENS:,} tokens, and record the figures")
    chosen = arguments.parse_args()
    tokens, recalls = (TOKENS, RECALLS) if chosen.record else (QUICK_TOKENS, QUICK_RECALLS)
    asked = Stream.made(recalls, SEED + 1)
    with EmbeddedServer(None) as server:
        _write(server.address, Stream.made(tokens, SEED))
        one, expected = _measure(server.address, asked, 1)
        eight, answers = _measure(server.address, asked, READERS)
        with _writing(server.address):
            beside, more = _measure(server.address, asked, READERS, writer=True)
    for measured in (one, eight, beside):
        print(measured)
    if any(answer is None or not answer.blocks for answer in expected[0]):
        raise RuntimeError("expected blocks in every answer of the one reader, got an empty one")
    wrong = sum(answer != expected[0][at] for one in (*answers, *more) for at, answer in enumerate(one))
    ratio = round(eight.p99_ms / one.p99_ms, 2)
    print(f"p99 of eight over that of one: {ratio} (at most {GOAL:g}); answers that differ: {wrong} (exactly 0)")
    if chosen.record:
        _record([one, eight, beside], ratio, wrong)


def _fingerprint() -> types_pb2.Fingerprint:
    window = WindowSettings()
    return types_pb2.Fingerprint(
        model="made-up",
        memory_layers=[0],
        dtype=types_pb2.ELEMENT_TYPE_FLOAT32,
        sink_tokens=window.sink_tokens,
        window_tokens=window.window_tokens,
        chunk_tokens=CHUNK,
        budget_blocks=RecallSettings().budget_blocks,
        streams=[types_pb2.StreamSpec(name="probe", dims=DIMS, weight=1.0)],
        block_bytes=BLOCK_BYTES,
    )


def _append(session: MemorySession, stream: Stream) -> None:
    """Write all of a stream, whose blocks are whole, with their bytes."""
    for first in range(0, len(stream.surprisal), CHUNK):
        position = session.position
        session.append(stream.record(slice(first, first + CHUNK), position, None), wait=True)
        for block in range(position // BLOCK_TOKENS, (position + CHUNK) // BLOCK_TOKENS):
            session.put_block(block, np.full(BLOCK_BYTES, block % 251, np.uint8), wait=True)


def _write(address: str, stream: Stream) -> None:
    with MemoryClient(address) as client:
        client.create_session(SESSION, session_spec(_fingerprint(), BookmarkSettings()))
        with contextlib.closing(client.open_writer(SESSION, _fingerprint())) as session:
            _append(session, stream)
            session.save_tail(session.position, None, 0, None)


@contextlib.contextmanager
def _writing(address: str) -> Iterator[None]:
    """A writer that goes on in the session for as long as the block lasts, a chunk a pace."""
    over = threading.Event()

    def write() -> None:
        with (
            MemoryClient(address) as client,
            contextlib.closing(client.open_writer(SESSION, _fingerprint())) as session,
        ):
            number = 0
            while not over.wait(PACE_S):
                number += 1
                _append(session, Stream.made(CHUNK, SEED + 100 + number))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            yield
        finally:
            over.set()
        writing.result()


def _measure(address: str, asked: Stream, readers: int, *, writer: bool = False) -> tuple[Measured, list[Answers]]:
    together = threading.Barrier(readers)
    with ThreadPoolExecutor(readers) as pool:
        read = list(pool.map(lambda number: _read(address, asked, together, number / readers), range(readers)))
    times = 1e3 * np.array([one for times, _ in read for one in times[WARM:]])
    p50, p99 = (round(float(value), 2) for value in np.percentile(times, (50, 99)))
    return Measured(readers, writer, len(times), p50, p99, round(float(times.max()), 2)), [one for _, one in read]


def _read(address: str, asked: Stream, together: threading.Barrier, phase: float) -> tuple[list[float], Answers]:
    """One reader: seconds of each recall, and the answers. Readers' paces are the same, their phases spread."""
    recall = RecallSettings()
    ask = RecallAsk(recall.top_blocks, recall.neighbours, recall.budget_blocks, int(1e3 * TIMEOUT_S))
    times: list[float] = []
    answers: Answers = []
    with MemoryClient(address) as client, contextlib.closing(client.open_view(SESSION, _fingerprint())) as view:
        together.wait()
        start = time.perf_counter() + PACE_S * phase
        for at in range(len(asked.surprisal)):
            time.sleep(max(0.0, start + at * PACE_S - time.perf_counter()))
            began = time.perf_counter()
            seq = view.append(asked.record(slice(at, at + 1), view.position, ask), wait=True)
            answers.append(view.recall(seq, TIMEOUT_S) if seq is not None else None)
            times.append(time.perf_counter() - began)
    return times, answers


def _record(measured: list[Measured], ratio: float, wrong: int) -> None:
    ratio_name = "p99 of a recall with eight readers on a session, times that with one reader"
    wrong_name = "recalls of readers that saw a torn or foreign state"
    rows = [
        Row(7, ratio_name, ratio, f"at most {GOAL:g}", ratio <= GOAL, COMMAND, seeds=[SEED]),
        Row(7, wrong_name, wrong, "exactly 0", wrong == 0, COMMAND, seeds=[SEED]),
    ]
    record(rows)
    details = {"tokens": TOKENS, "pace_s": PACE_S, "ratio": ratio, "measured": [asdict(one) for one in measured]}
    (ROOT / RESULTS / RESULT).write_text(json.dumps(details, indent=2) + "\n")


if __name__ == "__main__":
    main()
