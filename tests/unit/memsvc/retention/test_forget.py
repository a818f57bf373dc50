"""Blocks that leave a session, and the room that the disk gets back."""

import contextlib
import os
from pathlib import Path

import pytest

from memsvc.errors import BlockNotFound, InvalidRequest, SessionNotFound, StorageFailed
from memsvc.retention.compact import compact
from memsvc.retention.forget import forget_before
from memsvc.retention.upkeep import Upkeep
from memsvc.settings import UpkeepSettings
from memsvc.storage import MACHINE, SYSTEM, Machine
from memsvc.verify.folder_check import verify_folder
from protos.memsvc.v1 import memory_pb2
from tests.session_driver import Node, Reader, memory_of
from tests.stored import TEXT, answers, contents, flip, written


def _upkeep(node: Node, machine: Machine = MACHINE, **changed: int) -> tuple[Upkeep, list[int]]:
    corrupted: list[int] = []
    settings = UpkeepSettings(**{"scrub_bytes_per_s": 1 << 30, **changed})
    upkeep = Upkeep(node.data, node.manifest, node.sessions.folder, settings, machine, lambda: corrupted.append(1))
    return upkeep, corrupted


def _recalled(reader: Reader) -> set[int]:
    """Blocks of recalls that want as much as there is."""
    wanted = memory_pb2.RecallRequest(top_blocks=20, neighbours=1, budget_blocks=20)
    pending = reader.send(TEXT, reader.position + 20, wanted)
    assert pending is not None
    return {own.block for own in reader.session.recall(pending).blocks}


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_blocks_that_left_are_never_recalled(tmp_path: Path) -> None:
    """Proves that after a forget no recall of a view or writer, old or new, has them, and reading them says so."""
    written(tmp_path / "data")
    node = Node(tmp_path / "data")
    early = node.open("early", view=True)
    assert _recalled(early) & set(range(1, 6))
    forgotten = forget_before(early.session.core, 6 * 64, "asked")
    assert forgotten.blocks == (range(1, 6),)
    late = node.open("late", view=True)
    writer = node.open("third")
    for reader in (early, late, writer):
        assert not _recalled(reader) & set(range(1, 6))
        with pytest.raises(BlockNotFound, match="a recorded gap"):
            reader.session.read_block(reader.attachment, 3)
    assert writer.session.read_block(writer.attachment, 0)[0]
    node.close()


def test_a_forget_survives_a_kill_and_a_new_writer(tmp_path: Path) -> None:
    """Proves that what left stays away after a crash, and where what a lost writer wrote is void."""
    written(tmp_path / "data")
    node = Node(tmp_path / "data")
    session = node.sessions.get("book")
    forget_before(session.core, 5 * 64, "asked")
    memory = memory_of(session)
    again = node.crash()
    assert memory_of(again.sessions.get("book")) == memory
    writer = again.open("third")
    assert writer.session.core.state.blocks.whole(0, 100).tolist()[:2] == [0, 5]
    with pytest.raises(InvalidRequest, match="not declared as a gap"):
        writer.put([3])
    writer.read(TEXT, [writer.position + 70])
    assert memory_of(again.crash().sessions.get("book")) == memory_of(writer.session)
    again.close()


def test_compaction_keeps_every_answer(tmp_path: Path) -> None:
    """Proves that a compacted folder is whole, smaller, and answers as before, down to a resuming writer."""
    folder, data = written(tmp_path / "data"), tmp_path / "data"
    node = Node(data)
    forget_before(node.sessions.get("book").core, 7 * 64, "asked")
    node.close()
    before, memory = _disk_bytes(folder), answers(data)
    compacted = compact(folder, SYSTEM)
    assert compacted.after_bytes < compacted.before_bytes
    assert _disk_bytes(folder) < before
    report = verify_folder(data)
    assert report.all_findings == ()
    assert report.sessions[0].unused_bytes == 0
    assert answers(data) == memory
    node = Node(data)
    resumed = node.open("second", resume_epoch=2)
    resumed.read(TEXT, [resumed.position + 40])
    node.close()
    once = contents(folder)
    assert compact(folder, SYSTEM).before_bytes == compact(folder, SYSTEM).after_bytes
    assert contents(folder) == once


@pytest.mark.parametrize("call", ["rename", "remove"])
@pytest.mark.parametrize("nth", range(3))
def test_a_compaction_that_fails_half_way_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    """Proves that a compaction that stops at any rename or removal leaves the session whole, and can be done again."""
    folder, data = written(tmp_path / "data"), tmp_path / "data"
    node = Node(data)
    forget_before(node.sessions.get("book").core, 7 * 64, "asked")
    node.close()
    memory, real, calls = answers(data), getattr(os, call), []

    def refuse(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > nth:
            raise OSError(5, "Input/output error")
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with contextlib.suppress(StorageFailed):
            compact(folder, SYSTEM)
    assert not verify_folder(data).damaged
    assert answers(data) == memory
    compact(folder, SYSTEM)
    assert verify_folder(data).all_findings == ()
    assert answers(data) == memory


def test_the_disk_shrinks_once_nobody_is_attached(tmp_path: Path) -> None:
    """Proves that a forget under a writer takes effect at once, and that a later round gives the room back."""
    folder = written(tmp_path / "data")
    node = Node(tmp_path / "data")
    upkeep, _ = _upkeep(node)
    writer = node.open("third")
    before = _disk_bytes(folder)
    forgotten, compacted = upkeep.forget("book", 7 * 64)
    assert (len(forgotten.blocks), compacted) == (1, False)
    upkeep.round()
    assert _disk_bytes(folder) >= before
    writer.read(TEXT, [writer.position + 40])
    node.sessions.close_attachment("third")
    upkeep.round()
    assert _disk_bytes(folder) < before - forgotten.block_bytes
    with pytest.raises(SessionNotFound):
        upkeep.forget("none", 1)
    assert upkeep.verify("book").findings == ()
    node.close()


def test_old_and_many_blocks_leave_by_themselves(tmp_path: Path) -> None:
    """Proves that a round lets go of what is past the limits of bytes and age, and of nothing else."""
    written(tmp_path / "data")
    node = Node(tmp_path / "data")
    blocks = node.sessions.get("book").core.state.blocks
    newest = [ref.block for ref in blocks.refs()][-8:]
    _upkeep(node, keep_session_bytes=8 * 96)[0].round()
    left = [ref.block for ref in node.sessions.get("book").core.state.blocks.refs()]
    assert left == [0, *newest]

    class Later:
        """A clock that is a day ahead."""

        def monotonic_s(self) -> float:
            """As the machine's."""
            return MACHINE.clock.monotonic_s()

        def unix_ms(self) -> int:
            """A day later."""
            return MACHINE.clock.unix_ms() + 86_400_000

    _upkeep(node, keep_block_s=90_000)[0].round()
    assert [ref.block for ref in node.sessions.get("book").core.state.blocks.refs()] == left
    _upkeep(node, Machine(MACHINE.storage, Later()), keep_block_s=80_000)[0].round()
    # The window of the tail, at 700, and what was read since.
    assert [ref.block for ref in node.sessions.get("book").core.state.blocks.refs()] == [0, 9, 10, 11, 12, 13]
    node.close()


def test_the_scrubber_tells_each_damaged_block_once(tmp_path: Path) -> None:
    """Proves that a block that decays is counted once, shown in the session's status, and forgotten if it leaves."""
    folder = written(tmp_path / "data")
    node = Node(tmp_path / "data")
    upkeep, corrupted = _upkeep(node)
    upkeep.round()
    assert corrupted == []
    ref = node.sessions.get("book").core.state.blocks.get(4)
    assert ref is not None
    flip(folder / "blocks-000001.seg", ref.offset)
    for _ in range(2):
        upkeep.round()
    assert corrupted == [1]
    assert "damaged: 1 damaged blocks, expected CRC32C" in node.sessions.get("book").info().finder_status
    (finding,) = upkeep.verify("book").findings
    assert finding.place == f"offset {ref.offset}"
    node.close()


def test_the_scrubber_reads_sessions_that_are_closed(tmp_path: Path) -> None:
    """Proves that decay of a session that nobody opened is found, and that a damaged log does not stop a round."""
    folder = written(tmp_path / "data")
    node = Node(tmp_path / "data")
    ref = node.sessions.get("book").core.state.blocks.get(4)
    node.close()
    assert ref is not None
    flip(folder / "blocks-000001.seg", ref.offset)
    node = Node(tmp_path / "data")
    upkeep, corrupted = _upkeep(node)
    upkeep.round()
    assert corrupted == [1]
    assert node.sessions.folder.loaded() == []
    flip(folder / "log", 200)
    upkeep.round()
    node.close()


def test_a_fork_keeps_what_its_parent_lets_go(tmp_path: Path) -> None:
    """Proves that forgetting and compacting a session costs a fork of it, and a snapshot's window, no block."""
    written(tmp_path / "data")
    node = Node(tmp_path / "data")
    node.sessions.create_snapshot("book", "here")
    node.sessions.fork("book", "here", "other")
    before = {
        ref.block: node.sessions.get("other").core.files.read(ref)
        for ref in node.sessions.get("other").core.state.blocks.refs()
    }
    upkeep, _ = _upkeep(node)
    forgotten, compacted = upkeep.forget("book", 1_000)
    assert (forgotten.blocks, compacted) == ((range(1, 9),), True)
    for name in ("book", "other"):
        assert upkeep.verify(name).findings == ()
    other = node.sessions.get("other").core
    assert {ref.block: other.files.read(ref) for ref in other.state.blocks.refs()} == before
    assert [own.name for own in node.sessions.get("book").core.lineage.snapshots()] == ["here"]
    node.close()
    assert verify_folder(tmp_path / "data").all_findings == ()
