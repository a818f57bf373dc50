"""Sessions as a state machine: two in one node, read, asked, cut, killed, taken over, viewed and deleted at random.

After each action the real sessions over real files must be what plain dicts and lists say (see `session_model`).
"""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from memsvc.errors import AttachmentNotFound, SessionHasWriter, SessionNotFound, StaleEpoch
from protos.memsvc.v1 import memory_pb2, types_pb2
from tests.property.depth import machine_settings
from tests.property.session_book import Place
from tests.property.session_machine import ASKS, NAMES, TOKENS, ReadingMachine, with_hops
from tests.property.session_model import TEXT_TOKENS, text
from tests.session_driver import Node, memory_of


class SessionMachine(ReadingMachine):
    """The same, and views, other writers, restarts and deletions."""

    @rule(
        name=st.sampled_from(NAMES),
        fresh=st.sampled_from(["", "at the tail", "at a new tail"]),
        counts=st.lists(TOKENS, min_size=1, max_size=3),
        gap=st.sampled_from([0, 0, 9]),
        after=st.sampled_from([1, 250]),
        ask=ASKS,
        hops=st.integers(0, 2),
    )
    def ask_in_a_view(
        self, name: str, fresh: str, counts: list[int], gap: int, after: int, ask: memory_pb2.RecallRequest, hops: int
    ) -> None:
        """A view reads its own tokens and asks; it sees its cut, whatever became of the session."""
        book = self.books[name]
        if fresh or not book.views:
            if fresh == "at a new tail":
                book.save_tail(self._writer(book))
            self._open_view(book)
            # What the writer reads from here on is nothing to the view.
            self._read(book, after, 0, None, 0)
        place = [*book.views.values()][-1 if fresh else 0]
        before = memory_of(place.reader.session)
        for count in counts:
            if place.reader.position + gap + count < TEXT_TOKENS:
                book.read(place, count, gap, with_hops(ask, hops), 0)
                book.answer(place)
        assert memory_of(place.reader.session) == before
        book.check_blocks(place)

    @rule(
        name=st.sampled_from(NAMES),
        ahead=st.sampled_from([0, 0, 1, 3]),
        cut=st.booleans(),
        count=TOKENS,
        ask=ASKS,
        orderly=st.booleans(),
    )
    def take_over(
        self, name: str, ahead: int, cut: bool, count: int, ask: memory_pb2.RecallRequest, orderly: bool
    ) -> None:
        """Another writer goes on from the tail; what the former one did since is void, and its epoch stale."""
        book = self.books[name]
        former = self._writer(book)
        if ahead:
            self._put_ahead(name, ahead)
        if cut:
            book.save_tail(former)
        if count % 2:
            self._read(book, count, 0, ask, 0)
            self.answer(name)
        with pytest.raises(SessionHasWriter):
            book.open(self.node, self._id())
        if orderly:
            self.node.sessions.close_attachment(former.reader.attachment.id)
        else:
            self.node.sessions.worker_gone(f"w-{former.reader.attachment.id}")
        book.take_over(self.node, self._id(), self.made % 5 + 1)
        with pytest.raises(StaleEpoch):
            former.reader.send(text(1), former.reader.position + 1)
        book.check_blocks(self._writer(book))

    @rule(orderly=st.booleans(), resumes=st.tuples(st.booleans(), st.booleans()))
    def restart(self, orderly: bool, resumes: tuple[bool, bool]) -> None:
        """The node ends, in order or not, and another one reads what it left."""
        memories = {name: memory_of(self.node.sessions.get(name)) for name in NAMES}
        if orderly:
            self.node.close()
            self.node = Node(self.node.data)
        else:
            self.left.append(self.node)
            self.node = self.node.crash()
        for (name, book), resume in zip(self.books.items(), resumes, strict=True):
            session = self.node.sessions.get(name)
            assert memory_of(session) == memories[name]
            book.views.clear()
            if book.writer is None:
                continue
            former = book.writer.reader
            if not resume:
                book.writer = None
                continue
            reader = book.open(self.node, former.attachment.id, resume_epoch=former.attachment.epoch)
            assert (reader.position, reader.seq) == (former.position, former.seq)
            book.writer = Place(reader, book.model, book.writer.seed)

    @rule(name=st.sampled_from(NAMES), data=st.data(), really=st.integers(0, 2))
    def delete(self, name: str, data: st.DataObject, really: int) -> None:
        """A session is deleted: its files, attachments and recalls are gone, the other session's are not."""
        if really:
            return
        book = self.books[name]
        (other,) = (own for own in NAMES if own != name)
        before = memory_of(self.node.sessions.get(other))
        session = self.node.sessions.get(name)
        gone = [*book.views.values(), *([book.writer] if book.writer else [])]
        if book.writer is not None:
            with pytest.raises(SessionHasWriter):
                self.node.sessions.delete(name)
            self.node.sessions.worker_gone(f"w-{book.writer.reader.attachment.id}")
        self.node.sessions.delete(name)
        assert len(list((self.node.data / "sessions").iterdir())) == 1
        assert [info.name for info in self.node.sessions.list(0, "")[0]] == [other]
        with pytest.raises(SessionNotFound):
            self.node.sessions.get(name)
        for place in gone:
            with pytest.raises(AttachmentNotFound):
                self.node.sessions.attachment(place.reader.attachment.id)
            with pytest.raises(SessionNotFound):
                place.reader.send(text(1), place.reader.position + 1)
            with pytest.raises(SessionNotFound):
                session.read_block(place.reader.attachment, 0)
        assert memory_of(self.node.sessions.get(other)) == before
        self.books[name] = self._made(name, data)


class HnswSessionMachine(SessionMachine):
    """The same with hnsw."""

    finder = types_pb2.FINDER_KIND_HNSW


class FaissSessionMachine(SessionMachine):
    """The same with faiss."""

    finder = types_pb2.FINDER_KIND_FAISS


class WalkSessionMachine(SessionMachine):
    """The same with walk."""

    finder = types_pb2.FINDER_KIND_WALK


class DictionarySessionMachine(SessionMachine):
    """The same with dictionary."""

    finder = types_pb2.FINDER_KIND_DICTIONARY


TestSessionMachine = SessionMachine.TestCase
TestHnswSessionMachine = HnswSessionMachine.TestCase
TestFaissSessionMachine = FaissSessionMachine.TestCase
TestWalkSessionMachine = WalkSessionMachine.TestCase
TestDictionarySessionMachine = DictionarySessionMachine.TestCase
TestSessionMachine.settings = machine_settings(8, 20)
TestHnswSessionMachine.settings = machine_settings(3, 15)
TestFaissSessionMachine.settings = machine_settings(3, 15)
TestWalkSessionMachine.settings = machine_settings(3, 15)
TestDictionarySessionMachine.settings = machine_settings(3, 15)
