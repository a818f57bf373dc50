"""What tests of sessions share: a made-up text's embeddings, a small spec, and a writer that sends steps and blocks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from memsvc.geometry import BLOCK_TOKENS
from memsvc.manifest import SqliteManifest
from memsvc.session import PendingRecall, Session, SessionLimits, Sessions
from memsvc.storage import MACHINE, Machine
from protos import codec
from protos.memsvc.v1 import memory_pb2, session_pb2, types_pb2

DIMS = 12
BLOCK_BYTES = 96
LIMITS = SessionLimits(
    sessions_max=8, step_tokens_max=4096, recalls_remembered=16, block_bytes_max=1 << 20, stream_dims_max=1024
)
POLICIES = {
    "every": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_EVERY),
    "fixed": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_FIXED, every_tokens=100),
    "surprisal": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_SURPRISAL, coverage=0.2),
    "relevance": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_RELEVANCE, coverage=0.2, compared_bookmarks=50),
    "novelty": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_NOVELTY, coverage=0.2),
    "distance": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_DISTANCE, coverage=0.2),
    "topic_shift": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_TOPIC_SHIFT, coverage=0.2),
    "rarity": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_RARITY, coverage=0.2),
    "attention": types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_ATTENTION, coverage=0.2),
    "hybrid": types_pb2.PolicySpec(
        kind=types_pb2.POLICY_KIND_HYBRID,
        coverage=0.2,
        weights=[
            types_pb2.PolicyWeight(kind=types_pb2.POLICY_KIND_SURPRISAL, weight=1.0),
            types_pb2.PolicyWeight(kind=types_pb2.POLICY_KIND_NOVELTY, weight=2.0),
            types_pb2.PolicyWeight(kind=types_pb2.POLICY_KIND_TOPIC_SHIFT, weight=0.5),
            types_pb2.PolicyWeight(kind=types_pb2.POLICY_KIND_RARITY, weight=0.5),
        ],
    ),
}
METRICS = {
    "cosine": types_pb2.METRIC_COSINE,
    "dot": types_pb2.METRIC_DOT,
    "pearson": types_pb2.METRIC_PEARSON,
}


def session_spec(
    policy: str = "surprisal", centring_tokens: int = 100, streams: int = 2, metric: str = "cosine"
) -> types_pb2.SessionSpec:
    """A small spec: sinks and window of one block, a trail of 40 tokens over 5 blocks."""
    return types_pb2.SessionSpec(
        fingerprint=types_pb2.Fingerprint(
            model="a" * 64,
            tokenizer="b" * 64,
            rope="c" * 64,
            dtype=types_pb2.ELEMENT_TYPE_BFLOAT16,
            memory_layers=[1, 2],
            sink_tokens=BLOCK_TOKENS,
            window_tokens=BLOCK_TOKENS,
            chunk_tokens=256,
            budget_blocks=8,
            streams=[types_pb2.StreamSpec(name=f"s{at}", dims=DIMS + at, weight=1 - at / 4) for at in range(streams)],
            block_bytes=BLOCK_BYTES,
        ),
        policy=POLICIES[policy],
        search=types_pb2.SearchSpec(
            finder=types_pb2.FINDER_KIND_FLAT,
            trail_blocks=5,
            trail_decay=0.9,
            trail_tokens=40,
            links_max=3,
            link_similarity_min=0.3,
            centring_tokens=centring_tokens,
            metric=METRICS[metric],
        ),
    )


@dataclass(frozen=True)
class Text:
    """Tokens of a made-up text around 30 topics: ids, signals, and bfloat16 embeddings by stream."""

    tokens: int
    seed: int = 1
    dims: dict[str, int] = field(default_factory=lambda: {"s0": DIMS, "s1": DIMS + 1})

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        topic = np.repeat(generator.integers(0, 30, self.tokens // 8 + 1), 8)[: self.tokens]
        rows = {}
        for name, dims in self.dims.items():
            topics = generator.standard_normal((30, dims))
            values = topics[topic] + 0.6 * generator.standard_normal((self.tokens, dims)) + 2.0
            rows[name] = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        # Drawn apart, so that what came before it stays as it was.
        mass = np.random.default_rng((self.seed, 1)).gamma(1.0, 1.0, self.tokens).astype(np.float32)
        object.__setattr__(self, "mass", mass)
        object.__setattr__(self, "ids", generator.integers(0, 50_000, self.tokens).astype(np.uint32))
        object.__setattr__(self, "surprisal", generator.gamma(2.0, 2.0, self.tokens).astype(np.float32))
        object.__setattr__(self, "rows", rows)

    def step(self, first: int, end: int) -> memory_pb2.Step:
        """Tokens `first` to `end`, exclusive, without attachment and sequence."""
        return memory_pb2.Step(
            first_position=first,
            count=end - first,
            ids=self.ids[first:end].tobytes(),
            embeddings={name: codec.encode(rows[first:end]) for name, rows in self.rows.items()},
            signals={
                "surprisal": codec.encode(self.surprisal[first:end]),
                "attention_mass": codec.encode(self.mass[first:end]),
            },
        )


def block_bytes(block: int, salt: int = 0) -> bytes:
    """The bytes of a block."""
    return np.random.default_rng((block, salt)).bytes(BLOCK_BYTES)


class Node:
    """The sessions of one data folder; `crash` leaves it as a kill would."""

    def __init__(self, data: Path, limits: SessionLimits = LIMITS, machine: Machine = MACHINE) -> None:
        data.mkdir(exist_ok=True)
        self.data = data
        self.manifest = SqliteManifest(data / "manifest.sqlite")
        self.sessions = Sessions(data, self.manifest, limits, machine)

    def crash(self) -> "Node":
        """Another node over the same folder; this one's files stay open and are never closed or synced."""
        return Node(self.data)

    def close(self) -> None:
        """Ends in order."""
        self.sessions.close()
        self.manifest.close()

    def create(self, spec: types_pb2.SessionSpec | None = None, name: str = "book") -> None:
        """Makes a session."""
        self.sessions.create(name, spec or session_spec())

    def request(
        self, attachment: str, view: bool = False, resume_epoch: int = 0, session: str = "book", snapshot: str = ""
    ) -> session_pb2.OpenSessionRequest:
        """A request of worker w-ATTACHMENT to open the session."""
        return session_pb2.OpenSessionRequest(
            session=session,
            snapshot=snapshot,
            mode=session_pb2.OPEN_MODE_VIEW if view else session_pb2.OPEN_MODE_WRITER,
            fingerprint=self.sessions.get(session).spec.fingerprint,
            worker=f"w-{attachment}",
            attachment=attachment,
            resume_epoch=resume_epoch,
        )

    def open(
        self,
        attachment: str = "one",
        view: bool = False,
        resume_epoch: int = 0,
        session: str = "book",
        snapshot: str = "",
    ) -> "Reader":
        """An attachment, ready to send."""
        request = self.request(attachment, view, resume_epoch, session, snapshot)
        return Reader(self, self.sessions.open(request), attachment)


class Reader:
    """One attachment that sends steps, blocks and tails."""

    def __init__(self, node: Node, opened: session_pb2.OpenSessionResponse, attachment: str) -> None:
        self.opened = opened
        self.attachment = node.sessions.attachment(attachment)
        self.session: Session = self.attachment.session
        self.seq = opened.applied_seq
        self.position = opened.position

    def message(
        self, text: Text, end: int, ask: memory_pb2.RecallRequest | None = None, gap: int = 0
    ) -> memory_pb2.Step:
        """The next step, up to `end`, after a gap."""
        step = text.step(self.position + gap, end)
        step.attachment, step.epoch = self.attachment.id, self.attachment.epoch
        step.seq, step.gap_tokens = self.seq + 1, gap
        if ask is not None:
            step.recall.CopyFrom(ask)
        return step

    def send(
        self, text: Text, end: int, ask: memory_pb2.RecallRequest | None = None, gap: int = 0
    ) -> PendingRecall | None:
        """Applies the next step."""
        _, pending = self.session.apply(self.attachment, self.message(text, end, ask, gap))
        self.seq, self.position = self.seq + 1, end
        return pending

    def put(self, blocks: Iterable[int], salt: int = 0) -> None:
        """Puts whole blocks."""
        for block in blocks:
            self.put_one(block, 0, block_bytes(block, salt))

    def put_one(self, block: int, partial_tokens: int, data: bytes) -> None:
        """Puts a block with its right checksum."""
        crc = google_crc32c.value(data)
        self.session.put_block(self.attachment, block, partial_tokens, data, crc, types_pb2.DURABILITY_BUFFERED)

    def read(self, text: Text, ends: Iterable[int]) -> None:
        """Sends a step up to each end, and puts the blocks that it finishes."""
        for end in ends:
            before = self.position // BLOCK_TOKENS
            self.send(text, end)
            self.put(range(before, end // BLOCK_TOKENS))

    def ask(self, text: Text, end: int, budget_blocks: int = 6) -> memory_pb2.Recall:
        """Sends a step that asks, puts what it finishes, and returns the answer."""
        before = self.position // BLOCK_TOKENS
        wanted = memory_pb2.RecallRequest(
            top_blocks=3,
            neighbours=1,
            budget_blocks=budget_blocks,
            blocks_through=0 if self.attachment.is_view else before,
        )
        pending = self.send(text, end, wanted)
        if not self.attachment.is_view:
            self.put(range(before, end // BLOCK_TOKENS))
        assert pending is not None
        assert self.session.recall_ready(pending)
        return self.session.recall(pending)

    def save_tail(self) -> None:
        """Puts the partial block and cuts a tail here."""
        block, filled = divmod(self.position, BLOCK_TOKENS)
        if filled:
            self.put_one(block, filled, block_bytes(block, 1000 + filled))
        tail = session_pb2.Tail(version=1, position=self.position, last_id=7)
        self.session.save_tail(self.attachment, self.attachment.epoch, tail)


def memory_of(session: Session) -> dict[str, object]:
    """All that a session remembers of its tokens, as plain values that compare bit for bit."""
    state = session.core.state
    total = len(state.graph)
    trail = {p: {n: row.tobytes() for n, row in rows.items()} for p, rows in state.trail._rows.items()}
    return {
        "bookmarks": state.graph.bookmarks(range(total)),
        "ids": session.read_tokens(types_pb2.Range(first=0, count=100_000)).SerializeToString(deterministic=True),
        "centre": {name: own.tobytes() for name, own in (state.vectors.centre or {}).items()},
        "held": state.vectors.held,
        "recent": {name: own.tobytes() for name, own in state.vectors.recent.rows.items()},
        "indexed": {name: len(index) for name, index in state.indexes.items()},
        "trail": trail,
        "blocks": state.blocks.whole(0, 1 << 40).tolist(),
        "gaps": (list(state.tokens.gaps), list(state.blocks.gaps)),
        "position": state.tokens.position,
        "tail": state.cut.tail.SerializeToString(),
    }
