"""Shared memory of a worker: only its own file, only inside it, and never a crash."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from memsvc.errors import ArenaNotAccepted, InvalidRequest
from memsvc.rpc.arena import NONCE_BYTES, Arena
from protos.memsvc.v1 import block_pb2, memory_pb2

NAME = "attn-test"
NONCE = b"0123456789abcdef"
SIZE_BYTES = 4096


def _hello(**changed: object) -> memory_pb2.Arena:
    return memory_pb2.Arena(**{"name": NAME, "size_bytes": SIZE_BYTES, "nonce": NONCE, **changed})


def _slot(offset: int, size_bytes: int) -> block_pb2.ArenaSlot:
    return block_pb2.ArenaSlot(offset=offset, size_bytes=size_bytes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(NONCE + bytes(SIZE_BYTES - NONCE_BYTES))
    return path


@pytest.fixture
def arena(file: Path) -> Iterator[Arena]:
    arena = Arena.open(_hello(), file.parent)
    assert arena is not None
    yield arena
    arena.close()


def test_what_the_worker_wrote_is_read_and_what_is_written_the_worker_sees(arena: Arena, file: Path) -> None:
    """Proves that slots go both ways, up to the last byte of the file."""
    with file.open("r+b") as worker:
        worker.seek(SIZE_BYTES - 4)
        worker.write(b"abcd")
    assert arena.read(_slot(SIZE_BYTES - 4, 4)) == b"abcd"
    arena.write(_slot(NONCE_BYTES, 8), b"efgh")
    assert file.read_bytes()[: NONCE_BYTES + 8] == NONCE + b"efgh" + bytes(4)


@pytest.mark.parametrize(
    ("offset", "size_bytes"),
    [(SIZE_BYTES - 3, 4), (NONCE_BYTES - 1, 4), (0, 1), (2**64 - 2, 4), (SIZE_BYTES + 1, 0), (NONCE_BYTES, SIZE_BYTES)],
)
def test_a_slot_outside_the_arena_is_refused(arena: Arena, offset: int, size_bytes: int) -> None:
    """Proves that neither the nonce nor anything past the end can be read or written."""
    with pytest.raises(InvalidRequest, match="slot: expected bytes"):
        arena.read(_slot(offset, size_bytes))
    with pytest.raises(InvalidRequest, match="slot: expected bytes"):
        arena.write(_slot(offset, size_bytes), b"")


def test_a_slot_smaller_than_the_data_is_refused(arena: Arena) -> None:
    """Proves that a block never spills into the next slot."""
    with pytest.raises(InvalidRequest, match="expected at least 5 bytes, got 4"):
        arena.write(_slot(NONCE_BYTES, 4), b"12345")


@pytest.mark.parametrize(
    "changed", [{"nonce": b"f" * NONCE_BYTES}, {"size_bytes": SIZE_BYTES + 1}, {"name": "attn-no"}]
)
def test_another_file_is_not_the_arena(file: Path, changed: dict[str, object]) -> None:
    """Proves that a wrong nonce, a wrong size or a missing file means no arena, and no error."""
    assert Arena.open(_hello(**changed), file.parent) is None


def test_a_link_or_a_pipe_is_not_an_arena(file: Path) -> None:
    """Proves that a link to the right file is not followed, and that opening a pipe neither hangs nor counts."""
    (file.parent / "attn-link").symlink_to(file)
    os.mkfifo(file.parent / "attn-pipe")
    assert Arena.open(_hello(name="attn-link"), file.parent) is None
    assert Arena.open(_hello(name="attn-pipe"), file.parent) is None


@pytest.mark.parametrize(
    "name", ["", "attn-", "attn-../etc", "/attn-a", "attn-A", "other", "attn-a/b", f"attn-{'a' * 101}"]
)
def test_a_name_of_another_form_is_an_error(file: Path, name: str) -> None:
    """Proves that no name leads out of the folder."""
    with pytest.raises(InvalidRequest, match=r"arena\.name"):
        Arena.open(_hello(name=name), file.parent)


def test_a_nonce_of_another_length_is_an_error(file: Path) -> None:
    """Proves that an empty nonce proves nothing."""
    with pytest.raises(InvalidRequest, match=r"arena\.nonce: expected 16 bytes, got 0"):
        Arena.open(_hello(nonce=b""), file.parent)


def test_a_file_cut_short_is_a_typed_error(arena: Arena, file: Path) -> None:
    """Proves that a worker that truncates its file harms itself only, and that the server does not grow it again."""
    os.truncate(file, 64)
    with pytest.raises(ArenaNotAccepted):
        arena.read(_slot(32, 64))
    with pytest.raises(ArenaNotAccepted):
        arena.write(_slot(128, 4), b"abcd")
    assert file.stat().st_size == 64


def test_a_closed_arena_is_a_typed_error(file: Path) -> None:
    """Proves that a slot named after its worker left is refused, and that closing twice is fine."""
    arena = Arena.open(_hello(), file.parent)
    assert arena is not None
    arena.close()
    arena.close()
    with pytest.raises(ArenaNotAccepted, match="one that left"):
        arena.read(_slot(NONCE_BYTES, 4))
