"""Three tenants with the same names for everything, in any order of calls, on one real server.

Each tenant's token ids, block bytes and own name are its canary: no answer and no error of another tenant, and no line
of the log, may hold one.
"""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from protos.memsvc.v1 import block_pb2, graph_pb2, memory_pb2, session_pb2, types_pb2
from tests.credential_book import CredentialBook
from tests.integration.server_process import BLOCK_BYTES, TIMEOUT_S, Stubs, put, reason_of, spec, step
from tests.integration.tenants import Stream, calling, guarded
from tests.property.depth import machine_settings

TENANTS = ("canary-one", "canary-two", "canary-three")
WHO = st.sampled_from(range(len(TENANTS)))
# The same for all, and one that only its owner would say.
NAMES = st.sampled_from(["a", "b", "own"])
WORKER = "w"
# Codes that no call here may end with.
BROKEN = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED", "PERMISSION_DENIED")


@dataclass
class Book:
    """What one session holds, as its tenant knows it."""

    blocks: int = 0
    epoch: int = 0
    seq: int = 0
    attached: bool = False


@dataclass
class Tenant:
    """One tenant: how it calls, what it has, and what must never be seen elsewhere."""

    name: str
    number: int
    stubs: Stubs
    stream: Stream
    books: dict[str, Book] = field(default_factory=dict)

    @property
    def ids(self) -> bytes:
        """64 token ids, all this tenant's own."""
        return np.full(64, 0xC0DE0000 + 0x0101 * (self.number + 1), "<u4").tobytes()

    def block(self, block: int) -> bytes:
        """Bytes of a block, all this tenant's own."""
        return (f"<{self.name} block {block}>".encode() * BLOCK_BYTES)[:BLOCK_BYTES]

    def session(self, name: str) -> str:
        """Its name for a session."""
        return f"{self.name}-own" if name == "own" else name

    @property
    def canaries(self) -> list[bytes]:
        """Bytes that only this tenant may see."""
        return [self.name.encode(), self.ids[:8]]


class Tenants(RuleBasedStateMachine):
    """Tenants side by side against plain dictionaries."""

    def __init__(self, tenants: list[Tenant]) -> None:
        super().__init__()
        self.tenants = tenants

    def _call(self, who: int, call: Callable[..., Any], request: Message | Iterable[Message]) -> tuple[Any, str]:
        """Answers of a call, or None, and the code it ended with; both are looked through for canaries."""
        try:
            answer = call(request, timeout=TIMEOUT_S)
            answers = [answer] if isinstance(answer, Message) else list(answer)
            code, said = "OK", [one.SerializeToString() for one in answers]
        except grpc.RpcError as error:
            answers, code = [], f"{error.code().name} {reason_of(error)}"
            said = [error.details().encode(), *(value for _, value in error.trailing_metadata() or ())]
        assert code.split()[0] not in BROKEN, said
        self._check(who, said)
        return answers, code

    def _received(self, who: int) -> memory_pb2.AttachResponse:
        response = self.tenants[who].stream.receive()
        self._check(who, [response.SerializeToString()])
        return response

    def _check(self, who: int, said: list[bytes | str]) -> None:
        """Nothing of this is another tenant's."""
        told = b"".join(one.encode() if isinstance(one, str) else one for one in said)
        for tenant in self.tenants:
            if tenant.number != who:
                assert not [canary for canary in tenant.canaries if canary in told]

    @initialize()
    def begin(self) -> None:
        """Each has a session of the same name with a block of its own, and its writer at it."""
        for who in range(len(self.tenants)):
            self.create(who, "a")
            self.write(who, "a")

    @rule(who=WHO, name=NAMES)
    def create(self, who: int, name: str) -> None:
        """A name that others have is free."""
        own = self.tenants[who]
        request = session_pb2.CreateSessionRequest(name=own.session(name), spec=spec())
        (answer,), code = self._call(who, own.stubs.sessions.CreateSession, request)
        assert (code, answer.created, answer.session.name) == ("OK", name not in own.books, own.session(name))
        own.books.setdefault(name, Book())

    @rule(who=WHO, name=NAMES, count=st.integers(1, 2))
    def look(self, who: int, name: str, count: int) -> None:
        """What there is, is the tenant's own, one by one and in pages."""
        own = self.tenants[who]
        asked = session_pb2.GetSessionRequest(name=own.session(name))
        answers, code = self._call(who, own.stubs.sessions.GetSession, asked)
        if name in own.books:
            blocks = own.books[name].blocks
            assert (answers[0].session.tokens, answers[0].session.blocks) == (64 * blocks, blocks)
        else:
            assert code == "NOT_FOUND SESSION_NOT_FOUND"
        listed, token = [], ""
        while True:
            request = session_pb2.ListSessionsRequest(page_size=count, page_token=token)
            (page,), _ = self._call(who, own.stubs.sessions.ListSessions, request)
            listed += [info.name for info in page.sessions]
            token = page.next_page_token
            if not token:
                break
        assert listed == sorted(own.session(one) for one in own.books)

    @rule(who=WHO, name=NAMES)
    def write(self, who: int, name: str) -> None:
        """A block more, under ids that all tenants use."""
        own = self.tenants[who]
        request = session_pb2.OpenSessionRequest(
            session=own.session(name),
            mode=session_pb2.OPEN_MODE_WRITER,
            fingerprint=spec().fingerprint,
            worker=WORKER,
            attachment=name,
        )
        answers, code = self._call(who, own.stubs.sessions.OpenSession, request)
        book = own.books.get(name)
        if book is None:
            assert code == "NOT_FOUND SESSION_NOT_FOUND"
            return
        book.attached, book.epoch, book.seq = True, answers[0].epoch, answers[0].applied_seq
        assert answers[0].position == 64 * book.blocks
        own.stream.send(step(name, book.epoch, book.seq + 1, 64 * book.blocks, ids=own.ids))
        assert self._received(who).ack.attachment == name
        piece = put(name, book.epoch, book.blocks, own.block(book.blocks))
        stored, _ = self._call(who, own.stubs.blocks.PutBlocks, iter([piece]))
        assert [(one.attachment, one.reason) for one in stored] == [(name, "")]
        book.blocks, book.seq = book.blocks + 1, book.seq + 1
        tail = session_pb2.Tail(version=1, position=64 * book.blocks, last_id=1)
        kept = session_pb2.SaveTailRequest(attachment=name, epoch=book.epoch, tail=tail)
        assert self._call(who, own.stubs.sessions.SaveTail, kept)[1] == "OK"

    @rule(who=WHO, name=NAMES)
    def read(self, who: int, name: str) -> None:
        """Tokens, bookmarks, links and blocks are the tenant's own, or there are none."""
        own = self.tenants[who]
        book, session = own.books.get(name), own.session(name)
        whole = types_pb2.Range(first=0, count=10_000)
        answers, code = self._call(
            who, own.stubs.graph.ReadTokens, graph_pb2.ReadTokensRequest(session=session, positions=whole)
        )
        assert (answers[0].ids if answers else code) == (
            own.ids * book.blocks if book is not None else "NOT_FOUND SESSION_NOT_FOUND"
        )
        listed = graph_pb2.ListBookmarksRequest(session=session)
        assert self._call(who, own.stubs.graph.ListBookmarks, listed)[1].startswith("OK" if book else "NOT_FOUND")
        self._call(who, own.stubs.graph.GetGraph, graph_pb2.GetGraphRequest(session=session, seeds=[0], hops=2))
        self._call(who, own.stubs.graph.Explain, graph_pb2.ExplainRequest(session=session))
        fetch = block_pb2.GetBlocksRequest(attachment=name, blocks=range(book.blocks if book is not None else 1))
        pieces, code = self._call(who, own.stubs.blocks.GetBlocks, fetch)
        if book is not None and book.attached:
            assert [piece.chunk for piece in pieces] == [own.block(block) for block in range(book.blocks)]
        else:
            assert code == "NOT_FOUND ATTACHMENT_NOT_FOUND"

    @rule(who=WHO, name=NAMES)
    def meddle(self, who: int, name: str) -> None:
        """What is written, saved or closed through an id that only others opened finds nothing."""
        own = self.tenants[who]
        if name in own.books and own.books[name].attached:
            return
        for epoch in range(1, 4):
            stored, code = self._call(who, own.stubs.blocks.PutBlocks, iter([put(name, epoch, 0, own.block(0))]))
            assert (code, [one.reason for one in stored]) == ("OK", ["ATTACHMENT_NOT_FOUND"])
            tail = session_pb2.Tail(version=1, position=0)
            saved = session_pb2.SaveTailRequest(attachment=name, epoch=epoch, tail=tail)
            assert self._call(who, own.stubs.sessions.SaveTail, saved)[1] == "NOT_FOUND ATTACHMENT_NOT_FOUND"
            own.stream.send(step(name, epoch, 1, 0, ids=own.ids))
            assert self._received(who).fault.reason == "ATTACHMENT_NOT_FOUND"
        self._close(who, name)

    @rule(who=WHO, name=NAMES, to=NAMES)
    def fork(self, who: int, name: str, to: str) -> None:
        """A fork is of a session of the same tenant, and in the same tenant's names."""
        own = self.tenants[who]
        request = session_pb2.ForkSessionRequest(parent=own.session(name), name=own.session(to))
        answers, code = self._call(who, own.stubs.sessions.ForkSession, request)
        if name not in own.books:
            assert code.startswith("NOT_FOUND")
        elif to in own.books:
            # Taken, or the same fork once more.
            assert code == "ALREADY_EXISTS SESSION_EXISTS" or not answers[0].created
        else:
            assert (code, answers[0].created, answers[0].session.name) == ("OK", True, own.session(to))
            own.books[to] = Book(blocks=own.books[name].blocks)

    @rule(who=WHO, name=NAMES, to=NAMES)
    def rename(self, who: int, name: str, to: str) -> None:
        """A name that others have is free; one that the tenant has is not."""
        own = self.tenants[who]
        self._close(who, name)
        request = session_pb2.RenameSessionRequest(name=own.session(name), new_name=own.session(to))
        _, code = self._call(who, own.stubs.sessions.RenameSession, request)
        if name not in own.books:
            assert code == "NOT_FOUND SESSION_NOT_FOUND"
        elif code == "OK":
            assert to == name or to not in own.books
            own.books[to] = own.books.pop(name)
        else:
            assert to in own.books

    @rule(who=WHO, name=NAMES)
    def delete(self, who: int, name: str) -> None:
        """A session goes, and no other tenant's of that name."""
        own = self.tenants[who]
        self._close(who, name)
        _, code = self._call(
            who, own.stubs.sessions.DeleteSession, session_pb2.DeleteSessionRequest(name=own.session(name))
        )
        if code == "OK":
            del own.books[name]
        else:
            expected = "FAILED_PRECONDITION SESSION_HAS_FORKS" if name in own.books else "NOT_FOUND SESSION_NOT_FOUND"
            assert code == expected

    def _close(self, who: int, name: str) -> None:
        own = self.tenants[who]
        request = session_pb2.CloseAttachmentRequest(attachment=name)
        assert self._call(who, own.stubs.sessions.CloseAttachment, request)[1] == "OK"
        if name in own.books:
            own.books[name].attached = False

    def teardown(self) -> None:
        """Every tenant deletes what it has, and finds all of it."""
        for who, own in enumerate(self.tenants):
            # A parent goes once its forks are gone.
            for _ in range(len(own.books) ** 2):
                for name in list(own.books):
                    self.delete(who, name)
            assert own.books == {}
            (page,), _ = self._call(who, own.stubs.sessions.ListSessions, session_pb2.ListSessionsRequest())
            assert list(page.sessions) == []


def test_tenants_never_see_a_byte_of_each_other(tmp_path: Path) -> None:
    """Proves that whatever three tenants do, in any order and with the same names and ids, each has what it wrote and
    finds nothing of the others, and that the server's log holds no canary and no secret."""
    book = CredentialBook(tmp_path / "tokens.toml")
    secrets = [book.bearer(name) for name in TENANTS]
    with guarded(tmp_path, book) as server, contextlib.ExitStack() as connections:
        tenants: list[Tenant] = []
        for number, (name, secret) in enumerate(zip(TENANTS, secrets, strict=True)):
            stubs = connections.enter_context(calling(server.address, secret, tmp_path))
            tenants.append(Tenant(name, number, stubs, Stream(stubs, WORKER)))
        run_state_machine_as_test(lambda: Tenants(tenants), settings=machine_settings(12, 20))
        for tenant in tenants:
            tenant.stream.end()
        server.process.terminate()
        _, log = server.process.communicate(timeout=TIMEOUT_S)
    for secret in [*secrets, *(canary.decode(errors="replace") for one in tenants for canary in one.canaries)]:
        assert secret not in log
