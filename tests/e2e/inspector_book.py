"""Sessions for the inspector's tests: one that a worker reads through a real server, and large ones made in place."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics as topics_of_python

import numpy as np

from memsvc.session import Session
from protos import codec
from protos.memsvc.v1 import memory_pb2, session_pb2, types_pb2
from tests.integration.server_process import (
    TIMEOUT_S,
    ServerProcess,
    Stubs,
    Worker,
    block_data,
    put,
    served,
    spec,
)

DIMS = 32
TOPICS = 14
STEP_TOKENS = 64
# A topic lasts so long before another comes, or comes back.
RUN_TOKENS = 96


def book_spec(link_search: "types_pb2.LinkSearch.ValueType" = types_pb2.LINK_SEARCH_WALK) -> types_pb2.SessionSpec:
    """Every fifth token or so a bookmark, linked by the walk."""
    own = spec()
    own.fingerprint.streams[0].dims = DIMS
    own.policy.CopyFrom(types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_SURPRISAL, coverage=0.2))
    own.search.link_search = link_search
    own.keep_text = True
    own.search.links_max = 3
    own.search.centring_tokens = 1024
    own.search.link_similarity_min = 0.5
    own.search.trail_blocks = 8
    own.search.trail_tokens = 64
    return own


class Book:
    """Passages of the language reference, topic after topic and back again; its numbers depend on the seed alone.

    A token is a word with the space before it.
    """

    def __init__(self, tokens: int, seed: int = 1) -> None:
        dice = np.random.default_rng(seed)
        topics = dice.standard_normal((TOPICS, DIMS))
        at = np.repeat(dice.integers(0, TOPICS, tokens // RUN_TOKENS + 1), RUN_TOKENS)[:tokens]
        self.tokens = tokens
        words = [topics_of_python[key].split() for key in sorted(topics_of_python, key=_length)[-TOPICS:]]
        # Each topic goes on where it broke off.
        place = np.zeros(tokens, dtype=np.int64)
        for topic in range(TOPICS):
            own = np.flatnonzero(at == topic)
            place[own] = np.arange(len(own))
        self.pieces = [
            f" {words[topic][spot % len(words[topic])]}".encode()
            for topic, spot in zip(at.tolist(), place.tolist(), strict=True)
        ]
        self.rows = (topics[at] + 0.75 * dice.standard_normal((tokens, DIMS))).astype(np.float32)
        self.ids = np.array([zlib.crc32(own) % 49_152 for own in self.pieces], dtype="<u4")
        self.surprisal = dice.gamma(2.0, 2.0, tokens).astype(np.float32)

    def step(self, attachment: str, epoch: int, first: int, **changed: object) -> memory_pb2.Step:
        """The step that begins at `first`."""
        end = min(self.tokens, first + STEP_TOKENS)
        fields = {
            "attachment": attachment,
            "epoch": epoch,
            "seq": first // STEP_TOKENS + 1,
            "first_position": first,
            "count": end - first,
            "ids": self.ids[first:end].tobytes(),
            "embeddings": {"probe": codec.encode(self.rows[first:end])},
            "signals": {"surprisal": codec.encode(self.surprisal[first:end])},
            "durability": types_pb2.DURABILITY_BUFFERED,
            "text": b"".join(self.pieces[first:end]),
            "text_sizes": np.array([len(own) for own in self.pieces[first:end]], dtype="<u4").tobytes(),
            **changed,
        }
        return memory_pb2.Step(**fields)


def _length(topic: str) -> int:
    return len(topics_of_python[topic])


class Reading:
    """A worker that reads a book into a session, and asks now and then."""

    def __init__(self, stubs: Stubs, name: str, book: Book, own: types_pb2.SessionSpec | None = None) -> None:
        chosen = own or book_spec()
        self._keep_text = chosen.keep_text
        stubs.sessions.CreateSession(session_pb2.CreateSessionRequest(name=name, spec=chosen), timeout=TIMEOUT_S)
        self._stubs, self.name, self._book, self._position = stubs, name, book, 0
        self.worker = Worker(stubs, f"worker-{name}")
        self.worker.receive()
        self._epoch = self.worker.open(name, name, fingerprint=chosen.fingerprint).epoch

    def read(self, end: int, ask_every: int = 0) -> None:
        """Reads up to a position, and asks for a recall each so many steps."""
        while self._position < end:
            block = self._position // STEP_TOKENS
            changed: dict[str, object] = {} if self._keep_text else {"text": b"", "text_sizes": b""}
            asks = ask_every and block > 4 and block % ask_every == 0
            if asks:
                changed["recall"] = memory_pb2.RecallRequest(
                    top_blocks=5,
                    neighbours=1,
                    budget_blocks=10,
                    deadline_ms=20_000,
                    blocks_through=block,
                    hops=memory_pb2.HopRequest(hops=2, blocks=2),
                )
            self.worker.steps(self._book.step(self.name, self._epoch, self._position, **changed))
            assert self.worker.receive().HasField("ack")
            request = put(self.name, self._epoch, block, block_data(block))
            (answer,) = self._stubs.blocks.PutBlocks(iter([request]), timeout=TIMEOUT_S)
            assert answer.reason == "", answer.message
            if asks:
                assert self.worker.receive().HasField("recall")
            self._position += STEP_TOKENS


@contextmanager
def watched(folder: Path, *arguments: str) -> Iterator[tuple[ServerProcess, str]]:
    """A server process that serves its inspector, and where."""
    with served(folder, "--http", "127.0.0.1:0", *arguments) as server:
        assert server.process.stdout is not None
        line = server.process.stdout.readline()
        assert line.startswith("memsvc: http on "), line
        yield server, line.split()[-1]


def grow(session: Session, bookmarks: int, seed: int = 1) -> None:
    """Gives a session so many bookmarks at once, as if it had read for hours: links and chains, no vectors."""
    dice = np.random.default_rng(seed)
    state = session.core.state
    positions = np.cumsum(dice.integers(2, 9, bookmarks)).astype(np.int64)
    parents = np.full((bookmarks, 3), -1, dtype=np.int64)
    at = np.arange(bookmarks)
    near = at - 1 - dice.integers(0, 40, bookmarks)
    far = (dice.random(bookmarks) * at).astype(np.int64)
    begins = dice.random(bookmarks) < 0.004
    parents[:, 0] = np.where(begins | (near < 0), -1, near)
    second = (parents[:, 0] >= 0) & (far != parents[:, 0]) & (dice.random(bookmarks) < 0.3) & (at > 0)
    parents[second, 1] = far[second]
    weights = np.where(parents >= 0, 0.4 + 0.5 * dice.random((bookmarks, 3)), 0.0).astype(np.float32)
    weights[:, 1] = np.minimum(weights[:, 1], weights[:, 0])
    signal = dice.gamma(2.0, 2.0, bookmarks).astype(np.float32)
    tokens = int(positions[-1]) + 1
    with session.core.lock:
        state.graph.extend(positions, parents, weights, signal, np.zeros(bookmarks, dtype=np.bool_))
        state.tokens.append(0, tokens, dice.integers(0, 50_000, tokens).astype(np.uint32))
