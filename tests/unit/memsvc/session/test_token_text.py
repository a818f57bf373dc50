"""Text that a session keeps: sent with steps, logged, read back, and refused where it does not fit."""

from pathlib import Path

import numpy as np
import pytest

from memsvc.errors import InvalidRequest
from memsvc.session.tokens import TokenTable, TokenText
from protos.memsvc.v1 import graph_pb2, types_pb2
from tests.session_driver import Node, Reader, Text, session_spec

PIECES = ["Call", " me", " Ish", "mael", ".\n", "\u20ac"[:1], "<b>", ""]


def _pieces(first: int, end: int) -> list[bytes]:
    # A character of three bytes, now and then split over two tokens.
    return [
        b"\xe2\x82" if at % 16 == 14 else b"\xac" if at % 16 == 15 else PIECES[at % 8].encode()
        for at in range(first, end)
    ]


def _with_text(text: Text, first: int, end: int) -> TokenText:
    pieces = _pieces(first, end)
    return TokenText(b"".join(pieces), np.array([len(own) for own in pieces], dtype=np.uint32))


def _send(reader: Reader, text: Text, end: int, own: TokenText | None) -> None:
    message = reader.message(text, end)
    if own is not None:
        message.text, message.text_sizes = own.data, own.sizes.astype("<u4").tobytes()
    reader.session.apply(reader.attachment, message)
    reader.seq, reader.position = reader.seq + 1, end


def _read(reader: Reader, first: int, count: int) -> list[bytes]:
    told = reader.session.read_tokens(types_pb2.Range(first=first, count=count))
    return _split(told)


def _split(told: graph_pb2.ReadTokensResponse) -> list[bytes]:
    ends = np.cumsum(np.frombuffer(told.text_sizes, dtype="<u4")).tolist()
    return [told.text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def test_text_is_read_back_as_it_was_sent_and_after_a_crash(tmp_path: Path) -> None:
    """Proves ranges across steps, before and after the log is read again; steps without text have none."""
    node, text = Node(tmp_path / "data"), Text(640)
    spec = session_spec()
    spec.keep_text = True
    node.create(spec)
    reader = node.open()
    for end in (64, 100, 256):
        _send(reader, text, end, _with_text(text, reader.position, end))
    _send(reader, text, 320, None)
    _send(reader, text, 400, _with_text(text, 320, 400))
    expected = [*_pieces(0, 256), *[b""] * 64, *_pieces(320, 400)]
    for first, count in ((0, 400), (0, 1), (99, 3), (250, 100), (399, 1), (300, 10)):
        assert _read(reader, first, count) == expected[first : first + count]
    later = node.crash()
    told = later.sessions.get("book").read_tokens(types_pb2.Range(first=0, count=400))
    assert _split(told) == expected
    later.close()


def test_a_session_that_keeps_no_text_refuses_it(tmp_path: Path) -> None:
    """Proves that text is kept only where that was said when the session was made, and that nothing changed."""
    node, text = Node(tmp_path / "data"), Text(64)
    node.create()
    reader = node.open()
    with pytest.raises(InvalidRequest, match="made without keep_text"):
        _send(reader, text, 64, _with_text(text, 0, 64))
    told = reader.session.read_tokens(types_pb2.Range(first=0, count=64))
    assert (told.ids, told.text, told.text_sizes) == (b"", b"", b"")
    node.close()


@pytest.mark.parametrize(("data", "sizes"), [(b"abc", 63), (b"abc", 65), (b"x" * 65, 64), (b"", 64), (b"abc", 0)])
def test_text_that_does_not_fit_its_tokens_is_refused(tmp_path: Path, data: bytes, sizes: int) -> None:
    """Proves that sizes must be one a token and add up."""
    node, text = Node(tmp_path / "data"), Text(64)
    spec = session_spec()
    spec.keep_text = True
    node.create(spec)
    with pytest.raises(InvalidRequest, match="expected"):
        _send(node.open(), text, 64, TokenText(data, np.ones(sizes, dtype=np.uint32)))
    node.close()


def test_text_beside_gaps_stays_with_its_ids() -> None:
    """Proves that positions without ids take no text with them."""
    table = TokenTable()
    none = np.empty(0, dtype=np.uint32)
    table.append(0, 2, np.array([1, 2], dtype=np.uint32), TokenText(b"ab", np.array([1, 1], dtype=np.uint32)))
    table.append(2, 3, none)
    table.append(9, 2, np.array([3, 4], dtype=np.uint32), TokenText(b"cde", np.array([1, 2], dtype=np.uint32)))
    read = table.read(1, 9)
    assert read.text is not None
    assert (read.ids.tolist(), read.text.data, read.text.sizes.tolist()) == ([2, 3], b"bc", [1, 1])
