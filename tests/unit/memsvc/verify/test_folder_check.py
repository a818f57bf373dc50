"""Reading a data folder and naming what is damaged in it."""

import random
import shutil
from pathlib import Path

import pytest

from memsvc.cli import main
from memsvc.errors import StorageFailed, WrongState
from memsvc.folder_lock import FolderLock
from memsvc.log_format import FILE_NAME
from memsvc.manifest import SqliteManifest
from memsvc.verify.findings import Report, Severity
from memsvc.verify.folder_check import verify_folder
from tests.session_driver import Node
from tests.stored import contents, flip, folder_of, scanned, with_shard, written


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that nothing is wrong with."""
    data = tmp_path_factory.mktemp("whole") / "data"
    with_shard(written(data), data)
    return data


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def _places(report: Report) -> list[tuple[str, str]]:
    return [(finding.path, finding.place) for finding in report.all_findings if finding.severity is Severity.DAMAGE]


def test_a_whole_folder_is_whole_and_stays_as_it_is(data: Path) -> None:
    """Proves that verifying finds nothing in what a server wrote, counts it, and changes no byte and no name."""
    before = contents(data)
    report = verify_folder(data)
    assert (report.damaged, report.all_findings) == (False, ())
    (session,) = report.sessions
    assert (session.name, session.records, session.shard_files) == ("book", len(scanned(folder_of(data)).records), 1)
    assert session.blocks > 10
    assert session.unused_bytes > 0
    assert contents(data) == before


@pytest.mark.parametrize("policy", ["novelty", "hybrid", "topic_shift"])
def test_folders_of_other_policies_are_whole(tmp_path: Path, policy: str) -> None:
    """Proves that a replay without the session's finder agrees with what policies of all inputs decided."""
    written(tmp_path / "data", policy)
    assert verify_folder(tmp_path / "data").all_findings == ()


@pytest.mark.parametrize("seed", range(24))
def test_a_damaged_record_is_named_with_file_and_place(data: Path, seed: int) -> None:
    """Proves that any changed byte of a log's records is told as that record, at its offset."""
    folder, generator = folder_of(data), random.Random(seed)
    record = generator.choice(scanned(folder).records)
    flip(folder / FILE_NAME, record.offset + generator.randrange(record.size_bytes), 1 << generator.randrange(8))
    path, place = _places(verify_folder(data))[0]
    assert path == f"sessions/{folder.name}/{FILE_NAME}"
    assert place == f"record {record.record.sequence} at offset {record.offset}"


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_block_is_named_with_file_and_place(data: Path, seed: int) -> None:
    """Proves that any changed byte of a block that can be asked for, or of its header, is told at its offset."""
    folder, generator = folder_of(data), random.Random(seed)
    node = Node(data)
    ref = generator.choice(node.sessions.get("book").core.state.blocks.refs())
    node.close()
    at = generator.randrange(-28, ref.size_bytes)
    flip(folder / "blocks-000001.seg", ref.offset + at, 1 << generator.randrange(8))
    expected = (f"sessions/{folder.name}/blocks-000001.seg", f"offset {ref.offset if at >= 0 else ref.offset - 28}")
    assert _places(verify_folder(data)) == [expected]


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_shard_is_named(data: Path, seed: int) -> None:
    """Proves that any changed byte of a shard's file is told."""
    folder = folder_of(data)
    (shard,) = (folder / "shards" / "0").iterdir()
    flip(shard, random.Random(seed).randrange(shard.stat().st_size))
    assert _places(verify_folder(data)) == [(f"sessions/{folder.name}/shards/0/{shard.name}", "")]


def test_a_shard_of_other_bookmarks_is_a_note(data: Path) -> None:
    """Proves that a shard's file is compared with the rows that the log gives."""
    (shard,) = (folder_of(data) / "shards" / "0").iterdir()
    shard.rename(shard.with_name(shard.name.replace("hnsw-0-", "hnsw-1-")))
    report = verify_folder(data)
    assert not report.damaged
    assert "one of others" in report.all_findings[0].message


def test_unreadable_manifests_are_named(data: Path) -> None:
    """Proves that a manifest that is gone, or no database, or of another application, is told."""
    path = data / "manifest.sqlite"
    content = path.read_bytes()
    for damaged in (b"", content[:100], bytes(len(content)), content[:68] + b"\0\0\0\0" + content[72:]):
        path.write_bytes(damaged)
        assert ("manifest.sqlite", "") in _places(verify_folder(data))
    path.unlink()
    assert ("manifest.sqlite", "") in _places(verify_folder(data))


def test_manifest_and_folders_are_compared(data: Path) -> None:
    """Proves that an entry without a folder, a folder without an entry, and an epoch below the log's are told."""
    manifest = SqliteManifest(data / "manifest.sqlite")
    entry = manifest.get("book")
    assert entry is not None
    manifest.delete("book")
    manifest.create(type(entry)("lost", "0" * 32, entry.spec, 1, 0))
    manifest.close()
    assert {place for _, place in _places(verify_folder(data))} == {"session 'lost'", f"id {entry.id}"}
    manifest = SqliteManifest(data / "manifest.sqlite")
    manifest.delete("lost")
    manifest.create(type(entry)("book", entry.id, entry.spec, 1, 1))
    manifest.close()
    (finding,) = verify_folder(data).all_findings
    assert "expected an epoch of at least 2" in finding.message


def test_what_a_crash_leaves_is_no_damage(data: Path) -> None:
    """Proves that torn ends of log and segment, and a making or deleting that was cut off, are notes."""
    folder = folder_of(data)
    for name in (FILE_NAME, "blocks-000001.seg"):
        with (folder / name).open("ab") as file:
            file.write(b"half")
    (data / "sessions" / f"deleted-{'1' * 32}").mkdir()
    (data / "sessions" / ("2" * 32)).mkdir()
    (data / "sessions" / ("2" * 32) / "unfinished").touch()
    report = verify_folder(data)
    assert not report.damaged
    assert len(report.all_findings) == 4


def test_a_folder_with_a_server_is_not_read(data: Path) -> None:
    """Proves that an offline verify refuses a folder that a node has locked, and says to ask the server."""
    lock = FolderLock(data)
    try:
        with pytest.raises(WrongState, match="--memory"):
            verify_folder(data)
    finally:
        lock.close()
    verify_folder(data)
    with pytest.raises(StorageFailed):
        verify_folder(data / "none")


def test_exit_codes_say_whole_damaged_or_unknown(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves the three exit codes of `memsvc verify`, and that findings are on standard output."""
    assert main(["verify", "--data", str(data)]) == 0
    assert capsys.readouterr().out.endswith("whole\n")
    flip(folder_of(data) / FILE_NAME, 200)
    assert main(["verify", "--data", str(data), "--json"]) == 1
    assert '"severity": "damage"' in capsys.readouterr().out
    assert main(["verify", "--data", str(data / "none")]) == 2
    assert main(["verify"]) == 2
