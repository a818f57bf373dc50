"""What is left in the data folder of a session that was deleted: no byte."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from memsvc.errors import MemsvcError
from protos.memsvc.v1 import session_pb2, types_pb2
from tests.property.small_parts import make_parts_small
from tests.session_driver import Node, Reader, Text, block_bytes, memory_of, session_spec

# Each text's numbers are its own.
KEPT, GONE, LATER = Text(900, seed=11), Text(900, seed=12), Text(900, seed=13)


def _raw(folder: Path) -> Iterator[bytes]:
    """Name and bytes of everything under a folder."""
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            yield path.read_bytes()


def _found(folder: Path, canaries: Mapping[str, bytes]) -> set[str]:
    """Which of these are somewhere in the files or their names."""
    raw = [*_raw(folder)]
    return {name for name, canary in canaries.items() if any(canary in piece for piece in raw)}


def _spec() -> types_pb2.SessionSpec:
    spec = session_spec("every", centring_tokens=100)
    spec.search.finder = types_pb2.FINDER_KIND_HNSW
    spec.search.index_every_tokens = 50
    spec.fingerprint.model = "canary-model"
    return spec


def _write(writer: Reader, text: Text, ends: range, salt: int) -> dict[str, bytes]:
    """Reads on and cuts a tail; returns what must be in the files then, by what it is."""
    first, last = writer.position, ends[-1]
    for end in ends:
        begun = writer.position // 64
        writer.send(text, end)
        writer.put(range(begun, end // 64), salt)
    block = last // 64
    writer.put_one(block, last % 64, block_bytes(block, salt + 1))
    logits = types_pb2.Tensor(dtype=types_pb2.ELEMENT_TYPE_FLOAT32, shape=[2], data=f"cana{salt:04}".encode())
    tail = session_pb2.Tail(version=1, position=last, logits=logits)
    writer.session.save_tail(writer.attachment, writer.attachment.epoch, tail)
    rows = writer.session.core.state.vectors.recent.rows["s0"]
    return {
        "attachment": writer.attachment.id.encode(),
        "ids": text.ids[first : first + 8].tobytes(),
        "signals": text.surprisal[first : first + 8].tobytes(),
        "vectors": rows[-1].tobytes(),
        "block": block_bytes(first // 64, salt),
        "partial block": block_bytes(block, salt + 1)[:32],
        "logits": logits.data,
    }


@pytest.fixture
def canaries(node: Node, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A session full of things that can be told from anything else: what they are, and their bytes."""
    make_parts_small(monkeypatch)
    node.sessions.create("canary-name", _spec())
    writer = node.open("canary-attachment", session="canary-name")
    found = _write(writer, GONE, range(100, 801, 100), salt=100)
    found["raw embedding"] = GONE.rows["s0"][:2].tobytes()
    for index in writer.session.core.state.indexes.values():
        index.settle()
    node.sessions.create_snapshot("canary-name", "canary-snapshot")
    node.sessions.close_attachment("canary-attachment")
    info = node.sessions.rename("canary-name", "canary-renamed")
    names = ("canary-name", "canary-renamed", "canary-snapshot", "canary-model", "w-canary-attachment")
    for name in names:
        found[name] = name.encode()
    return {**found, "id": info.id.encode(), "id, packed": uuid.UUID(info.id).bytes}


def test_no_byte_of_a_deleted_session_is_left(node: Node, canaries: dict[str, bytes]) -> None:
    """Proves that all of it was in the files, that none of it is once it is deleted, and that another session stays."""
    writer = node.open()
    writer.read(KEPT, [300])
    assert list(node.data.glob("sessions/*/shards/0/*.bin"))
    assert _found(node.data, canaries) == set(canaries)
    with pytest.raises(MemsvcError):
        node.sessions.delete("canary-renamed")
    assert _found(node.data, canaries) == set(canaries)
    node.sessions.drop_snapshot("canary-renamed", "canary-snapshot")
    node.sessions.delete("canary-renamed")
    assert _found(node.data, canaries) == set()
    memory = memory_of(writer.session)
    again = node.crash()
    assert memory_of(again.sessions.get("book")) == memory
    assert _found(node.data, canaries) == set()
    again.close()


def test_a_deleted_fork_leaves_its_parent_alone_and_nothing_of_itself(node: Node, canaries: dict[str, bytes]) -> None:
    """Proves that what the fork wrote is gone, that the parent's is there whole, and that both gone leave nothing."""
    parent = memory_of(node.sessions.get("canary-renamed"))
    fork, _ = node.sessions.fork("canary-renamed", "canary-snapshot", "canary-fork")
    twin = node.open("canary-twin", session="canary-fork")
    own = _write(twin, LATER, range(840, 900, 20), salt=200)
    own |= {"fork": b"canary-fork", "id": fork.id.encode(), "id, packed": uuid.UUID(fork.id).bytes}
    assert _found(node.data, own) == set(own)
    node.sessions.close_attachment("canary-twin")
    node.sessions.delete("canary-fork")
    assert _found(node.data, own) == set()
    assert _found(node.data, canaries) == set(canaries)
    assert memory_of(node.sessions.get("canary-renamed")) == parent
    view = node.open("v", view=True, session="canary-renamed")
    assert view.session.read_block(view.attachment, 2)[0] == block_bytes(2, 100)
    node.sessions.drop_snapshot("canary-renamed", "canary-snapshot")
    node.sessions.delete("canary-renamed")
    assert _found(node.data, {**canaries, **own}) == set()
