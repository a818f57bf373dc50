"""Whether a folder keeps what its writer was promised, and holds nothing that nobody asked for.

What a step holds depends on its number alone, so a recovered session is right if it equals one that read as many steps
without any trouble.
"""

import functools
import hashlib
import tempfile
from pathlib import Path

import google_crc32c

from memsvc.errors import BlockNotFound, SessionNotFound
from memsvc.geometry import BLOCK_TOKENS
from memsvc.session import Session
from protos.memsvc.v1 import types_pb2
from tests.crash.script import (
    FIRST_STEPS,
    NAME,
    STEP_TOKENS,
    STEPS_MAX,
    Book,
    Operation,
    Place,
    Promise,
    Run,
    data_of,
    operations,
    text,
)
from tests.crash.storages import HookedStorage
from tests.session_driver import memory_of

READING = ("bookmarks", "ids", "centre", "held", "recent", "indexed", "trail", "position")


def check(data: Path, book: Book, least: Promise, *, going_on: bool = True) -> int:
    """Asserts that the folder, opened on a disk that works, keeps the promise and holds nothing that was not asked.

    Args:
        going_on: Whether it must also take more.

    Returns:
        How many steps were recovered.
    """
    place = Place(data, HookedStorage())
    try:
        _check_names(place, book, least)
        try:
            session = place.sessions.get(NAME)
        except SessionNotFound:
            assert not least.created
            return 0
        steps = check_session(session, book, least)
        if going_on:
            _go_on(place, least.epoch, session)
        return steps
    finally:
        place.close()


def _check_names(place: Place, book: Book, least: Promise) -> None:
    names = {info.name for info in place.sessions.list(1000, "")[0]}
    assert names <= {NAME, *book.asked.extras} - book.gone
    assert least.extras - book.leaving <= names
    assert not least.created or NAME in names


def check_session(session: Session, book: Book, least: Promise) -> int:
    """Asserts that a session holds between the promise and what was asked, and that all of it is right."""
    state = session.core.state
    steps, rest = divmod(state.tokens.position, STEP_TOKENS)
    assert rest == 0
    assert least.steps <= steps <= book.asked.steps
    assert digest(session) == references(book.finder)[steps]
    tail = state.cut.position
    assert least.tail <= tail <= book.asked.tail
    found = set()
    for block in range(STEPS_MAX * STEP_TOKENS // BLOCK_TOKENS):
        if (ref := state.blocks.get(block)) is not None:
            assert session.core.files.read(ref) == data_of(block, ref.partial_tokens)
            found.add((block, ref.partial_tokens))
    assert found <= book.asked.blocks
    for block, partial_tokens in least.blocks:
        held = [own for own in found if own[0] == block]
        assert held, f"block {block}"
        assert held[0][1] == 0 or held[0][1] >= partial_tokens > 0
    return steps


def digest(session: Session) -> str:
    """Of what a session remembers of its tokens: graph, links, vectors, trail."""
    memory = memory_of(session)
    return hashlib.blake2b(repr([memory[name] for name in READING]).encode(), digest_size=16).hexdigest()


@functools.cache
def references(finder: types_pb2.FinderKind.ValueType) -> list[str]:
    """By number of steps, the digest of a session that read so many without any trouble."""
    digests = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), HookedStorage(), finder=finder)
        run.play(operations(0, 2 + FIRST_STEPS)[:2])
        for at in range(STEPS_MAX - 1):
            digests.append(digest(run.place().sessions.get(NAME)))
            if at < STEPS_MAX - 2:
                run.play([Operation("step", False)])
        assert run.refusals == []
        run.place().close()
    return digests


def _go_on(place: Place, epoch: int, session: Session) -> None:
    """A writer resumes, or begins, and is served."""
    writer = place.open(epoch)
    position = writer.position
    writer.send(text(), position + STEP_TOKENS)
    for block in range(writer.position // BLOCK_TOKENS):
        try:
            session.read_block(writer.attachment, block)
        except BlockNotFound:
            data = data_of(block, 0)
            session.put_block(writer.attachment, block, 0, data, google_crc32c.value(data), types_pb2.DURABILITY_SYNC)
    assert session.core.state.tokens.position == position + STEP_TOKENS
    session.core.sync()
