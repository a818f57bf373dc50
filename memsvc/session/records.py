"""The records of a session's log: kinds, and their bodies as msgpack maps.

    kind       key          value (arrays as bytes, little-endian, row-major)
    SESSION 1  name         str; the first record, so that a session can be told without the manifest
               spec         serialised SessionSpec
               fork         of a fork only: see `memsvc.session.lineage`, as for the bodies of 6 to 8
    OPENED  2  attachment   str; a writer opened, in the record's epoch
               worker       str
               position     int, of the newest tail; every earlier record after that tail is void from here on
    STEP    3  attachment   str
               seq          int
               first        int, position of the first token
               count        int
               gap          int, tokens dropped before it
               ids          uint32 [count] or [0]
               text         UTF-8 of all tokens, and
               text_sizes   uint32 [count], bytes of each: both only where text was sent
               signals      {name: float32 [count]}
               block_gaps   int64 [n, 2], first and end of ranges dropped
               decided      int64 [d] positions that the policy settled, and
               signal       float32 [d], forced bool [d]
               measured     {signal: float32 [t]} of the tokens that the policy was fed: those of this step, or all that
                            waited for the centre
               raw          {stream: serialised Tensor} before centring, else {}
               kept         int64 [k] positions after centring, and rows {stream: int16 [k, dims]}: of the tokens
                            decided and of the newest, which is all that anything later needs
               and the keys of centring and links
    BLOCK   4  block, partial_tokens, segment, offset, size_bytes, crc32c: int
               unix_ms      int, when it was put; not in older logs
    TAIL    5  tail         serialised Tail
               measured     as in STEP, where tokens waited for the centre until here
               and the keys of centring and links
    SNAPSHOT 6, SNAPSHOT_DROPPED 7, RENAMED 8
    FORGOTTEN  blocks       int64 [n, 2], first and end of ranges whose bytes left: gaps from here on
            9  why          str
    centring   centre       {stream: float64 [dims], one more with DOT} in the one record that froze it, else {}
    links      parents      int64 [b, links_max] of the bookmarks that entered the graph with this record: those decided
               weights      float32 [b, links_max]      earlier that waited for the centre, and those decided here

Invariants:
    Unpacking what was packed gives equal values.
    A body that lacks a key or has one of another type or size is a CorruptLog.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from memsvc.blocks import BlockRef
from memsvc.errors import CorruptLog
from memsvc.policy import Decision, Measured
from memsvc.scoring import make_scorer
from memsvc.session.steps import TokenStep, decode_embeddings
from memsvc.session.tokens import TokenText
from memsvc.session.vectors import Centre, TokenRows
from memsvc.shards.base import Float32Array, Int64Array
from protos.memsvc.v1 import session_pb2, types_pb2

Body = Mapping[str, Any]
BoolArray = npt.NDArray[np.bool_]


class RecordKind(IntEnum):
    """What a record says. Numbers are stored: none is ever used again for something else."""

    SESSION = 1
    OPENED = 2
    STEP = 3
    BLOCK = 4
    TAIL = 5
    SNAPSHOT = 6
    SNAPSHOT_DROPPED = 7
    RENAMED = 8
    FORGOTTEN = 9


# Kinds that count even where what was written around them is void.
LASTING = frozenset((RecordKind.SNAPSHOT, RecordKind.SNAPSHOT_DROPPED, RecordKind.RENAMED, RecordKind.FORGOTTEN))


@dataclass(frozen=True)
class Decided:
    """Tokens that the policy settled on, by position; int64 [d], float32 [d] and bool [d]."""

    positions: Int64Array
    signal: Float32Array
    forced: BoolArray

    @classmethod
    def of(cls, decisions: list[Decision]) -> "Decided":
        """Decisions as arrays."""
        return cls(
            np.array([decision.position for decision in decisions], dtype=np.int64),
            np.array([decision.signal for decision in decisions], dtype=np.float32),
            np.array([decision.forced for decision in decisions], dtype=np.bool_),
        )

    def __len__(self) -> int:
        return len(self.positions)

    def then(self, later: "Decided") -> "Decided":
        """These and later ones."""
        return Decided(
            np.concatenate([self.positions, later.positions]),
            np.concatenate([self.signal, later.signal]),
            np.concatenate([self.forced, later.forced]),
        )

    def equals(self, other: "Decided") -> bool:
        """Whether all values are the same, bit for bit."""
        return all(getattr(self, own.name).tobytes() == getattr(other, own.name).tobytes() for own in fields(self))


@dataclass(frozen=True)
class Entry:
    """Bookmarks that entered the graph, as their links: int64 and float32 [b, links_max], strongest first, -1 for none.

    Args:
        centre: If this is when the centre was frozen.
    """

    parents: Int64Array
    weights: Float32Array
    centre: Centre | None = None


@dataclass(frozen=True)
class StepRecord:
    """A step that was applied.

    Args:
        kept: Vectors of the tokens that anything later needs; None before centring, and in the step that froze it.
        measured: What the policy's measures gave for the tokens that it was fed.
    """

    attachment: str
    seq: int
    step: TokenStep
    decided: Decided
    kept: TokenRows | None
    entry: Entry
    measured: Measured = field(default_factory=dict)


@dataclass(frozen=True)
class OpenedRecord:
    """A writer that opened; `position` is where it began."""

    attachment: str
    worker: str
    position: int


@dataclass(frozen=True)
class TailRecord:
    """A tail, and what was measured and entered the graph because of it."""

    tail: session_pb2.Tail
    entry: Entry
    measured: Measured = field(default_factory=dict)


@dataclass(frozen=True)
class ForgottenRecord:
    """Blocks whose bytes left the session, and why; bookmarks and links stay."""

    blocks: tuple[range, ...]
    why: str


@dataclass(frozen=True)
class Layout:
    """What sizes arrays of a session's records.

    Args:
        dims: Dimensions of each stream, by name.
        frozen: Numbers that centring fixes of each stream, by name.
        links_max: Links of a bookmark.
    """

    dims: Mapping[str, int]
    frozen: Mapping[str, int]
    links_max: int

    @classmethod
    def of(cls, spec: types_pb2.SessionSpec) -> "Layout":
        """Of sessions made with this spec."""
        dims = {stream.name: stream.dims for stream in spec.fingerprint.streams}
        scorer = make_scorer(spec.search.metric)
        frozen = {name: scorer.frozen_size(own) for name, own in dims.items()}
        return cls(dims, frozen, spec.search.links_max)


def pack_session(name: str, spec: types_pb2.SessionSpec) -> Body:
    """Body of a SESSION record."""
    return {"name": name, "spec": spec.SerializeToString(deterministic=True)}


def pack_opened(record: OpenedRecord) -> Body:
    """Body of an OPENED record."""
    return {"attachment": record.attachment, "worker": record.worker, "position": record.position}


def unpack_opened(body: Body) -> OpenedRecord:
    """Back from its body. Raises CorruptLog."""
    with unpacking("OPENED"):
        return OpenedRecord(str(body["attachment"]), str(body["worker"]), int(body["position"]))


def pack_step(record: StepRecord) -> Body:
    """Body of a STEP record."""
    step, kept = record.step, record.kept
    gaps = np.array([[gap.start, gap.stop] for gap in step.block_gaps], dtype=np.int64)
    return {
        "attachment": record.attachment,
        "seq": record.seq,
        "first": step.first_position,
        "count": step.count,
        "gap": step.gap_tokens,
        "ids": step.ids.tobytes(),
        "signals": {name: values.tobytes() for name, values in step.signals.items()},
        "block_gaps": gaps.tobytes(),
        "decided": record.decided.positions.tobytes(),
        "signal": record.decided.signal.tobytes(),
        "forced": record.decided.forced.tobytes(),
        "measured": _pack_measured(record.measured),
        "raw": {name: own.SerializeToString() for name, own in step.tensors.items()} if kept is None else {},
        "kept": kept.positions.tobytes() if kept is not None else b"",
        "rows": {name: rows.tobytes() for name, rows in kept.rows.items()} if kept is not None else {},
        **_pack_entry(record.entry),
        **_pack_text(step.text),
    }


def unpack_step(body: Body, layout: Layout) -> StepRecord:
    """Back from its body. Raises CorruptLog."""
    with unpacking("STEP"):
        tensors = {name: types_pb2.Tensor.FromString(own) for name, own in body["raw"].items()}
        gaps = np.frombuffer(body["block_gaps"], dtype="<i8").reshape(-1, 2).tolist()
        step = TokenStep(
            first_position=int(body["first"]),
            count=int(body["count"]),
            gap_tokens=int(body["gap"]),
            ids=np.frombuffer(body["ids"], dtype="<u4"),
            signals={name: np.frombuffer(values, dtype="<f4") for name, values in body["signals"].items()},
            block_gaps=tuple(range(first, end) for first, end in gaps),
            tensors=tensors,
            embeddings=decode_embeddings(tensors),
            text=_unpack_text(body),
        )
        _check_sizes(step)
        decided = Decided(
            np.frombuffer(body["decided"], dtype="<i8"),
            np.frombuffer(body["signal"], dtype="<f4"),
            np.frombuffer(body["forced"], dtype=np.bool_),
        )
        return StepRecord(
            attachment=str(body["attachment"]),
            seq=int(body["seq"]),
            step=step,
            decided=decided,
            kept=None if tensors else _unpack_rows(body, layout),
            entry=_unpack_entry(body, layout),
            measured=_unpack_measured(body),
        )


def pack_block(ref: BlockRef) -> Body:
    """Body of a BLOCK record."""
    return {own.name: getattr(ref, own.name) for own in fields(ref)}


def unpack_block(body: Body) -> BlockRef:
    """Back from its body. Raises CorruptLog."""
    with unpacking("BLOCK"):
        return BlockRef(**{own.name: int(body[own.name]) for own in fields(BlockRef)})


def pack_tail(record: TailRecord) -> Body:
    """Body of a TAIL record."""
    measured = _pack_measured(record.measured)
    return {"tail": record.tail.SerializeToString(), "measured": measured, **_pack_entry(record.entry)}


def unpack_tail(body: Body, layout: Layout) -> TailRecord:
    """Back from its body. Raises CorruptLog."""
    with unpacking("TAIL"):
        tail = session_pb2.Tail.FromString(body["tail"])
        return TailRecord(tail, _unpack_entry(body, layout), _unpack_measured(body))


def pack_forgotten(record: ForgottenRecord) -> Body:
    """Body of a FORGOTTEN record."""
    blocks = np.array([[own.start, own.stop] for own in record.blocks], dtype=np.int64)
    return {"blocks": blocks.tobytes(), "why": record.why}


def unpack_forgotten(body: Body) -> ForgottenRecord:
    """Back from its body. Raises CorruptLog."""
    with unpacking("FORGOTTEN"):
        blocks = np.frombuffer(body["blocks"], dtype="<i8").reshape(-1, 2).tolist()
        return ForgottenRecord(tuple(range(first, end) for first, end in blocks), str(body["why"]))


def _check_sizes(step: TokenStep) -> None:
    """Raises ValueError where ids or signals are not those of the step's tokens."""
    sizes = {"ids": len(step.ids) or step.count, **{name: len(own) for name, own in step.signals.items()}}
    if set(sizes.values()) != {step.count}:
        raise ValueError(f"expected ids and signals of {step.count} tokens, got {sizes}")


def _pack_text(text: TokenText | None) -> dict[str, bytes]:
    return {} if text is None else {"text": text.data, "text_sizes": text.sizes.tobytes()}


def _unpack_text(body: Body) -> TokenText | None:
    if "text" not in body:
        return None
    text = TokenText(bytes(body["text"]), np.frombuffer(body["text_sizes"], dtype="<u4"))
    if len(text.sizes) != int(body["count"]) or int(text.sizes.sum(dtype=np.int64)) != len(text.data):
        raise ValueError(f"expected text of {int(body['count'])} tokens, got that of {len(text.sizes)}")
    return text


def _pack_measured(measured: Measured) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in measured.items()}


def _unpack_measured(body: Body) -> Measured:
    return {str(name): np.frombuffer(values, dtype="<f4") for name, values in body["measured"].items()}


def _pack_entry(entry: Entry) -> dict[str, Any]:
    centre = entry.centre or {}
    return {
        "centre": {name: values.tobytes() for name, values in centre.items()},
        "parents": entry.parents.tobytes(),
        "weights": entry.weights.tobytes(),
    }


def _unpack_entry(body: Body, layout: Layout) -> Entry:
    parents = np.frombuffer(body["parents"], dtype="<i8").reshape(-1, layout.links_max)
    weights = np.frombuffer(body["weights"], dtype="<f4").reshape(parents.shape)
    if not (packed := body["centre"]):
        return Entry(parents, weights)
    centre = {name: np.frombuffer(packed[name], dtype="<f8").reshape(size) for name, size in layout.frozen.items()}
    return Entry(parents, weights, centre)


def _unpack_rows(body: Body, layout: Layout) -> TokenRows:
    positions = np.frombuffer(body["kept"], dtype="<i8")
    rows = {
        name: np.frombuffer(body["rows"][name], dtype="<i2").reshape(len(positions), dims)
        for name, dims in layout.dims.items()
    }
    return TokenRows(positions, rows)


@contextmanager
def unpacking(kind: str) -> Iterator[None]:
    """Around reading a body: what is missing or of another type is a CorruptLog that names the kind."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, DecodeError) as error:
        raise CorruptLog(f"expected a whole {kind} record, got {type(error).__name__}: {error}") from error
