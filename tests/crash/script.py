"""A writer's life as a list of operations that a seed replays, and what it was promised on the way.

What a step or block holds depends on its number alone.
"""

import copy
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from memsvc.errors import MemsvcError
from memsvc.geometry import BLOCK_TOKENS
from memsvc.manifest import SqliteManifest
from memsvc.retention.compact import compact
from memsvc.session import Session, Sessions
from memsvc.storage import Machine, Storage
from protos.memsvc.v1 import session_pb2, types_pb2
from tests.session_driver import DIMS, LIMITS, Reader, Text, session_spec

NAME = "book"
STEP_TOKENS = 24
STEPS_MAX = 120
BLOCK_BYTES = 1500
# The centre is frozen by then, whatever tails are cut later.
FIRST_STEPS = 5
# After so many refused operations all blocks are read back at once: reads go on.
READ_BACK_AFTER = 2
_WEIGHTS = {"step": 42, "put": 30, "tail": 5, "read": 8, "background": 6, "reopen": 4, "extra": 3, "compact": 2}


@dataclass(frozen=True)
class Operation:
    """What is done next; `sync` if the acknowledgement is to be durable."""

    what: str
    sync: bool


def operations(seed: int, count: int) -> list[Operation]:
    """A script."""
    generator = random.Random(seed)
    first = [Operation("create", True), Operation("open", True)] + [Operation("step", False)] * FIRST_STEPS
    drawn = generator.choices([*_WEIGHTS], [*_WEIGHTS.values()], k=count - len(first))
    return first + [Operation(what, generator.random() < 0.25) for what in drawn]


@functools.cache
def text() -> Text:
    """The text that every session reads."""
    return Text(STEP_TOKENS * STEPS_MAX, dims={"s0": DIMS})


def spec(finder: types_pb2.FinderKind.ValueType = types_pb2.FINDER_KIND_FLAT) -> types_pb2.SessionSpec:
    """Of every session."""
    made = session_spec("every", centring_tokens=STEP_TOKENS * FIRST_STEPS - 10, streams=1)
    made.fingerprint.block_bytes = BLOCK_BYTES
    made.search.finder = finder
    return made


@functools.cache
def data_of(block: int, partial_tokens: int) -> bytes:
    """The bytes of a block, or of its first so many tokens."""
    return np.random.default_rng((block, partial_tokens)).bytes(BLOCK_BYTES)


@dataclass
class Promise:
    """What a session holds at least, or at most. Blocks as (block, partial tokens)."""

    created: bool = False
    epoch: int = 0
    steps: int = 0
    tail: int = 0
    blocks: set[tuple[int, int]] = field(default_factory=set)
    extras: set[str] = field(default_factory=set)


@dataclass
class Book:
    """What was asked, what was acknowledged, and what of that was promised to survive power loss."""

    asked: Promise = field(default_factory=Promise)
    acked: Promise = field(default_factory=Promise)
    durable: Promise = field(default_factory=Promise)
    # Sessions whose deletion was asked for, which may be there or not, and those whose deletion was acknowledged.
    leaving: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    finder: types_pb2.FinderKind.ValueType = types_pb2.FINDER_KIND_FLAT


class Place:
    """The sessions of one data folder on one disk."""

    def __init__(self, data: Path, storage: Storage) -> None:
        data.mkdir(exist_ok=True)
        self.manifest = SqliteManifest(data / "manifest.sqlite")
        try:
            # Nothing here outlives the page cache, and a disk that waits takes most of the time.
            self.manifest._connection.execute("PRAGMA synchronous = OFF")
            self.sessions = Sessions(data, self.manifest, LIMITS, Machine(storage))
        except BaseException:
            self.manifest.close()
            raise

    def open(self, resume_epoch: int) -> Reader:
        """The writer."""
        request = session_pb2.OpenSessionRequest(
            session=NAME,
            mode=session_pb2.OPEN_MODE_WRITER,
            fingerprint=spec().fingerprint,
            worker="w",
            attachment="one",
            resume_epoch=resume_epoch,
        )
        return Reader(self, self.sessions.open(request), "one")  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends in order. Raises StorageFailed; all is closed all the same."""
        try:
            self.sessions.close()
        finally:
            self.manifest.close()


class Run:
    """A script at work.

    Args:
        told: Called whenever something was asked or acknowledged.
        finder: Of every session that is made.

    Attributes:
        refusals: Errors of operations, in order.
        read_back: Blocks that were read back right after the first refusals.
    """

    def __init__(
        self,
        data: Path,
        storage: Storage,
        told: Callable[[], None] = lambda: None,
        finder: types_pb2.FinderKind.ValueType = types_pb2.FINDER_KIND_FLAT,
    ) -> None:
        self.book = Book(finder=finder)
        self.refusals: list[MemsvcError] = []
        self.read_back = 0
        self._data, self._storage, self._told = data, storage, told
        self._place: Place | None = None
        self._writer: Reader | None = None
        self._id = ""

    def play(self, script: list[Operation]) -> None:
        """Carries all operations out; one that the server refuses by a typed error is gone over."""
        for operation in script:
            try:
                getattr(self, f"_{operation.what}")(operation.sync)
            except MemsvcError as error:
                self.refusals.append(error)
                if len(self.refusals) <= READ_BACK_AFTER:
                    self.read_back += self._read_back()

    def _read_back(self) -> int:
        """Reads every acknowledged block back where the session is open; how many there were."""
        if self._writer is None:
            return 0
        for block, partial_tokens in self.book.acked.blocks:
            read, _, partial = self._writer.session.read_block(self._writer.attachment, block)
            assert read == data_of(block, partial)
            assert not partial or partial >= partial_tokens
        return len(self.book.acked.blocks)

    def settle(self) -> None:
        """Waits until all full shards are saved."""
        if self._writer is not None:
            settle(self._writer.session)

    def end(self) -> None:
        """Leaves everything, as the end of the process does: nothing is closed in order."""
        if self._place is not None:
            self._place.manifest.close()

    def place(self) -> Place:
        """The node, started if it is not up."""
        if self._place is None:
            self._place = Place(self._data, self._storage)
        return self._place

    def _open(self, sync: bool) -> None:
        self._writer = self.place().open(self.book.acked.epoch)
        self.book.acked.epoch = self._writer.attachment.epoch
        self.book.acked.steps = self._writer.seq
        self._acknowledged(True)

    def _reading(self) -> Reader:
        if self._writer is None:
            self._open(True)
        assert self._writer is not None
        return self._writer

    def _create(self, sync: bool) -> None:
        self.book.asked.created = True
        self._told()
        self.place().sessions.create(NAME, spec(self.book.finder))
        entry = self.place().manifest.get(NAME)
        assert entry is not None
        self._id = entry.id
        self.book.acked.created = True
        self._acknowledged(True)

    def _step(self, sync: bool) -> None:
        writer = self._reading()
        if writer.seq >= STEPS_MAX - 2:
            return
        step = writer.message(text(), writer.position + STEP_TOKENS)
        step.durability = types_pb2.DURABILITY_SYNC if sync else types_pb2.DURABILITY_BUFFERED
        self.book.asked.steps = max(self.book.asked.steps, step.seq)
        self._told()
        writer.session.apply(writer.attachment, step)
        writer.seq, writer.position = writer.seq + 1, writer.position + STEP_TOKENS
        self.book.acked.steps = writer.seq
        self._acknowledged(sync)

    def _put(self, sync: bool) -> None:
        missing = self._missing(self._reading())
        if missing:
            self._put_one(missing[0], 0, sync)

    def _missing(self, writer: Reader) -> list[int]:
        """Whole blocks that are not acknowledged."""
        return [own for own in range(writer.position // BLOCK_TOKENS) if (own, 0) not in self.book.acked.blocks]

    def _put_one(self, block: int, partial_tokens: int, sync: bool) -> None:
        writer, data = self._reading(), data_of(block, partial_tokens)
        self.book.asked.blocks.add((block, partial_tokens))
        self._told()
        durability = types_pb2.DURABILITY_SYNC if sync else types_pb2.DURABILITY_BUFFERED
        crc = google_crc32c.value(data)
        writer.session.put_block(writer.attachment, block, partial_tokens, data, crc, durability)
        self.book.acked.blocks.add((block, partial_tokens))
        self._acknowledged(sync)

    def _tail(self, sync: bool) -> None:
        writer = self._reading()
        for block in self._missing(writer):
            self._put_one(block, 0, False)
        block, filled = divmod(writer.position, BLOCK_TOKENS)
        if filled:
            self._put_one(block, filled, False)
        self.book.asked.tail = max(self.book.asked.tail, writer.position)
        self._told()
        tail = session_pb2.Tail(version=1, position=writer.position, last_id=7)
        writer.session.save_tail(writer.attachment, writer.attachment.epoch, tail)
        self.book.acked.tail = writer.position
        self._acknowledged(True)

    def _read(self, sync: bool) -> None:
        writer = self._reading()
        for block, _ in sorted(self.book.acked.blocks)[-2:]:
            read, _, partial_tokens = writer.session.read_block(writer.attachment, block)
            assert read == data_of(block, partial_tokens)

    def _background(self, sync: bool) -> None:
        self.place().sessions.sync()
        if not self.place().sessions.failed:
            self._acknowledged(True)

    def _reopen(self, sync: bool) -> None:
        place, self._place, self._writer = self._place, None, None
        if place is not None:
            place.close()
        self.place()

    def _compact(self, sync: bool) -> None:
        """The session's files are written anew while nobody has it open."""
        self._reopen(sync)
        compact(self._data / "sessions" / self._id, self._storage)
        self._acknowledged(True)

    def _extra(self, sync: bool) -> None:
        """Another session is made, or the one there is deleted."""
        known = sorted(self.book.asked.extras)
        name = f"extra-{len(known)}"
        if known and (last := known[-1]) not in self.book.leaving and last in self.book.acked.extras:
            self.book.leaving.add(last)
            self._told()
            self.place().sessions.delete(last)
            self.book.acked.extras.discard(last)
            self.book.durable.extras.discard(last)
            self.book.gone.add(last)
            self._told()
            return
        self.book.asked.extras.add(name)
        self._told()
        self.place().sessions.create(name, spec(self.book.finder))
        self.book.acked.extras.add(name)
        self.book.durable.extras.add(name)
        self._told()

    def _acknowledged(self, durable: bool) -> None:
        if durable:
            self.book.durable = copy.deepcopy(self.book.acked)
        self._told()


def settle(session: Session) -> None:
    """Waits until all full shards of a session are saved."""
    for index in session.core.state.indexes.values():
        index.settle()
