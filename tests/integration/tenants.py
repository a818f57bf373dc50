"""Tenants of a real server: their secrets, their stubs, and one tenant's session with a writer at work."""

import contextlib
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attn_client.memory.access import channel_to
from attn_client.memory.settings import ClientSettings
from protos.memsvc.v1 import block_pb2, graph_pb2, memory_pb2, session_pb2, types_pb2
from tests.credential_book import CredentialBook
from tests.integration.server_process import (
    TIMEOUT_S,
    ServerProcess,
    Stubs,
    block_data,
    created,
    put,
    recall,
    served,
    spec,
    step,
)

OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


@contextlib.contextmanager
def guarded(folder: Path, book: CredentialBook, *arguments: str) -> Iterator[ServerProcess]:
    """A server that knows the credentials of a book, and tells which services it has."""
    with served(folder, "--token-file", str(book.path), "--reflection", *arguments) as server:
        yield server


@contextlib.contextmanager
def calling(address: str, secret: str, folder: Path) -> Iterator[Stubs]:
    """Stubs whose calls bear a secret, over the product's own channel."""
    file = folder / f"secret-{secret.split('_')[1]}"
    file.write_text(f"{secret}\n")
    with channel_to(address, ClientSettings(token_file=file), OPTIONS) as channel:
        yield Stubs(channel)


class Stream:
    """An Attach stream that stays up for as long as a test takes."""

    def __init__(self, stubs: Stubs, worker: str) -> None:
        self._requests: queue.SimpleQueue[memory_pb2.AttachRequest | None] = queue.SimpleQueue()
        self._responses = stubs.memory.Attach(iter(self._requests.get, None))
        self._requests.put(memory_pb2.AttachRequest(hello=memory_pb2.Hello(protocol_version=1, worker=worker)))
        self.receive()

    def send(self, *steps: memory_pb2.Step) -> None:
        """Sends steps in one batch."""
        self._requests.put(memory_pb2.AttachRequest(steps=memory_pb2.StepBatch(steps=steps)))

    def receive(self) -> memory_pb2.AttachResponse:
        """The next response."""
        return next(self._responses)

    def end(self) -> None:
        """Says that nothing more comes, and waits for the server to end it."""
        self._requests.put(None)
        for _ in self._responses:
            pass


@dataclass(frozen=True)
class Seen:
    """All that a tenant can see of one of its sessions, to be compared with what it sees later."""

    listed: session_pb2.ListSessionsResponse
    bookmarks: graph_pb2.ListBookmarksResponse
    tokens: graph_pb2.ReadTokensResponse
    explained: graph_pb2.ExplainResponse
    snapshots: session_pb2.ListSnapshotsResponse
    blocks: tuple[bytes, ...]


class Owner:
    """A tenant with one session, `ledger`, which its worker `w` writes through attachment `a`; a snapshot `kept`."""

    SESSION, WORKER, ATTACHMENT, SNAPSHOT, BLOCKS = "ledger", "w", "a", "kept", 4

    def __init__(self, stubs: Stubs) -> None:
        self.stubs = stubs
        created(stubs, self.SESSION)
        self.stream = Stream(stubs, self.WORKER)
        opening = session_pb2.OpenSessionRequest(
            session=self.SESSION,
            mode=session_pb2.OPEN_MODE_WRITER,
            fingerprint=spec().fingerprint,
            worker=self.WORKER,
            attachment=self.ATTACHMENT,
        )
        self.epoch = stubs.sessions.OpenSession(opening, timeout=TIMEOUT_S).epoch
        self.seq = 0
        for block in range(self.BLOCKS):
            last = block == self.BLOCKS - 1
            self.write(ask=recall(self.BLOCKS - 1) if last else None)
            request = put(self.ATTACHMENT, self.epoch, block, block_data(block))
            (answer,) = stubs.blocks.PutBlocks(iter([request]), timeout=TIMEOUT_S)
            assert answer.reason == "", answer.message
        assert self.stream.receive().recall.attachment == self.ATTACHMENT
        tail = session_pb2.Tail(version=1, position=64 * self.BLOCKS, last_id=1)
        stubs.sessions.SaveTail(
            session_pb2.SaveTailRequest(attachment=self.ATTACHMENT, epoch=self.epoch, tail=tail), timeout=TIMEOUT_S
        )
        stubs.sessions.CreateSnapshot(
            session_pb2.CreateSnapshotRequest(session=self.SESSION, name=self.SNAPSHOT), timeout=TIMEOUT_S
        )

    def write(self, ask: memory_pb2.RecallRequest | None = None) -> None:
        """Sends a block's tokens, and waits for the acknowledgement."""
        own = step(self.ATTACHMENT, self.epoch, self.seq + 1, 64 * self.seq)
        if ask is not None:
            own.recall.CopyFrom(ask)
        self.stream.send(own)
        self.seq += 1
        assert self.stream.receive().ack == memory_pb2.Ack(
            attachment=self.ATTACHMENT,
            seq=self.seq,
            durability=types_pb2.DURABILITY_BUFFERED,
            bookmarks=64 * self.seq,
        )

    def seen(self) -> Seen:
        """What the session looks like to its tenant."""
        stubs, name = self.stubs, self.SESSION
        fetch = block_pb2.GetBlocksRequest(attachment=self.ATTACHMENT, blocks=range(self.BLOCKS))
        whole = types_pb2.Range(first=0, count=1000)
        return Seen(
            stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S),
            stubs.graph.ListBookmarks(graph_pb2.ListBookmarksRequest(session=name), timeout=TIMEOUT_S),
            stubs.graph.ReadTokens(graph_pb2.ReadTokensRequest(session=name, positions=whole), timeout=TIMEOUT_S),
            stubs.graph.Explain(graph_pb2.ExplainRequest(session=name), timeout=TIMEOUT_S),
            stubs.sessions.ListSnapshots(session_pb2.ListSnapshotsRequest(session=name), timeout=TIMEOUT_S),
            tuple(piece.chunk for piece in stubs.blocks.GetBlocks(fetch, timeout=TIMEOUT_S)),
        )
