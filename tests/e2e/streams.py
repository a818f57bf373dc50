"""A stream of embeddings, signals and blocks without a model: what the server sees, at any step size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attn_client.memory import MemorySession, RecallAnswer, RecallAsk, StepRecord
from attn_client.session_spec import session_spec
from attn_client.settings import BLOCK_TOKENS, BookmarkSettings
from protos.memsvc.v1 import types_pb2

DIMS = 96
SINKS, WINDOW = 64, 128
BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Stream:
    """Tokens of a made-up text that returns to its topics: embeddings [n, DIMS], surprisal [n], ids [n]."""

    embeddings: npt.NDArray[np.float32]
    surprisal: npt.NDArray[np.float32]
    ids: npt.NDArray[np.uint32]

    def block(self, block: int) -> npt.NDArray[np.uint8]:
        """Bytes of a block; they depend on its number alone."""
        return np.random.default_rng(block).integers(0, 256, BLOCK_BYTES, dtype=np.uint8)

    def spec(self, bookmarks: BookmarkSettings) -> types_pb2.SessionSpec:
        """A session for such a stream."""
        fingerprint = types_pb2.Fingerprint(
            model="made-up",
            memory_layers=[0],
            dtype=types_pb2.ELEMENT_TYPE_FLOAT32,
            sink_tokens=SINKS,
            window_tokens=WINDOW,
            chunk_tokens=64,
            budget_blocks=16,
            streams=[types_pb2.StreamSpec(name="probe", dims=DIMS, weight=1.0)],
            block_bytes=BLOCK_BYTES,
        )
        return session_spec(fingerprint, bookmarks)

    def record(self, first: int, end: int, ask: RecallAsk | None) -> StepRecord:
        """Tokens [first, end) as a step."""
        start = max(SINKS, BLOCK_TOKENS * ((end - WINDOW) // BLOCK_TOKENS))
        return StepRecord(
            first_position=first,
            ids=self.ids[first:end],
            embeddings={"probe": self.embeddings[first:end]},
            signals={"surprisal": self.surprisal[first:end]},
            resident=(start, max(0, end - start)),
            recall=ask,
        )


def stream_of(tokens: int, seed: int) -> Stream:
    """A stream whose tokens lie around a dozen topics, each returning many times."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(12, DIMS))
    topic = np.repeat(rng.integers(0, len(topics), tokens // 25 + 1), 25)[:tokens]
    embeddings = (topics[topic] + 0.8 * rng.normal(size=(tokens, DIMS))).astype(np.float32)
    surprisal = rng.gamma(2.0, 1.5, tokens).astype(np.float32)
    return Stream(embeddings, surprisal, rng.integers(0, 99, tokens, dtype=np.uint32))


def send(
    session: MemorySession, stream: Stream, sizes: Sequence[int], *, ask_at: Sequence[int], ask: RecallAsk
) -> list[RecallAnswer | None]:
    """Send the whole stream in steps of these sizes in turn, blocks as they fill, asking at these positions."""
    total, first, turn = len(stream.ids), session.position, 0
    asked: list[int | None] = []
    while first < total:
        stops = [position + 1 for position in ask_at if position >= first]
        end = min(first + sizes[turn % len(sizes)], total, *stops)
        wanted = ask if end - 1 in ask_at else None
        seq = session.append(stream.record(first, end, wanted), wait=True)
        if wanted is not None:
            asked.append(seq)
        for block in range(first // BLOCK_TOKENS, end // BLOCK_TOKENS):
            session.put_block(block, stream.block(block), wait=True)
        first, turn = end, turn + 1
    return [session.recall(seq, 20.0) if seq is not None else None for seq in asked]
