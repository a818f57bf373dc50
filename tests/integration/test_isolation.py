"""Sessions beside each other in one real server: neither sees the other, and one that is deleted leaves nothing."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from protos import codec
from protos.memsvc.v1 import block_pb2, graph_pb2, memory_pb2, session_pb2
from tests.integration.server_process import (
    BLOCK_BYTES,
    DIMS,
    TIMEOUT_S,
    ServerProcess,
    Stubs,
    Worker,
    block_data,
    connected,
    created,
    put,
    reason_of,
    recall,
    served,
    step,
)

# Blocks that each writer reads; the last asks.
BLOCKS = 6
ARENA_BYTES = 4096 + BLOCKS * BLOCK_BYTES


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of its own."""
    with served(tmp_path) as server:
        yield server


@pytest.fixture
def shared() -> Iterator[tuple[memory_pb2.Arena, Path]]:
    """An arena of this process, as a worker would make it."""
    path = Path("/dev/shm") / f"attn-{uuid.uuid4()}"
    nonce = os.urandom(16)
    path.write_bytes(nonce + bytes(ARENA_BYTES - 16))
    yield memory_pb2.Arena(name=path.name, size_bytes=ARENA_BYTES, nonce=nonce), path
    # A test that ended its server may have had it tidied up.
    path.unlink(missing_ok=True)


class Writer:
    """A worker and its one session, all of one name; its text is that of `salt`."""

    def __init__(self, stubs: Stubs, name: str, salt: int, session: str = "", arena: memory_pb2.Arena | None = None):
        self.stubs, self.name, self.salt, self.seq = stubs, name, salt, 0
        greeting = memory_pb2.Hello(protocol_version=1, worker=name, arena=arena)
        self.worker = Worker(stubs, name, memory_pb2.AttachRequest(hello=greeting))
        assert self.worker.receive().HasField("welcome")
        self.epoch = self.worker.open(session or name, name).epoch

    def read(self, block: int, ask: memory_pb2.RecallRequest | None = None) -> None:
        """Sends a block's tokens; waits for the acknowledgement."""
        rows = np.random.default_rng((self.salt, block)).standard_normal((64, DIMS)).astype(np.float32)
        self.seq += 1
        own = step(self.name, self.epoch, self.seq, 64 * block, embeddings={"probe": codec.encode(rows)})
        if ask is not None:
            own.recall.CopyFrom(ask)
        self.worker.steps(own)
        assert self.worker.receive().ack.seq == self.seq

    def data(self, block: int) -> bytes:
        """Bytes of a block."""
        return block_data(1000 * self.salt + block)

    def put(self, block: int, **changed: object) -> None:
        """Puts a block."""
        request = put(self.name, self.epoch, block, self.data(block), **changed)
        (answer,) = self.stubs.blocks.PutBlocks(iter([request]), timeout=TIMEOUT_S)
        assert answer.reason == ""

    def read_and_ask(self) -> memory_pb2.Recall:
        """Reads all blocks, and asks with the last."""
        for block in range(BLOCKS):
            self.read(block, recall(BLOCKS - 1) if block == BLOCKS - 1 else None)
            self.put(block)
        return self.worker.receive().recall

    def fetch(self, blocks: list[int]) -> list[bytes]:
        """Blocks as they come back."""
        request = block_pb2.GetBlocksRequest(attachment=self.name, blocks=blocks)
        return [piece.chunk for piece in self.stubs.blocks.GetBlocks(request, timeout=TIMEOUT_S)]


def _explained(stubs: Stubs, session: str) -> graph_pb2.ExplainResponse:
    return stubs.graph.Explain(graph_pb2.ExplainRequest(session=session), timeout=TIMEOUT_S)


def _bookmarks(stubs: Stubs, session: str) -> graph_pb2.ListBookmarksResponse:
    return stubs.graph.ListBookmarks(graph_pb2.ListBookmarksRequest(session=session), timeout=TIMEOUT_S)


def _deleted(stubs: Stubs, session: str) -> None:
    stubs.sessions.DeleteSession(session_pb2.DeleteSessionRequest(name=session), timeout=TIMEOUT_S)


def _refused(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return reason_of(raised.value)


def _open_files(server: ServerProcess) -> list[str]:
    """Files that the server holds open."""
    files = []
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            files.append(os.readlink(descriptor))
        except FileNotFoundError:
            # Closed since it was listed.
            continue
    return files


def test_two_sessions_read_in_turns_are_what_each_is_alone(server: ServerProcess, tmp_path: Path) -> None:
    """Proves that bookmarks, recalls and bytes of a session are the same with another one beside it as without."""
    with connected(server.address) as stubs:
        for name in ("one", "two"):
            created(stubs, name)
        writers = [Writer(stubs, name, salt) for salt, name in enumerate(("one", "two"), 1)]
        for block in range(BLOCKS):
            for writer in writers:
                writer.read(block, recall(BLOCKS - 1) if block == BLOCKS - 1 else None)
            for writer in reversed(writers):
                writer.put(block)
        beside = [writer.worker.receive().recall for writer in writers]
        bookmarks = [_bookmarks(stubs, writer.name) for writer in writers]
        for writer in writers:
            assert writer.fetch([*range(BLOCKS)]) == [writer.data(block) for block in range(BLOCKS)]
    assert beside[0].blocks != beside[1].blocks
    for salt, name in enumerate(("one", "two"), 1):
        folder = tmp_path / name
        folder.mkdir()
        with served(folder) as alone, connected(alone.address) as stubs:
            created(stubs, name)
            assert Writer(stubs, name, salt).read_and_ask() == beside[salt - 1]
            assert _bookmarks(stubs, name) == bookmarks[salt - 1]


def test_a_deleted_session_leaves_no_file_answer_or_arena_in_use(
    server: ServerProcess, tmp_path: Path, shared: tuple[memory_pb2.Arena, Path]
) -> None:
    """Proves that files, descriptors, attachments and explanations go, that the arena stays the worker's, and that the
    session beside it answers as before, after a restart too."""
    arena, path = shared
    with connected(server.address) as stubs:
        for name in ("gone", "stays"):
            created(stubs, name)
        stays = Writer(stubs, "stays", 1)
        kept = stays.read_and_ask()
        gone = Writer(stubs, "gone", 2, arena=arena)
        for block in range(BLOCKS):
            with path.open("r+b") as file:
                file.seek(4096 + block * BLOCK_BYTES)
                file.write(gone.data(block))
            gone.read(block, recall(block + 1))
            gone.put(block, slot=block_pb2.ArenaSlot(offset=4096 + block * BLOCK_BYTES, size_bytes=BLOCK_BYTES))
            assert gone.worker.receive().HasField("recall")
        held, written = path.read_bytes(), _explained(stubs, "stays")
        assert _refused(lambda: _deleted(stubs, "gone")) == "SESSION_HAS_WRITER"
        gone.worker.leave()
        (folder,) = [
            own for own in (tmp_path / "data" / "sessions").iterdir() if b"gone" in (own / "log").read_bytes()[:4096]
        ]
        _deleted(stubs, "gone")
        assert not folder.exists()
        assert [name for name in _open_files(server) if folder.name in name or path.name in name] == []
        assert path.read_bytes() == held
        for call in (lambda: _explained(stubs, "gone"), lambda: _bookmarks(stubs, "gone")):
            assert _refused(call) == "SESSION_NOT_FOUND"
        assert _refused(lambda: gone.fetch([0])) == "ATTACHMENT_NOT_FOUND"
        assert _explained(stubs, "stays") == written
        assert written.recall == kept
        before = _bookmarks(stubs, "stays")
        assert server.stop() == 0
    with served(tmp_path) as again, connected(again.address) as stubs:
        listed = stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S)
        assert [own.name for own in listed.sessions] == ["stays"]
        assert _bookmarks(stubs, "stays") == before


def test_a_name_that_is_used_again_brings_nothing_back(server: ServerProcess) -> None:
    """Proves that a new session of a deleted one's name has no bookmark, block, recall or epoch of it."""
    with connected(server.address) as stubs:
        created(stubs, "name")
        former = Writer(stubs, "former", 1, session="name")
        former.read_and_ask()
        former.worker.leave()
        _deleted(stubs, "name")
        created(stubs, "name")
        assert _bookmarks(stubs, "name").total == 0
        assert _refused(lambda: _explained(stubs, "name")) == "RECALL_NOT_FOUND"
        later = Writer(stubs, "later", 2, session="name")
        assert later.epoch == 1
        assert _refused(lambda: later.fetch([0])) == "BLOCK_NOT_FOUND"
        later.read(0)
        assert _refused(lambda: later.fetch([0])) == "BLOCK_NOT_FOUND"


@pytest.mark.parametrize("closed", [True, False])
def test_void_recalls_are_not_explained_by_others_bookmarks(server: ServerProcess, closed: bool) -> None:
    """Proves that what a writer asked after the tail is forgotten once another one opens, whether it closed or was
    lost: the numbers of its bookmarks are given out anew."""
    with connected(server.address) as stubs:
        created(stubs, "name")
        former = Writer(stubs, "former", 1, session="name")
        asked = former.read_and_ask()
        assert _explained(stubs, "name").recall == asked
        if closed:
            request = session_pb2.CloseAttachmentRequest(attachment="former")
            stubs.sessions.CloseAttachment(request, timeout=TIMEOUT_S)
        else:
            former.worker.leave()
        later = Writer(stubs, "later", 2, session="name")
        assert _refused(lambda: _explained(stubs, "name")) == "RECALL_NOT_FOUND"
        later.read(0)
        assert _refused(lambda: _explained(stubs, "name")) == "RECALL_NOT_FOUND"
