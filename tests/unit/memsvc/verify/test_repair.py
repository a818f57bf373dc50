"""Making a damaged data folder whole again."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest

from memsvc.log_format import FILE_NAME
from memsvc.manifest import SqliteManifest
from memsvc.session.records import RecordKind
from memsvc.verify.folder_check import verify_folder
from memsvc.verify.quarantine import Quarantine
from memsvc.verify.repair import Repaired, repair_folder
from tests.session_driver import Node
from tests.stored import TEXT, Answers, answers, contents, flip, folder_of, scanned, with_shard, written

SEGMENT = "blocks-000001.seg"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that nothing is wrong with."""
    data = tmp_path_factory.mktemp("whole") / "data"
    with_shard(written(data), data)
    return data


@pytest.fixture(scope="module")
def expected(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What it answers."""
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(whole, copy)
    return answers(copy)


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def _repaired(data: Path) -> Repaired:
    """Repairs, and proves that the folder is whole then and that another repair has nothing to do."""
    assert verify_folder(data).damaged
    repaired = repair_folder(data)
    assert repaired.after.all_findings == ()
    before = contents(data)
    again = repair_folder(data)
    assert (again.done, again.lost, again.quarantine) == ((), (), None)
    assert contents(data) == before
    return repaired


def _kinds(kind: RecordKind) -> Callable[[Path], list[int]]:
    """Offsets of the bytes of records of a kind."""
    return lambda folder: [
        at
        for own in scanned(folder).records
        if own.record.kind == kind
        for at in range(own.offset, own.offset + own.size_bytes)
    ]


# What log and blocks know twice, or derive: a repair brings back every bit of it.
DERIVED: dict[str, tuple[str, Callable[[Path], list[int]]]] = {
    "the log's head": (FILE_NAME, lambda folder: list(range(44))),
    "the first record": (FILE_NAME, _kinds(RecordKind.SESSION)),
    "records of blocks": (FILE_NAME, _kinds(RecordKind.BLOCK)),
    "a segment's head": (SEGMENT, lambda folder: list(range(12))),
    "headers of blocks": (SEGMENT, lambda folder: [at for n in range(10) for at in range(12 + 124 * n, 40 + 124 * n)]),
    "a shard": ("shards/0/*", lambda folder: list(range(4096))),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("part", DERIVED)
def test_what_is_known_elsewhere_comes_back(data: Path, expected: Answers, part: str, seed: int) -> None:
    """Proves that damage to anything that log and blocks still hold is made good, with the same answers as before."""
    folder, generator = folder_of(data), random.Random(seed)
    name, offsets = DERIVED[part]
    (path,) = folder.glob(name)
    flip(path, generator.choice(offsets(folder)), 1 << generator.randrange(8))
    repaired = _repaired(data)
    assert repaired.lost == ()
    assert repaired.quarantine is not None
    assert answers(data) == expected


def test_a_void_record_is_passed_over(data: Path, expected: Answers) -> None:
    """Proves that damage to what a lost writer wrote past the tail costs nothing."""
    folder = folder_of(data)
    records = scanned(folder).records
    opened = [at for at, own in enumerate(records) if own.record.kind == RecordKind.OPENED][1]
    flip(folder / FILE_NAME, records[opened - 1].offset + 60)
    assert _repaired(data).lost == ()
    assert answers(data) == expected


@pytest.mark.parametrize("damage", ["gone", "cut", "zeroed", "another application's"])
def test_a_lost_manifest_is_made_again(data: Path, expected: Answers, damage: str) -> None:
    """Proves that names, ids, specs and epochs come back from the logs alone."""
    path = data / "manifest.sqlite"
    content = path.read_bytes()
    entry = _entry(data)
    if damage == "gone":
        path.unlink()
    else:
        zeroed = bytes(len(content))
        path.write_bytes({"cut": content[:500], "zeroed": zeroed}.get(damage, content[:68] + b"xxxx" + content[72:]))
    assert _repaired(data).lost == ()
    again = _entry(data)
    assert (again.name, again.id, again.spec, again.epoch) == (entry.name, entry.id, entry.spec, entry.epoch)
    assert answers(data) == expected


def _entry(data: Path):
    manifest = SqliteManifest(data / "manifest.sqlite")
    try:
        return manifest.get("book")
    finally:
        manifest.close()


def test_an_epoch_never_falls(data: Path) -> None:
    """Proves that an epoch below the log's is raised, and that one above it stays."""
    for epoch, least in ((1, 2), (70, 70)):
        entry = _entry(data)
        manifest = SqliteManifest(data / "manifest.sqlite")
        manifest.delete("book")
        manifest.create(type(entry)("book", entry.id, entry.spec, 5, epoch))
        manifest.close()
        repair_folder(data)
        assert (_entry(data).epoch, _entry(data).created_unix_ms) == (least, 5)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_block_is_a_gap_and_the_others_are_served(data: Path, expected: Answers, seed: int) -> None:
    """Proves that a block whose bytes are gone is told as lost and never served, and that every other one is."""
    folder = folder_of(data)
    block = random.Random(seed).choice(sorted(expected.blocks))
    node = Node(data)
    ref = node.sessions.get("book").core.state.blocks.get(block)
    node.close()
    assert ref is not None
    flip(folder / SEGMENT, ref.offset + 5)
    repaired = _repaired(data)
    assert repaired.lost == (f"session book: block {block}, which is a gap now",)
    left = answers(data)
    assert left.blocks == {own: content for own, content in expected.blocks.items() if own != block}
    assert left.memory["bookmarks"] == expected.memory["bookmarks"]
    assert [range(block, block + 1)] == left.memory["gaps"][1]
    # What was damaged is set aside as it was.
    assert (repaired.quarantine / "sessions" / folder.name / SEGMENT).is_file()


@pytest.mark.parametrize("seed", range(6))
def test_a_lost_step_ends_the_log_before_it(data: Path, expected: Answers, seed: int) -> None:
    """Proves that what came before a step that is lost comes back, that the rest is told, and that writing goes on."""
    folder = folder_of(data)
    records = scanned(folder).records
    opened = max(at for at, own in enumerate(records) if own.record.kind == RecordKind.OPENED)
    steps = [own for own in records[opened:] if own.record.kind == RecordKind.STEP]
    step = random.Random(seed).choice(steps)
    flip(folder / FILE_NAME, step.offset + 40)
    repaired = _repaired(data)
    assert f"record {step.record.sequence} at offset {step.offset}" in repaired.lost[0]
    left = answers(data)
    first = step.record.body["first"]
    assert left.memory["position"] == first
    assert left.memory["bookmarks"] == expected.memory["bookmarks"][: len(left.memory["bookmarks"])]
    assert all(expected.blocks.get(block, content) == content for block, content in left.blocks.items())
    node = Node(data)
    node.open("third").read(TEXT, [node.sessions.get("book").core.state.tokens.position + 10])
    node.close()
    assert not verify_folder(data).damaged


def test_a_session_without_a_log_is_set_aside(data: Path) -> None:
    """Proves that blocks that nothing says anything of are kept in the quarantine, and the session is told as lost."""
    folder = folder_of(data)
    (folder / FILE_NAME).unlink()
    repaired = _repaired(data)
    assert len(repaired.lost) == 2
    assert (repaired.quarantine / "sessions" / folder.name / SEGMENT).is_file()
    assert not folder.exists()


def test_all_segments_gone_leave_bookmarks(data: Path, expected: Answers) -> None:
    """Proves that a session without any block is served: its blocks are gaps, its bookmarks as they were."""
    (folder_of(data) / SEGMENT).unlink()
    repaired = _repaired(data)
    assert len(repaired.lost) == len(repaired.after.sessions[0].findings) + len(expected.blocks) + 4
    left = answers(data)
    assert left.blocks == {}
    assert left.memory["bookmarks"] == expected.memory["bookmarks"]


def test_the_end_of_a_tail_is_lost_alone(data: Path, expected: Answers) -> None:
    """Proves that damage to the part of a block that a tail ended in costs that part, not the block put whole since."""
    folder = folder_of(data)
    node = Node(data)
    partial = node.sessions.get("book").core.state.cut.partial
    node.close()
    assert partial is not None
    flip(folder / SEGMENT, partial.offset)
    repaired = _repaired(data)
    assert repaired.lost == (f"session book: a part of block {partial.block} that a tail or snapshot ended in",)
    assert answers(data).memory["blocks"] == expected.memory["blocks"]


@pytest.mark.parametrize("seed", range(8))
def test_much_damage_at_once_leaves_a_whole_folder(data: Path, expected: Answers, seed: int) -> None:
    """Proves that whatever is flipped, zeroed and cut at once, a repair ends whole and serves no wrong byte."""
    folder, generator = folder_of(data), random.Random(seed)
    (shard,) = (folder / "shards" / "0").iterdir()
    for path in generator.choices((folder / FILE_NAME, folder / SEGMENT, data / "manifest.sqlite", shard), k=4):
        content = bytearray(path.read_bytes())
        at, what = generator.randrange(len(content) or 1), generator.choice(("flip", "zero", "cut"))
        if what == "cut":
            del content[at:]
        elif content:
            end = at + 1 if what == "flip" else min(len(content), at + generator.randrange(1, 3000))
            content[at:end] = bytes(end - at) if what == "zero" else bytes([content[at] ^ 16])
        path.write_bytes(content)
    repaired = repair_folder(data)
    assert not repaired.after.damaged
    again = repair_folder(data)
    assert (again.done, again.lost) == ((), ())
    if repaired.after.sessions:
        left = answers(data)
        assert all(expected.blocks.get(block, content) == content for block, content in left.blocks.items())
        assert left.memory["bookmarks"] == expected.memory["bookmarks"][: len(left.memory["bookmarks"])]


def test_a_repair_that_was_cut_off_is_finished(data: Path, expected: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a repair that dies once the log is replaced leaves a folder that the next one makes whole."""
    folder = folder_of(data)
    flip(folder / SEGMENT, 5)
    with monkeypatch.context() as patch:
        patch.setattr(Quarantine, "move", lambda own, path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            repair_folder(data)
    assert (folder / "blocks-000002.seg").is_file()
    _repaired(data)
    assert answers(data) == expected


def test_a_log_of_another_version_is_left_as_it_is(data: Path) -> None:
    """Proves that a repair changes nothing of what another version of the server wrote."""
    path = folder_of(data) / FILE_NAME
    content = bytearray(path.read_bytes())
    content[8] = 2
    content[28:32] = int(google_crc32c.value(bytes(content[:28]))).to_bytes(4, "little")
    path.write_bytes(content)
    repaired = repair_folder(data)
    assert "another version" in repaired.lost[0]
    assert path.read_bytes() == bytes(content)
    assert _entry(data) is not None
