"""One session of a state machine beside its model: what is done to both, and what must hold of the real one then."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memsvc.errors import BlockNotFound, RecallNotFound
from memsvc.geometry import BLOCK_TOKENS
from memsvc.lattice import SCALE
from memsvc.session import Session
from protos.memsvc.v1 import graph_pb2, memory_pb2, session_pb2, types_pb2
from tests.property.recall_checks import Asked, check_answer
from tests.property.session_model import Model, text
from tests.session_driver import Node, Reader, block_bytes, memory_of

READING = ("bookmarks", "ids", "centre", "held", "recent", "indexed", "trail", "position")


@dataclass
class Place:
    """An attachment beside the model of what it sees."""

    reader: Reader
    model: Model
    seed: int
    waiting: list[Asked] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)


class Book:
    """A session and its model.

    Attributes:
        exact: Whether recalls, and links that the finder finds, must be those of a comparison with everything.
    """

    def __init__(self, name: str, spec: types_pb2.SessionSpec, exact: bool) -> None:
        self.name, self.spec, self.exact = name, spec, exact
        self.model = Model(spec)
        self.tail, self.memory_at_tail = Model(spec), None
        self.writer: Place | None = None
        self.views: dict[str, Place] = {}

    def open(self, node: Node, attachment: str, view: bool = False, resume_epoch: int = 0) -> Reader:
        """An attachment of the session."""
        mode = session_pb2.OPEN_MODE_VIEW if view else session_pb2.OPEN_MODE_WRITER
        request = session_pb2.OpenSessionRequest(
            session=self.name,
            mode=mode,
            fingerprint=self.spec.fingerprint,
            worker=f"w-{attachment}",
            attachment=attachment,
            resume_epoch=resume_epoch,
        )
        return Reader(node, node.sessions.open(request), attachment)

    def read(self, place: Place, count: int, gap: int, ask: memory_pb2.RecallRequest | None, resident: int) -> None:
        """The next step of an attachment, which may ask; `resident` tokens are on the device then, 0 for unsaid."""
        reader, model = place.reader, place.model
        first, end = reader.position + gap, reader.position + gap + count
        step = reader.message(text(place.seed), end, ask, gap)
        if resident and ask is not None:
            step.resident.first, step.resident.count = max(0, end - resident), min(resident, end)
        _, pending = reader.session.apply(reader.attachment, step)
        assert (pending is not None) is (ask is not None)
        reader.seq, reader.position = reader.seq + 1, end
        is_view = reader.attachment.is_view
        if not is_view:
            model.read(first, end, place.seed, ask is not None)
            self.observe(reader.session)
        elif model.centre:
            model.read(first, end, place.seed)
        if pending is not None and ask is not None:
            total = len(model.bookmarks)
            votes = model.votes(end - 1) if total else []
            position_end = model.cut_at if is_view else end
            first_resident = step.resident.first if resident else None
            place.waiting.append(Asked(pending, ask, votes, total, position_end, first_resident))

    def observe(self, session: Session) -> None:
        """Bookmarks that are new are checked one by one; the others are as they were."""
        model, known = self.model, len(self.model.bookmarks)
        listed = session.list_bookmarks(0, 10_000)
        assert list(listed.bookmarks[:known]) == model.bookmarks
        assert listed.total == len(listed.bookmarks)
        assert not listed.bookmarks or model.centre
        chains = 1 + max((own.chain for own in model.bookmarks), default=-1)
        fresh = listed.bookmarks[known:]
        positions = [own.position for own in listed.bookmarks[max(0, known - 1) :]]
        assert all(one < other for one, other in pairwise(positions))
        assert all(own.position in model.seeds for own in fresh)
        model.bookmarks += fresh
        for at, own in enumerate(fresh):
            assert (own.index, own.block) == (known + at, own.position // BLOCK_TOKENS)
            self._check_links(own)
            assert own.chain == (model.bookmarks[own.links[0].parent].chain if own.links else chains)
            chains = max(chains, own.chain + 1)

    def _check_links(self, own: graph_pb2.Bookmark) -> None:
        model, search = self.model, self.spec.search
        links = [(link.parent, link.weight) for link in own.links]
        parents = [parent for parent, _ in links]
        assert len(set(parents)) == len(parents) <= search.links_max
        assert all(parent < own.index for parent in parents)
        assert [weight for _, weight in links] == sorted((weight for _, weight in links), reverse=True)
        if self.exact and search.link_search == types_pb2.LINK_SEARCH_FINDER:
            assert links == model.links_of(own.index)
        elif links:
            stream = self.spec.fingerprint.streams[0].name
            rows = model.bookmark_rows(stream)
            weights = ((rows[parents] @ rows[own.index]) * (1.0 / SCALE**2)).astype(np.float32)
            assert [weight for _, weight in links] == weights.tolist()
            assert min(weights) >= search.link_similarity_min - 1e-6

    def answer(self, place: Place) -> None:
        """The oldest recall that waits is answered: of what was put by now, and of nothing else."""
        asked = place.waiting.pop(0)
        place.answered.append(asked.pending.asked_at)
        stored = place.model if place.reader.attachment.is_view else self.model
        check_answer(place.reader.session, asked, place.model, stored, self.exact)

    def put(self, place: Place, blocks: list[int]) -> None:
        """Puts whole blocks; what this writer's predecessors had put has other bytes."""
        place.reader.put(blocks, salt=place.seed)
        for block in blocks:
            self.model.whole[block] = block_bytes(block, place.seed)
            self.model.partial.pop(block, None)

    def drop(self, place: Place, blocks: list[int], gap: int) -> None:
        """A step without tokens, which declares blocks and tokens lost."""
        reader = place.reader
        end = reader.position + gap
        step = reader.message(text(place.seed), end, None, gap)
        for block in blocks:
            step.block_gaps.add(first=block, count=1)
        reader.session.apply(reader.attachment, step)
        reader.seq, reader.position = reader.seq + 1, end
        self.model.read(end, end, place.seed)
        self.model.dropped |= set(blocks) - set(self.model.whole)
        self.observe(reader.session)

    def save_tail(self, place: Place) -> None:
        """Puts what is missing, and cuts a tail here."""
        reader, model = place.reader, self.model
        block, filled = divmod(model.position, BLOCK_TOKENS)
        self.put(place, [own for own in range(block) if own not in model.whole and own not in model.dropped])
        if filled and model.through <= block and model.partial.get(block, (0,))[0] != filled:
            model.partial[block] = (filled, block_bytes(block, 1000 * place.seed + filled))
            reader.put_one(block, filled, model.partial[block][1])
        model.freeze()
        tail = session_pb2.Tail(version=1, position=model.position, last_id=len(model.seeds))
        reader.session.save_tail(reader.attachment, reader.attachment.epoch, tail)
        self.observe(reader.session)
        self.tail, self.memory_at_tail = model.cut(), memory_of(reader.session)

    def check_blocks(self, place: Place) -> None:
        """Each block reads back as it was put; what was never put, or lies past a view's cut, is not there."""
        reader, model = place.reader, place.model
        end = model.position // BLOCK_TOKENS
        if reader.attachment.is_view:
            end = model.cut_at // BLOCK_TOKENS
        for block in range(end + 2):
            known = model.whole.get(block) or model.partial.get(block, (0, None))[1]
            if reader.attachment.is_view and (block > end or (block == end and block not in model.partial)):
                known = None
            if known is None:
                with pytest.raises(BlockNotFound):
                    reader.session.read_block(reader.attachment, block)
            else:
                assert reader.session.read_block(reader.attachment, block)[0] == known

    def take_over(self, node: Node, attachment: str, seed: int) -> None:
        """Another writer opens: it starts at the tail, and what came after that is nowhere."""
        former = self.writer
        reader = self.open(node, attachment)
        self.model = self.tail.without_what_was_ahead()
        self.writer = Place(reader, self.model, seed)
        assert (reader.position, reader.seq) == (self.model.position, 0)
        self.check_memory(reader.session)
        for asked_at in former.answered if former else []:
            if asked_at >= self.model.position:
                with contextlib.suppress(RecallNotFound):
                    assert reader.session.explain(asked_at).recall.attachment in self.views
        self.observe(reader.session)

    def check_memory(self, session: Session) -> None:
        """All but blocks is as when the tail was cut."""
        memory = reading(session)
        if self.memory_at_tail is None:
            assert (memory["bookmarks"], memory["position"], memory["held"]) == ([], 0, 0)
        else:
            assert differences(memory, _reading_of(self.memory_at_tail)) == []

    def check_twin(self, folder: Path) -> None:
        """A session that read the same tokens in the fewest steps knows the same."""
        if self.writer is None or not self.model.runs:
            return
        session, node = self.writer.reader.session, Node(folder)
        node.sessions.create(self.name, self.spec)
        twin = self.open(node, "twin")
        wanted = memory_pb2.RecallRequest(top_blocks=1, budget_blocks=1)
        frozen = [run for run in self.model.runs if self.model.frozen_at and run[1] <= self.model.frozen_at]
        for run in self.model.runs:
            first, end, seed = run
            asks = bool(frozen) and run is frozen[-1]
            for stop in _stops(first, end):
                twin.send(text(seed), stop, wanted if asks and stop == end else None, max(0, first - twin.position))
        if twin.position < self.model.position:
            twin.send(text(1), self.model.position, gap=self.model.position - twin.position)
        assert differences(reading(twin.session), reading(session)) == []
        node.close()


def reading(session: Session) -> dict[str, object]:
    """What a session remembers of its tokens; not its blocks and tail."""
    return _reading_of(memory_of(session))


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Names of what is not the same in both."""
    return [name for name in one if one[name] != other[name]]


def _reading_of(memory: dict[str, Any]) -> dict[str, object]:
    return {name: memory[name] for name in READING} | {"gaps of tokens": memory["gaps"][0]}


def _stops(first: int, end: int) -> Iterator[int]:
    yield from range(first + 4096, end, 4096)
    yield end
