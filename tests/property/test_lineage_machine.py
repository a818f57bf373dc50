"""Sessions that are forked, named, renamed, deleted and reopened at random, against plain dicts.

What a session remembers at each cut is taken when the cut is made; wherever that cut is met again, in a view, a fork or
after a restart, all of it must be the same.
"""

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memsvc.errors import (
    BlockNotFound,
    LimitExceeded,
    SessionExists,
    SessionHasForks,
    SessionHasSnapshots,
    SessionHasWriter,
    SessionNotFound,
    SnapshotExists,
    SnapshotNotFound,
)
from protos.memsvc.v1 import types_pb2
from tests.property.depth import machine_settings
from tests.property.session_model import text
from tests.session_driver import LIMITS, Node, Reader, block_bytes, memory_of, session_spec

FEW = dataclasses.replace(LIMITS, sessions_max=5)
NAMES = [f"n{at}" for at in range(FEW.sessions_max + 1)]
LABELS = ("a", "b", "c")
name_of, label_of = st.sampled_from(NAMES), st.sampled_from(LABELS)


@dataclass(frozen=True)
class Cut:
    """A cut of a session: all that it remembered, and its blocks."""

    position: int
    memory: dict[str, object]
    blocks: dict[int, bytes]


@dataclass
class Book:
    """One session: its newest cut, the names of cuts, and what was written since."""

    id: str
    cut: Cut
    parent: str = ""
    snapshots: dict[str, Cut] = field(default_factory=dict)
    writer: Reader | None = None
    blocks: dict[int, bytes] = field(default_factory=dict)


class CheckedNode(RuleBasedStateMachine):
    """A node beside its model, and what must hold of both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.node = Node(self.folder / "node", FEW)
        self.left: list[Node] = []
        self.books: dict[str, Book] = {}
        self.made = 0

    @invariant()
    def lists_agree(self) -> None:
        """The same sessions by name, one folder each, and as many snapshots as the model has."""
        infos, _ = self.node.sessions.list(0, "")
        assert {info.name: info.id for info in infos} == {name: book.id for name, book in self.books.items()}
        folders = {path.name for path in (self.node.data / "sessions").iterdir()}
        assert folders == {book.id for book in self.books.values()}
        for info in infos:
            book = self.books[info.name]
            assert (info.parent_id, info.snapshots, info.tail_position) == (
                book.parent,
                len(book.snapshots),
                book.cut.position,
            )

    def teardown(self) -> None:
        """All nodes end."""
        for node in [*self.left, self.node]:
            node.close()
        shutil.rmtree(self.folder)

    def _writer(self, name: str, book: Book) -> Reader:
        """What was written since the newest cut is void where a new one opens: the memory is that of the cut."""
        if book.writer is None:
            self.made += 1
            book.writer = self.node.open(f"a{self.made}", session=name)
            book.blocks = dict(book.cut.blocks)
            self._check(name, book.cut)
            assert book.writer.position == book.cut.position
        return book.writer

    def _seed(self, writer: Reader) -> int:
        return int(writer.attachment.id[1:]) % 7 + 1

    def _check(self, name: str, cut: Cut) -> None:
        memory = memory_of(self.node.sessions.get(name))
        assert [key for key in memory if memory[key] != cut.memory[key]] == []

    def _look(self, name: str, label: str, cut: Cut) -> None:
        self.made += 1
        view = self.node.open(f"v{self.made}", view=True, session=name, snapshot=label)
        assert view.position == cut.position
        for block, data in cut.blocks.items():
            assert view.session.read_block(view.attachment, block)[0] == data
        block, filled = divmod(cut.position, 64)
        if filled:
            assert view.session.read_block(view.attachment, block)[::2] == (block_bytes(block, 1000 + filled), filled)
        with pytest.raises(BlockNotFound):
            view.session.read_block(view.attachment, block + 1)
        listed = view.session.core.state.graph.bookmarks(range(view.attachment.view.cut.bookmarks))
        assert listed == cut.memory["bookmarks"]
        self.node.sessions.close_attachment(view.attachment.id)


class LineageMachine(CheckedNode):
    """What is done to both."""

    @initialize()
    def begin(self) -> None:
        """Two sessions, one with something in it."""
        for name in NAMES[:2]:
            self.create(name)
        self.write(NAMES[0], 200)
        self.cut(NAMES[0])

    @rule(name=name_of)
    def create(self, name: str) -> None:
        """An empty session."""
        if name in self.books:
            return
        if len(self.books) == FEW.sessions_max:
            with pytest.raises(LimitExceeded):
                self.node.sessions.create(name, _spec())
            return
        info, _ = self.node.sessions.create(name, _spec())
        memory = memory_of(self.node.sessions.get(name))
        self.books[name] = Book(info.id, Cut(0, memory, {}))

    @rule(name=name_of, count=st.integers(1, 150))
    def write(self, name: str, count: int) -> None:
        """The writer, a new one if there is none, reads on, each a text of its own."""
        if (book := self.books.get(name)) is None:
            return
        writer = self._writer(name, book)
        end, begun = writer.position + count, writer.position // 64
        if end < 2000:
            writer.send(text(self._seed(writer)), end)
            for block in range(begun, end // 64):
                book.blocks[block] = block_bytes(block, self.made)
                writer.put_one(block, 0, book.blocks[block])

    @rule(name=name_of)
    def cut(self, name: str) -> None:
        """A tail."""
        if (book := self.books.get(name)) is not None and book.writer is not None:
            book.writer.save_tail()
            session = book.writer.session
            book.cut = Cut(book.writer.position, memory_of(session), dict(book.blocks))

    @rule(name=name_of)
    def leave(self, name: str) -> None:
        """The writer is lost."""
        if (book := self.books.get(name)) is not None and book.writer is not None:
            self.node.sessions.worker_gone(f"w-{book.writer.attachment.id}")
            book.writer = None

    @rule(name=name_of, label=label_of)
    def snapshot(self, name: str, label: str) -> None:
        """The newest cut gets a name."""
        if (book := self.books.get(name)) is None:
            with pytest.raises(SessionNotFound):
                self.node.sessions.create_snapshot(name, label)
        elif (known := book.snapshots.get(label)) is not None and known.position != book.cut.position:
            with pytest.raises(SnapshotExists):
                self.node.sessions.create_snapshot(name, label)
        else:
            made, created = self.node.sessions.create_snapshot(name, label)
            assert (made.position, created) == (book.cut.position, known is None)
            book.snapshots.setdefault(label, book.cut)

    @rule(name=name_of, label=label_of)
    def drop(self, name: str, label: str) -> None:
        """A name of a cut is given up."""
        book = self.books.get(name)
        if book is None or label not in book.snapshots:
            with pytest.raises((SessionNotFound, SnapshotNotFound)):
                self.node.sessions.drop_snapshot(name, label)
        else:
            self.node.sessions.drop_snapshot(name, label)
            del book.snapshots[label]

    @rule(name=name_of, label=st.sampled_from(("", "", *LABELS)), to=name_of)
    def fork(self, name: str, label: str, to: str) -> None:
        """A fork of a cut."""
        book = self.books.get(name)
        cut = None if book is None else book.snapshots.get(label) if label else book.cut
        if book is None or (cut is None and to not in self.books):
            with pytest.raises((SessionNotFound, SnapshotNotFound, LimitExceeded)):
                self.node.sessions.fork(name, label, to)
        elif cut is not None and to not in self.books:
            if len(self.books) == FEW.sessions_max:
                with pytest.raises(LimitExceeded):
                    self.node.sessions.fork(name, label, to)
                return
            info, created = self.node.sessions.fork(name, label, to)
            assert (created, info.parent_id, info.fork_position) == (True, book.id, cut.position)
            self.books[to] = Book(info.id, cut, parent=book.id, blocks=dict(cut.blocks))
            self._check(to, self.books[to].cut)
        elif self.books[to].parent != book.id:
            with pytest.raises((SessionExists, SnapshotNotFound)):
                self.node.sessions.fork(name, label, to)

    @rule(name=name_of, to=name_of)
    def rename(self, name: str, to: str) -> None:
        """A session gets another name."""
        book = self.books.get(name)
        expected = None
        if book is None:
            expected = SessionNotFound
        elif name != to and book.writer is not None:
            expected = SessionHasWriter
        elif name != to and to in self.books:
            expected = SessionExists
        if expected is not None:
            with pytest.raises(expected):
                self.node.sessions.rename(name, to)
        elif book is not None:
            assert self.node.sessions.rename(name, to).id == book.id
            self.books[to] = self.books.pop(name)

    @rule(name=name_of)
    def delete(self, name: str) -> None:
        """A session goes, unless something of it is in use; the error says what."""
        if (book := self.books.get(name)) is None:
            with pytest.raises(SessionNotFound):
                self.node.sessions.delete(name)
            return
        forks = sorted(own for own, other in self.books.items() if other.parent == book.id)
        if forks:
            with pytest.raises(SessionHasForks, match=", ".join(f"'{own}'" for own in forks)):
                self.node.sessions.delete(name)
        elif book.writer is not None:
            with pytest.raises(SessionHasWriter):
                self.node.sessions.delete(name)
        elif book.snapshots:
            with pytest.raises(SessionHasSnapshots, match=", ".join(f"'{own}'" for own in sorted(book.snapshots))):
                self.node.sessions.delete(name)
        else:
            self.node.sessions.delete(name)
            del self.books[name]

    @rule(orderly=st.booleans())
    def reopen(self, orderly: bool) -> None:
        """The node ends, in order or not, and another one goes on; writers do not come back."""
        if orderly:
            self.node.close()
            self.node = Node(self.node.data, FEW)
        else:
            self.left.append(self.node)
            self.node = Node(self.node.data, FEW)
        for book in self.books.values():
            book.writer = None

    @rule(name=name_of)
    def look(self, name: str) -> None:
        """Views at every cut that has a name, and at the newest."""
        if (book := self.books.get(name)) is not None:
            for label, cut in (("", book.cut), *book.snapshots.items()):
                self._look(name, label, cut)


def _spec() -> types_pb2.SessionSpec:
    return session_spec("fixed", centring_tokens=30)


TestLineageMachine = LineageMachine.TestCase
TestLineageMachine.settings = machine_settings(8, 30)
