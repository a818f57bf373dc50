"""A bit changes anywhere in a session's files: it is found, or it does no harm. No wrong byte is ever served.

Does not show: several flips that make a checksum right again; the manifest's creation times, which no checksum covers.
"""

import random
import shutil
from pathlib import Path

import pytest

from memsvc.errors import CorruptBlock, MemsvcError
from protos.memsvc.v1 import types_pb2
from tests.crash.promises import digest, references
from tests.crash.script import NAME, Book, Operation, Place, Run, data_of, operations, settle
from tests.crash.storages import HookedStorage
from tests.crash.volume import volume
from tests.property.small_parts import make_parts_small

OPERATIONS = 70
KINDS = {"log": "log", "blocks": "blocks-*.seg", "shard": "*.bin", "manifest": "manifest.sqlite"}


def _written(data: Path) -> Run:
    """A session with blocks, tails and saved shards, closed in order."""
    run = Run(data, HookedStorage(), finder=types_pb2.FINDER_KIND_HNSW)
    script = [own for own in operations(3, OPERATIONS) if own.what not in ("extra", "reopen")]
    run.play([*script, Operation("tail", True)])
    run.settle()
    assert run.refusals == []
    run.place().close()
    return run


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_or_does_no_harm(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a session with one bit changed is served exactly as it was, or its calls end in a typed error."""
    make_parts_small(monkeypatch)
    run = _written(tmp_path / "data")
    paths = sorted((tmp_path / "data").rglob(KINDS[kind]))
    assert paths
    found, flips = 0, volume(50, 1250)
    for seed in range(flips):
        generator = random.Random(seed)
        folder = tmp_path / "flipped"
        shutil.copytree(tmp_path / "data", folder)
        _flip(folder / generator.choice(paths).relative_to(tmp_path / "data"), generator)
        found += _found(folder, run.book)
        shutil.rmtree(folder)
    # A shard that is damaged is made anew, and most of a small manifest is room that nothing uses.
    assert found > flips // 2 or kind in ("shard", "manifest")


def _flip(path: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def _found(folder: Path, book: Book) -> bool:
    """Whether the server found the damage; asserts that what it serves is right."""
    try:
        place = Place(folder, HookedStorage())
    except MemsvcError:
        return True
    try:
        return _served(place, book)
    except MemsvcError:
        return True
    finally:
        place.close()


def _served(place: Place, book: Book) -> bool:
    """Reads everything; whether a block was found damaged. Raises MemsvcError where the session is."""
    found = False
    session = place.sessions.get(NAME)
    # A shard that is damaged is saved anew in the background.
    settle(session)
    assert digest(session) == references(book.finder)[book.acked.steps]
    state = session.core.state
    assert state.cut.position == book.acked.tail
    for block, partial_tokens in book.acked.blocks:
        ref = state.blocks.get(block)
        assert ref is not None
        assert ref.partial_tokens == 0 or ref.partial_tokens >= partial_tokens > 0
        try:
            assert session.core.files.read(ref) == data_of(block, ref.partial_tokens)
        except CorruptBlock:
            found = True
    return found
