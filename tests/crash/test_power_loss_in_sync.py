"""Power is lost around fsyncs beside which the session goes on: what was promised is there, and what is there is whole.

The log of a session is synced after its blocks. A block put in between may be lost though its record is on the disk.
"""

import random
import uuid
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest

from memsvc.log_format import FILE_NAME
from memsvc.session.files import SessionFiles
from memsvc.session.records import RecordKind, pack_block, unpack_block
from memsvc.storage import Machine
from tests.crash.images import files_below, image
from tests.crash.storages import Call, Change, RecordingStorage, Trace
from tests.crash.volume import volume

SESSION = uuid.UUID(int=3).hex
BLOCK_BYTES = 1500
# Of a log, before its first record.
HEAD_BYTES = 44
# Of one life.
ROUNDS, IMAGES = 20, 50


class _Overlapped(RecordingStorage):
    """A disk that does something right after a sync of blocks, before the log's begins."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.meanwhile: Callable[[], None] | None = None

    def after(self, call: Call) -> None:
        super().after(call)
        if call.kind == "sync" and call.role == "blocks" and self.meanwhile is not None:
            # Once: what is done may sync blocks, too.
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()


def _data_of(block: int) -> bytes:
    return random.Random(block).randbytes(BLOCK_BYTES)


def _put(files: SessionFiles, block: int) -> None:
    data = _data_of(block)
    files.append(RecordKind.BLOCK, 1, pack_block(files.put(block, 0, data, google_crc32c.value(data))))


def _is_record(change: Change) -> bool:
    """Whether it goes past the head of a log, which notes how much of it is durable."""
    return change.path.name == FILE_NAME and change.offset >= HEAD_BYTES


def _life(folder: Path, seed: int) -> tuple[dict[Path, bytes], Trace, list[tuple[int, int]]]:
    """The files before, what was done to them, and by number of changes how many records were promised then."""
    generator, trace = random.Random(seed), Trace()
    storage = _Overlapped(trace)
    files = SessionFiles.create(folder / SESSION, SESSION, {"name": "book"}, Machine(storage=storage))
    base, promised = files_below(folder), [(0, 1)]
    trace.changes.clear()
    block = 0
    for _ in range(ROUNDS):
        for _ in range(generator.randint(1, 3)):
            _put(files, block)
            block += 1
        overlapping = range(block, block + generator.randint(0, 2))
        storage.meanwhile = lambda own=overlapping: [_put(files, block) for block in own]
        due = files.sequence
        files.sync()
        block = overlapping.stop
        promised.append((len(trace.changes), due))
    return base, trace, promised


@pytest.mark.timeout(3600)
def test_a_block_put_during_a_sync_is_whole_or_its_record_is_gone(tmp_path: Path) -> None:
    """Proves that records of completed syncs come back, that what else does has its block, and that some did not."""
    images, cut = volume(200, 5000), 0
    for seed in range(images // IMAGES):
        base, trace, promised = _life(tmp_path / f"life-{seed}", seed)
        for at in range(IMAGES):
            own_seed = seed * IMAGES + at
            changes = random.Random(own_seed).randint(0, len(trace.changes))
            folder = tmp_path / f"image-{own_seed}"
            for path, content in image(base, trace.changes[:changes], own_seed).items():
                own = folder / path.relative_to(tmp_path / f"life-{seed}")
                own.parent.mkdir(parents=True, exist_ok=True)
                own.write_bytes(content)
            files, records = SessionFiles.open(folder / SESSION, SESSION)
            assert len(records) >= [due for end, due in promised if end <= changes][-1]
            for block, record in enumerate(records[1:]):
                assert files.read(unpack_block(record.body)) == _data_of(block)
            written = sum(change.kind == "write" and _is_record(change) for change in trace.changes[:changes])
            cut += len(records) - 1 < written
            files.close()
    # Nothing was shown if no record was ever lost.
    assert cut > images // 20
