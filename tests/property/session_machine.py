"""What one does to sessions of a state machine by reading alone, and what its rules are made of."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from memsvc.errors import MemsvcError
from memsvc.geometry import BLOCK_TOKENS
from protos.memsvc.v1 import memory_pb2, types_pb2
from tests.property.session_book import Book, Place
from tests.property.session_model import TEXT_TOKENS, text
from tests.property.small_parts import make_parts_small
from tests.session_driver import METRICS, POLICIES, Node, memory_of, session_spec

NAMES = ("book", "other")
TOKENS = st.one_of(st.integers(1, 3), st.integers(1, 80), st.integers(1, 300))
ASKS = st.builds(
    lambda top, neighbours, budget: memory_pb2.RecallRequest(
        top_blocks=top, neighbours=neighbours, budget_blocks=budget
    ),
    st.integers(1, 5),
    st.integers(0, 2),
    st.integers(1, 8),
)


@st.composite
def specs(draw: st.DrawFn, finder: "types_pb2.FinderKind.ValueType") -> types_pb2.SessionSpec:
    """Small specs of any policy, metric and trail."""
    spec = session_spec(
        draw(st.sampled_from([*POLICIES])),
        draw(st.sampled_from([1, 30, 150, 700])),
        metric=draw(st.sampled_from([*METRICS])),
    )
    mark, search = spec.fingerprint, spec.search
    mark.sink_tokens = BLOCK_TOKENS * draw(st.integers(0, 2))
    mark.window_tokens = BLOCK_TOKENS * draw(st.integers(1, 3))
    search.finder = finder
    walks = draw(st.integers(0, 3)) == 0
    search.link_search = types_pb2.LINK_SEARCH_WALK if walks else types_pb2.LINK_SEARCH_FINDER
    search.index_every_tokens = draw(st.sampled_from([0, 1, 50, 500]))
    search.trail_blocks = draw(st.integers(1, 6))
    search.trail_tokens = draw(st.sampled_from([1, 20, 70]))
    search.links_max = draw(st.integers(1, 4))
    search.link_similarity_min = draw(st.sampled_from([-1.0, 0.0, 0.3, 0.8]))
    return spec


class ReadingMachine(RuleBasedStateMachine):
    """Two sessions of one node, each beside its model: reading, asking, losing and cutting."""

    finder: "types_pb2.FinderKind.ValueType" = types_pb2.FINDER_KIND_FLAT

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        make_parts_small(self.patch)
        self.folder = Path(tempfile.mkdtemp())
        self.node = Node(self.folder / "node")
        self.left: list[Node] = []
        self.made = 0

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Makes both sessions."""
        self.books = {name: self._made(name, data) for name in NAMES}

    @rule(
        name=st.sampled_from(NAMES),
        count=TOKENS,
        gap=st.sampled_from([0, 0, 0, 1, 7, 100]),
        puts=st.sampled_from(["all", "all", "some", "none"]),
    )
    def read(self, name: str, count: int, gap: int, puts: str) -> None:
        """The writer reads on; not all that it finishes is put at once."""
        self._read(self.books[name], count, gap, None, 0)
        self._put(self.books[name], puts)

    @rule(
        name=st.sampled_from(NAMES),
        count=TOKENS,
        ask=ASKS,
        resident=st.sampled_from([0, 0, 64, 500]),
        hops=st.integers(0, 3),
        waits=st.booleans(),
        puts=st.sampled_from(["all", "some", "none"]),
    )
    def ask(
        self, name: str, count: int, ask: memory_pb2.RecallRequest, resident: int, hops: int, waits: bool, puts: str
    ) -> None:
        """The writer asks; the answer may wait until other things have happened."""
        book = self.books[name]
        place = self._writer(book)
        own = with_hops(ask, hops)
        own.blocks_through = book.model.position // BLOCK_TOKENS if waits else 0
        self._read(book, count, 0, own, resident)
        self._put(book, puts)
        if not waits:
            book.answer(place)

    @rule(name=st.sampled_from(NAMES))
    def answer(self, name: str) -> None:
        """What still waits is answered."""
        book = self.books[name]
        for place in [*book.views.values(), *([book.writer] if book.writer else [])]:
            while place.waiting:
                book.answer(place)

    @rule(name=st.sampled_from(NAMES), gap=st.sampled_from([1, 64, 200]), data=st.data())
    def drop(self, name: str, gap: int, data: st.DataObject) -> None:
        """Tokens and blocks are lost with no token after them."""
        book = self.books[name]
        place = self._writer(book)
        missing = [own for own in range(book.model.position // BLOCK_TOKENS + 1) if own not in book.model.whole]
        lost = data.draw(st.sets(st.sampled_from(missing), max_size=2), label="lost blocks") if missing else set()
        if place.reader.position + gap < TEXT_TOKENS:
            book.drop(place, sorted(lost), gap)

    @rule(name=st.sampled_from(NAMES))
    def save_tail(self, name: str) -> None:
        """The writer cuts a tail."""
        book = self.books[name]
        book.save_tail(self._writer(book))

    @rule(name=st.sampled_from(NAMES), ask=ASKS, count=TOKENS)
    def repeat(self, name: str, ask: memory_pb2.RecallRequest, count: int) -> None:
        """A step that is sent twice counts once, and its recall is the same."""
        book = self.books[name]
        place = self._writer(book)
        reader = place.reader
        if reader.position + count >= TEXT_TOKENS:
            return
        step = reader.message(text(place.seed), reader.position + count, ask)
        self._read(book, count, 0, ask, 0)
        before = memory_of(reader.session)
        _, again = reader.session.apply(reader.attachment, step)
        assert again is place.waiting[-1].pending
        assert memory_of(reader.session) == before

    @rule(name=st.sampled_from(NAMES), fault=st.sampled_from(["seq", "position", "epoch", "zero", "gaps"]))
    def refuse(self, name: str, fault: str) -> None:
        """A step that is refused changes nothing."""
        book = self.books[name]
        place = self._writer(book)
        reader = place.reader
        step = reader.message(text(place.seed), reader.position + 5)
        if fault == "seq":
            step.seq += 1
        elif fault == "position":
            step.first_position += 1
        elif fault == "epoch":
            step.epoch += 1
        elif fault == "zero":
            step.embeddings["s0"].data = bytes(len(step.embeddings["s0"].data))
        else:
            step.block_gaps.add(first=1 << 30, count=1)
        before = memory_of(reader.session)
        with pytest.raises(MemsvcError):
            reader.session.apply(reader.attachment, step)
        assert memory_of(reader.session) == before

    def teardown(self) -> None:
        """What was read in many steps is what is read in few; all nodes end."""
        try:
            for at, book in enumerate(getattr(self, "books", {}).values()):
                book.check_twin(self.folder / f"twin-{at}")
        finally:
            for node in [*self.left, self.node]:
                node.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    def _made(self, name: str, data: st.DataObject) -> Book:
        spec = data.draw(specs(self.finder), label=f"spec of {name}")
        self.node.sessions.create(name, spec)
        self.made += 1
        book = Book(name, spec, exact=self.finder == types_pb2.FINDER_KIND_FLAT)
        info = self.node.sessions.get(name).info()
        assert (info.tokens, info.bookmarks, info.blocks, info.epoch, info.tail_position) == (0, 0, 0, 0, 0)
        # Most of them begin with something to find.
        for count in data.draw(st.sampled_from([[], [200, 1], [300, 300], [64, 500, 136, 700]]), label="read before"):
            self._read(book, count, 0, None, 0)
            self._put(book, "all")
        if book.model.position and data.draw(st.booleans(), label="cut"):
            book.save_tail(self._writer(book))
        return book

    def _put_ahead(self, name: str, far: int) -> None:
        """A block overtakes the step that its tokens are in."""
        book = self.books[name]
        place = self._writer(book)
        block = book.model.position // BLOCK_TOKENS + far
        if block not in book.model.whole and block not in book.model.dropped:
            book.put(place, [block])

    def _open_view(self, book: Book) -> None:
        reader = book.open(self.node, self._id(), view=True)
        model = book.tail.cut()
        model.cut_at = model.position
        assert reader.position == model.position
        book.views[reader.attachment.id] = Place(reader, model, seed=self.made % 5 + 1)

    def _id(self) -> str:
        self.made += 1
        return f"a{self.made}"

    def _writer(self, book: Book) -> Place:
        """The writer of a session; another one opens where none is."""
        if book.writer is None:
            book.take_over(self.node, self._id(), self.made % 5 + 1)
        assert book.writer is not None
        return book.writer

    def _read(self, book: Book, count: int, gap: int, ask: memory_pb2.RecallRequest | None, resident: int) -> None:
        place = self._writer(book)
        if place.reader.position + gap + count < TEXT_TOKENS:
            book.read(place, count, gap, ask, resident)

    def _put(self, book: Book, puts: str) -> None:
        place, model = self._writer(book), book.model
        missing = [
            own for own in range(model.position // BLOCK_TOKENS) if own not in model.whole and own not in model.dropped
        ]
        book.put(place, {"all": missing, "some": missing[1::2], "none": []}[puts])


def with_hops(ask: memory_pb2.RecallRequest, hops: int) -> memory_pb2.RecallRequest:
    """The same request, which follows links if `hops` is above 0."""
    own = memory_pb2.RecallRequest()
    own.CopyFrom(ask)
    if hops:
        own.hops.hops, own.hops.blocks = hops, min(ask.top_blocks, hops)
    return own
