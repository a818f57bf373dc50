"""What a session takes, a token: `python -m benchmarks.bench_space`.

RAM is memory that no file stands behind, of everything that a session holds: codes, links, levels, positions, ids, and
what its libraries keep. It is the growth of a whole process from one length to a longer one, so what is there anyhow
does not count. Vectors, which are mapped files, and the disk stand beside it. Blocks are not counted: they are the
model's.
"""

import argparse
import ctypes
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.bench_insertion import STEP_TOKENS, Tokens, message_of, spec_of, steps_of
from benchmarks.own_session import new_writer, served
from benchmarks.summary import RESULTS, ROOT, Row, cpu_name, record
from protos.memsvc.v1 import types_pb2

# SmolLM2's KV of a token in bfloat16, and the share of it that memory may take.
KV_BYTES_A_TOKEN = 22.5 * 1024
SHARE = 0.01
COMMAND = "python -m benchmarks.bench_space --record"


@dataclass(frozen=True)
class Space:
    """Bytes a token between two lengths."""

    tokens: tuple[int, int]
    bookmarks: int
    ram: float
    mapped: float
    log: float
    files: float


def main() -> None:
    """Measure, print, and record where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs=2, default=[65_536, 262_144], help="shorter and longer")
    parser.add_argument("--coverage", type=float, default=0.15)
    parser.add_argument("--finder", default="auto")
    parser.add_argument("--vectors", type=Path, help="as in benchmarks.bench_insertion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    spec = spec_of("surprisal", chosen.finder, chosen.coverage)
    own = space_of(spec, steps_of(chosen), (chosen.tokens[0], chosen.tokens[1]))
    print(
        f"bytes a token, {own.tokens[0]:,} to {own.tokens[1]:,} tokens, {own.bookmarks:,} bookmarks: "
        f"RAM {own.ram:.0f}, mapped vectors {own.mapped:.0f}; on disk: log {own.log:.0f}, all {own.files:.0f}"
    )
    if chosen.record:
        report = {"command": COMMAND, "device": cpu_name(), "seeds": [chosen.seed], **asdict(own)}
        (ROOT / RESULTS / "bench_space.json").write_text(json.dumps(report, indent=2) + "\n")
        most = round(SHARE * KV_BYTES_A_TOKEN, 1)
        name = f"RAM of a session, {chosen.finder}, {chosen.coverage:.0%} coverage, bytes a token"
        record([Row(4, name, round(own.ram, 1), f"at most {most}", own.ram <= most, COMMAND, seeds=(chosen.seed,))])


def space_of(spec: types_pb2.SessionSpec, steps: Iterator[Tokens], tokens: tuple[int, int]) -> Space:
    """Feed one session up to both lengths."""
    with tempfile.TemporaryDirectory(dir=ROOT / RESULTS) as place, served(folder := Path(place)) as sessions:
        writer, seen = new_writer(sessions, spec), []
        for seq in range(1, tokens[1] // STEP_TOKENS + 1):
            ack, _ = writer.session.apply(writer, message_of(next(steps), seq, writer.epoch))
            if seq * STEP_TOKENS in tokens:
                seen.append((*_memory(), _disk(folder, "log"), _disk(folder, "*")))
    grown = [(after - before) / (tokens[1] - tokens[0]) for before, after in zip(*seen, strict=True)]
    return Space(tokens, ack.bookmarks, *grown)


def _memory() -> tuple[int, int]:
    """Bytes of this process without and with a file behind them, once what was freed is given back."""
    ctypes.CDLL(None).malloc_trim(0)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["RssAnon"].split()[0]), 1024 * int(lines["RssFile"].split()[0])


def _disk(folder: Path, pattern: str) -> int:
    return sum(512 * os.stat(path).st_blocks for path in folder.rglob(pattern) if path.is_file())


if __name__ == "__main__":
    main()
