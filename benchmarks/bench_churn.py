"""Finders against flat while bookmarks come and go: `python -m benchmarks.bench_churn`. Sessions in this process.

A session for each finder takes the same text, in which each token is a bookmark, and lives the same life in rounds:

    tokens come      in steps of 256, with their blocks, and a tail at the end of the round
    blocks go        the oldest are forgotten (retention), so that at most half of the whole text is stored
    tokens go        at some rounds the writer writes on after its tail and is lost, the sessions of the folder are
                     closed and opened anew, and another writer begins: what came after the tail is void
    questions        of 16 tokens each, asked by a view of its own, whose trail goes on from the tail's

A deleted session, and a fork that ends, take their own index along: no other one is changed.

Each row of the table: of the 16 best blocks that the session with flat recalls, the share that the session with this
finder recalls, over all rounds and in the worst one; recalled blocks that had been forgotten (none may be); the time of
a question, its recall included; tokens a second; the seconds that opening anew took, which reads the whole log.

Tokens are the bookmarks of `--vectors` (an .npz with codes, scale, query_codes, query_scale), else the synthetic ones
of benchmarks/bench_finders.py.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import google_crc32c
import numpy as np

from attn_client.session_spec import session_spec
from attn_client.settings import BookmarkSettings
from benchmarks.bench_finders import DIMS, make_text
from benchmarks.own_session import NAME, STREAM, fingerprint, limits, new_writer, open_writer
from benchmarks.summary import RESULTS, ROOT, Row, cpu_name, record
from memsvc.geometry import BLOCK_TOKENS
from memsvc.manifest import SqliteManifest
from memsvc.retention.forget import forget_before
from memsvc.session import Sessions
from memsvc.shards.base import Float32Array
from protos import codec
from protos.memsvc.v1 import memory_pb2, session_pb2, types_pb2

Finder = Literal["flat", "hnsw", "faiss", "auto", "dictionary", "walk"]

STEP_TOKENS = 256
QUESTION_TOKENS = 16
BLOCKS = 16
# Their bytes are not looked at.
BLOCK_BYTES = 64
# Least share of the blocks that flat recalls; None: reported.
GOALS: dict[Finder, float | None] = {"hnsw": 0.98, "faiss": 0.98, "auto": 0.98, "dictionary": 0.95, "walk": None}
COMMAND = "python -m benchmarks.bench_churn"
RESULT = "bench_churn.json"


@dataclass(frozen=True)
class Text:
    """Embeddings of tokens, [n, DIMS], of void ones, likewise, and of questions, [m, QUESTION_TOKENS, DIMS]."""

    tokens: Float32Array
    void: Float32Array
    questions: Float32Array


@dataclass(frozen=True)
class Life:
    """What happens to each session.

    Args:
        rounds: Of as many tokens each.
        reopened: Rounds that end with opening anew.
    """

    rounds: int
    reopened: frozenset[int]

    @classmethod
    def of(cls, rounds: int, reopenings: int) -> "Life":
        """With reopenings spread over the rounds."""
        return cls(rounds, frozenset((at + 1) * rounds // (reopenings + 1) for at in range(reopenings)))


# Blocks that a question recalled and that were voted for, best first.
Answer = tuple[int, ...]


@dataclass(frozen=True)
class Lived:
    """What a session answered in each round, and what it took."""

    answers: tuple[tuple[Answer, ...], ...]
    forgotten: int
    returned_forgotten: int
    question_ms: float
    tokens_per_s: float
    reopen_s: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    finder: Finder
    agreement: float
    agreement_worst: float
    returned_forgotten: int
    forgotten: int
    question_ms: float
    tokens_per_s: float
    reopen_s: tuple[float, ...]


class ChurnedSession:
    """A session of an own data folder, and its writer.

    Args:
        data: Exists.
    """

    def __init__(self, data: Path, finder: Finder) -> None:
        self._spec = session_spec(
            fingerprint(DIMS, STEP_TOKENS, BLOCK_BYTES), BookmarkSettings(policy="every", finder=finder)
        )
        self._data, self._manifest = data, SqliteManifest(data / "manifest.sqlite")
        self._sessions = Sessions(data, self._manifest, limits())
        self._writer = new_writer(self._sessions, self._spec)
        self._seq = self._asked = 0
        # Position of the next token, and of the newest tail.
        self._position = self._tail = 0

    def close(self) -> None:
        """Ends it; the folder stays."""
        self._sessions.close()
        self._manifest.close()

    def write(self, tokens: Float32Array) -> None:
        """Takes tokens, [n, DIMS], as steps."""
        for start in range(0, len(tokens), STEP_TOKENS):
            own = tokens[start : start + STEP_TOKENS]
            self._seq += 1
            step = _step(NAME, self._writer.epoch, self._seq, self._position, own)
            self._writer.session.apply(self._writer, step)
            self._position += len(own)

    def keep(self) -> None:
        """Puts the blocks since the newest tail, and saves one; the position is a block's end."""
        for block in range(self._tail // BLOCK_TOKENS, self._position // BLOCK_TOKENS):
            data = block.to_bytes(BLOCK_BYTES, "little")
            check = google_crc32c.value(data)
            self._writer.session.put_block(self._writer, block, 0, data, check, types_pb2.DURABILITY_BUFFERED)
        tail = session_pb2.Tail(version=1, position=self._position, last_id=1)
        self._writer.session.save_tail(self._writer, self._writer.epoch, tail)
        self._tail = self._position

    def forget(self, tokens: int) -> list[int]:
        """Lets the oldest blocks go, so that those of the newest `tokens` stay; returns which went."""
        gone = forget_before(self._writer.session.core, self._position - tokens, "benchmark")
        return [block for blocks in gone.blocks for block in blocks]

    def reopen(self) -> float:
        """Closes all and opens it anew, with a new writer; returns the seconds that this took."""
        self._sessions.close()
        begun = time.perf_counter()
        self._sessions = Sessions(self._data, self._manifest, limits())
        self._writer = open_writer(self._sessions, self._spec.fingerprint)
        self._seq, self._position = 0, self._tail
        return time.perf_counter() - begun

    def ask(self, question: Float32Array) -> Answer:
        """What a new view recalls after reading a question, [n, DIMS]."""
        self._asked += 1
        name = f"view-{self._asked}"
        request = session_pb2.OpenSessionRequest(
            session=NAME,
            mode=session_pb2.OPEN_MODE_VIEW,
            fingerprint=self._spec.fingerprint,
            worker=name,
            attachment=name,
        )
        self._sessions.open(request)
        view = self._sessions.attachment(name)
        step = _step(name, view.epoch, 1, self._tail, question)
        step.recall.CopyFrom(memory_pb2.RecallRequest(top_blocks=BLOCKS, budget_blocks=BLOCKS))
        _, pending = view.session.apply(view, step)
        assert pending is not None
        recalled = view.session.recall(pending)
        self._sessions.close_attachment(name)
        return tuple(one.block for one in recalled.blocks if one.score > 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Let each finder's session live, print the table, and record it if wanted."""
    chosen = _parsed(arguments)
    text = load(chosen.vectors, chosen.tokens, chosen.questions, chosen.seed)
    life = Life.of(chosen.rounds, chosen.reopenings)
    truth = live("flat", text, life)
    print(f"{'finder':10} agreement    worst  returned  forgotten  question ms  tokens/s  reopened in s", flush=True)
    found: list[Measured] = []
    for finder in chosen.finders:
        found.append(compared(finder, live(finder, text, life), truth))
        print(_line(found[-1]), flush=True)
    print(_line(compared("flat", truth, truth)))
    if chosen.record:
        _record(chosen, found)


def load(vectors: Path | None, tokens: int, questions: int, seed: int) -> Text:
    """Embeddings: real ones, as many as there are, or synthetic ones."""
    wanted = tokens + STEP_TOKENS
    if vectors is None:
        made = make_text(wanted, questions * QUESTION_TOKENS, seed)
        rows, asking = made.rows.astype(np.float32), made.queries.astype(np.float32)
    else:
        with np.load(vectors) as file:
            rows = file["codes"][:wanted] * file["scale"][:wanted, None].astype(np.float32)
            asking = file["query_codes"] * file["query_scale"][:, None].astype(np.float32)
    if len(rows) < wanted:
        raise SystemExit(f"expected {wanted} vectors, {STEP_TOKENS} of them void, got {len(rows)} in {vectors}")
    # Whole questions, spread over all there are.
    starts = np.linspace(0, len(asking) - QUESTION_TOKENS, questions).astype(np.int64)
    chosen = asking[starts[:, None] + np.arange(QUESTION_TOKENS)]
    return Text(rows[:tokens], rows[tokens:], chosen)


def live(finder: Finder, text: Text, life: Life) -> Lived:
    """One session's life, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"churn-{finder}-") as folder:
        session = ChurnedSession(Path(folder), finder)
        try:
            return _lived(session, text, life)
        finally:
            session.close()


def _lived(session: ChurnedSession, text: Text, life: Life) -> Lived:
    forgotten: set[int] = set()
    answers: list[tuple[Answer, ...]] = []
    writing_s = asking_s = 0.0
    returned = 0
    reopen_s: list[float] = []
    for at, tokens in enumerate(np.split(text.tokens, life.rounds), start=1):
        begun = time.perf_counter()
        session.write(tokens)
        writing_s += time.perf_counter() - begun
        session.keep()
        forgotten.update(session.forget(len(text.tokens) // 2))
        if at in life.reopened:
            session.write(text.void)
            reopen_s.append(session.reopen())
        begun = time.perf_counter()
        answers.append(tuple(session.ask(question) for question in text.questions))
        asking_s += time.perf_counter() - begun
        returned += sum(block in forgotten for answer in answers[-1] for block in answer)
    asked = sum(len(own) for own in answers)
    return Lived(
        answers=tuple(answers),
        forgotten=len(forgotten),
        returned_forgotten=returned,
        question_ms=1e3 * asking_s / asked,
        tokens_per_s=len(text.tokens) / writing_s,
        reopen_s=tuple(reopen_s),
    )


def compared(finder: Finder, lived: Lived, truth: Lived) -> Measured:
    """One session beside the one with flat."""
    rounds = [
        float(np.mean([share_of(own, true) for own, true in zip(answers, exact, strict=True)]))
        for answers, exact in zip(lived.answers, truth.answers, strict=True)
    ]
    return Measured(
        finder=finder,
        agreement=float(np.mean(rounds)),
        agreement_worst=min(rounds),
        returned_forgotten=lived.returned_forgotten,
        forgotten=lived.forgotten,
        question_ms=lived.question_ms,
        tokens_per_s=lived.tokens_per_s,
        reopen_s=lived.reopen_s,
    )


def share_of(answer: Answer, truth: Answer) -> float:
    """Share of the true blocks that were recalled; 1 where there are none."""
    return len(set(answer) & set(truth)) / len(truth) if truth else 1.0


def _step(attachment: str, epoch: int, seq: int, first: int, tokens: Float32Array) -> memory_pb2.Step:
    return memory_pb2.Step(
        attachment=attachment,
        epoch=epoch,
        seq=seq,
        first_position=first,
        count=len(tokens),
        ids=np.arange(first, first + len(tokens), dtype="<u4").tobytes(),
        embeddings={STREAM: codec.encode(np.ascontiguousarray(tokens))},
    )


def _line(own: Measured) -> str:
    return (
        f"{own.finder:10} {own.agreement:9.4f} {own.agreement_worst:8.4f} {own.returned_forgotten:9} "
        f"{own.forgotten:10} {own.question_ms:12.2f} {own.tokens_per_s:9.0f}  "
        f"{' '.join(f'{seconds:.1f}' for seconds in own.reopen_s)}"
    )


def _record(chosen: argparse.Namespace, found: Sequence[Measured]) -> None:
    vectors = f" --vectors {chosen.vectors.name}" if chosen.vectors else ""
    command = f"{COMMAND}{vectors} --tokens {chosen.tokens} --rounds {chosen.rounds} --reopenings {chosen.reopenings}"
    command += f" --questions {chosen.questions} --seed {chosen.seed} --record"
    details: dict[str, object] = {"command": command, "device": cpu_name(), "numpy": np.__version__}
    details |= {"seeds": [chosen.seed], "rows": [asdict(own) for own in found]}
    (ROOT / RESULTS / RESULT).write_text(json.dumps(details, indent=1) + "\n")
    record([row for own in found for row in rows_of(own, command, chosen.seed)])


def rows_of(own: Measured, command: str, seed: int) -> list[Row]:
    """What the issue asks for of a finder."""
    least, agreement = GOALS[own.finder] or 0.0, round(own.agreement, 4)
    name = f"{own.finder} under churn, share of flat's 16 best blocks"
    returned = f"{own.finder} under churn, forgotten blocks recalled"
    seeds = (seed,)
    return [
        Row(4, name, agreement, f"at least {least}", agreement >= least, command, seeds=seeds),
        Row(4, returned, own.returned_forgotten, "exactly 0", own.returned_forgotten == 0, command, seeds=seeds),
    ]


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="real embeddings; synthetic ones if left out")
    parser.add_argument("--tokens", type=int, default=16_384, help="bookmarks, a multiple of 256 a round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--reopenings", type=int, default=2, help="rounds that end with opening anew")
    parser.add_argument("--questions", type=int, default=20, help="after each round")
    parser.add_argument("--finders", nargs="+", default=["hnsw", "faiss", "dictionary", "walk"], choices=sorted(GOALS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/bench_churn.json and the rows")
    chosen = parser.parse_args(arguments)
    if chosen.tokens % (chosen.rounds * STEP_TOKENS):
        parser.error(f"expected --tokens a multiple of {chosen.rounds * STEP_TOKENS}, got {chosen.tokens}")
    return chosen


if __name__ == "__main__":
    main()
