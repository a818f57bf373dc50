"""The protocol's records as those of the views, and a session's fields as text.

Must not know: HTTP, sessions themselves.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from google.protobuf.message import Message

from memsvc.inspector.shapes import Difference, Passage, RecallRow, SessionRow, Token
from memsvc.session.overview import RecallSummary
from protos.memsvc.v1 import graph_pb2, types_pb2

# Recalls that a view lists: more than a node remembers unless it is set to remember more.
RECALLS_MAX = 256


def session_row(info: types_pb2.SessionInfo) -> SessionRow:
    """A session in figures."""
    return SessionRow(
        name=info.name,
        tokens=info.tokens,
        tail_position=info.tail_position,
        bookmarks=info.bookmarks,
        chains=info.chains,
        links=info.links,
        blocks=info.blocks,
        stored_bytes=info.stored_bytes,
        writer=info.writer,
        created_unix_ms=info.created_unix_ms,
        finder_status=info.finder_status,
        snapshots=info.snapshots,
        fork_position=info.fork_position,
        parent_id=info.parent_id,
        id=info.id,
        token_gaps=_pairs(info.token_gaps),
        block_gaps=_pairs(info.block_gaps),
    )


def recall_rows(recalls: Iterable[RecallSummary]) -> list[RecallRow]:
    """Recalls, the newest first."""
    return [RecallRow(own.asked_at, list(own.blocks), own.best_z) for own in list(recalls)[:RECALLS_MAX]]


def tokens_of(read: graph_pb2.ReadTokensResponse) -> list[Token]:
    """Tokens that were read."""
    ids: list[int] = np.frombuffer(read.ids, dtype="<u4").tolist()
    positions = [at for own in read.positions for at in range(own.first, own.first + own.count)]
    texts = _texts(read.text, read.text_sizes) if read.text_sizes else [None] * len(ids)
    return [Token(position, own, text) for position, own, text in zip(positions, ids, texts, strict=True)]


def _texts(data: bytes, sizes: bytes) -> list[str | None]:
    """The text of each token; a character that several tokens make up is the last one's."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    ends = np.cumsum(np.frombuffer(sizes, dtype="<u4"), dtype=np.int64).tolist()
    return [decoder.decode(data[start:end]) for start, end in pairwise([0, *ends])]


def cut(tokens: Sequence[Token], first: int, end: int) -> Passage:
    """Those of the tokens that lie in a range."""
    return Passage(first, max(0, end - first), [own for own in tokens if first <= own.position < end])


def differences(left: types_pb2.SessionSpec, right: types_pb2.SessionSpec) -> list[Difference]:
    """Fields in which two specs differ, in their order."""
    return list(_differences("", left, right))


def _differences(place: str, left: Message, right: Message) -> Iterator[Difference]:
    for field in left.DESCRIPTOR.fields:
        own, other = getattr(left, field.name), getattr(right, field.name)
        if own == other:
            continue
        name = f"{place}{field.name}"
        if field.message_type is not None and not field.is_repeated:
            yield from _differences(f"{name}.", own, other)
        else:
            yield Difference(name, _told(own, field.enum_type), _told(other, field.enum_type))


def _told(value: object, names: Any) -> str:
    """A field's value; `names` is its enum's descriptor, if it has one."""
    if names is not None and isinstance(value, int):
        known = names.values_by_number.get(value)
        return known.name.lower() if known is not None else str(value)
    text = str(value).replace("\n", " ").strip()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _pairs(ranges: Iterable[types_pb2.Range]) -> list[list[int]]:
    return [[own.first, own.count] for own in ranges]
