"""Power is lost anywhere in a recorded life: what comes back is the beginning of it, with every SYNC acknowledgement.

Does not show: a disk that lies about a sync; the manifest's own file, which SQLite keeps; see images.py for the model.
"""

import copy
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from memsvc.blocks import BlockStore
from memsvc.log_format import FILE_NAME
from memsvc.session import files
from tests.crash.images import files_below, image
from tests.crash.promises import check
from tests.crash.script import NAME, Book, Operation, Place, Run, operations
from tests.crash.storages import RecordingStorage, Trace
from tests.crash.volume import volume

OPERATIONS = 100
# Images of one life, and how many of them are lost once more while they are recovered.
IMAGES_A_LIFE, AGAIN_EVERY = 50, 5


class Life:
    """A script that was carried out, from the opened session on, on a disk that takes notes.

    Attributes:
        base: The files before.
        history: By number of changes, what was asked and promised then.
    """

    def __init__(self, data: Path, script: list[Operation]) -> None:
        self.data, self.trace = data, Trace()
        self.history: list[tuple[int, Book]] = []
        run = Run(data, storage := RecordingStorage(self.trace), lambda: self._note(run.book))
        # The manifest's row and epoch are durable before anything that counts on them.
        run.play(script[:2])
        run.place().close()
        self.base = files_below(data)
        self.trace.changes.clear()
        self.history.clear()
        self._note(run.book)
        run.play([Operation("reopen", True), *script[2:]])
        assert run.refusals == []
        run.end()
        storage.close_all()

    def after(self, changes: int) -> Book:
        """What was asked and promised when so many changes were made."""
        return [book for at, book in self.history if at <= changes][-1]

    def _note(self, book: Book) -> None:
        self.history.append((len(self.trace.changes), copy.deepcopy(book)))


@contextmanager
def _folder_of(left: Mapping[Path, bytes], data: Path, folder: Path) -> Iterator[Path]:
    """A folder with these files, whose paths are below `data`."""
    try:
        for path, content in left.items():
            own = folder / path.relative_to(data)
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_bytes(content)
        yield folder
    finally:
        shutil.rmtree(folder)


def _script(seed: int) -> list[Operation]:
    """A script in which no file ever goes."""
    return [own for own in operations(seed, OPERATIONS) if own.what != "extra"]


@pytest.mark.timeout(7200)
def test_power_loss_keeps_every_synced_acknowledgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that sectors dropped, reordered and torn since the last syncs, at any moment, recovery's own included,
    leave the beginning of what was written, at least up to the last SYNC acknowledgement, every block of it whole."""
    monkeypatch.setattr(files, "BlockStore", partial(BlockStore, segment_bytes_max=8000))
    images, lossy = volume(200, 10_000), 0
    for seed in range(-(-images // IMAGES_A_LIFE)):
        life = Life(tmp_path / f"life-{seed}", _script(seed))
        for at in range(IMAGES_A_LIFE):
            own_seed = seed * IMAGES_A_LIFE + at
            changes = random.Random(own_seed).randint(0, len(life.trace.changes))
            book, left = life.after(changes), image(life.base, life.trace.changes[:changes], own_seed)
            with _folder_of(left, life.data, tmp_path / "image") as folder:
                if at % AGAIN_EVERY == 0:
                    _lose_while_recovering(folder, own_seed)
                steps = check(folder, book, book.durable, going_on=at % AGAIN_EVERY == 1)
            lossy += steps < book.acked.steps
        shutil.rmtree(life.data)
    # Nothing was shown if nothing was ever lost.
    assert lossy > images // 20


def _lose_while_recovering(folder: Path, seed: int) -> None:
    """Leaves a folder as one that lost power while a node recovered it."""
    base, trace = files_below(folder), Trace()
    place = Place(folder, storage := RecordingStorage(trace))
    place.sessions.get(NAME)
    place.manifest.close()
    storage.close_all()
    left = image(base, trace.changes[: random.Random(seed).randint(0, len(trace.changes))], seed)
    for path in files_below(folder):
        path.unlink()
    for path, content in left.items():
        path.write_bytes(content)


@pytest.mark.timeout(7200)
def test_a_last_record_cut_at_any_byte_is_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    """Proves that whatever part of the last step's record is on the disk, the session is the one before that step."""
    life = Life(tmp_path / "life", [*_script(1)[:40], Operation("step", False)])
    book = life.after(len(life.trace.changes))
    last = [change for change in life.trace.changes if change.kind == "write" and change.path.name == FILE_NAME][-1]
    left = files_below(life.data)
    cuts = range(last.offset, last.offset + len(last.data))
    chosen = random.Random(1).sample(cuts, volume(40, len(cuts)))
    for cut in [cuts[0], *chosen]:
        with _folder_of({**left, last.path: left[last.path][:cut]}, life.data, tmp_path / "cut") as folder:
            assert check(folder, book, book.durable, going_on=False) == book.acked.steps - 1
    assert len(last.data) > 512
