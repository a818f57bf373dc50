"""A session's log: what was appended comes back, or a typed error does."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from memsvc import log as log_module
from memsvc.errors import CorruptLog, FormatVersion, LimitExceeded, MemsvcError, StorageFailed
from memsvc.log import SessionLog, read_log
from memsvc.log_format import FILE_NAME, LogRecord
from tests.disk_faults import files_end_at, fsync_fails

SESSION = uuid.UUID(int=7).hex
# Bytes before the first record, and of the session id in them.
HEAD_BYTES = 44
BODY: dict[str, Any] = {"ids": b"\x00\xff", "weights": [0.5, -1.25], "name": "ü", "deep": {"none": None, 3: [True]}}


def _log(folder: Path, bodies: list[dict[str, Any]], session: str = SESSION) -> SessionLog:
    log = SessionLog.create(folder, session)
    for body in bodies:
        log.append(2, 5, body)
    return log


def _reopened(folder: Path, session: str = SESSION) -> list[LogRecord]:
    log, records = SessionLog.open(folder, session)
    log.close()
    return records


def test_what_was_appended_comes_back(tmp_path: Path) -> None:
    """Proves that kind, sequence, epoch and body of each record survive closing and opening, in order."""
    log = SessionLog.create(tmp_path / "s", SESSION)
    appended = [(0, 0, {}), (255, 2**64 - 1, BODY), (3, 1, {"big": bytes(3_000_000)})]
    assert [log.append(kind, epoch, body) for kind, epoch, body in appended] == [1, 2, 3]
    log.close()
    expected = [LogRecord(kind, at, epoch, body) for at, (kind, epoch, body) in enumerate(appended, start=1)]
    assert _reopened(tmp_path / "s") == expected


def test_appends_go_on_after_opening(tmp_path: Path) -> None:
    """Proves that sequences have no hole across three openings."""
    _log(tmp_path, [{"at": 1}]).close()
    for at in (2, 3):
        log, records = SessionLog.open(tmp_path, SESSION)
        assert len(records) == at - 1
        assert log.append(1, 1, {"at": at}) == at
        log.close()
    assert [record.body["at"] for record in _reopened(tmp_path)] == [1, 2, 3]


def test_records_survive_the_kill_of_their_process(tmp_path: Path) -> None:
    """Proves that an append that returned is there after kill -9, with nothing synced or closed."""
    program = (
        "import os, pathlib, sys; from memsvc.log import SessionLog\n"
        f"log = SessionLog.create(pathlib.Path(sys.argv[1]), {SESSION!r})\n"
        "[log.append(1, 1, {'at': at}) for at in range(100)]\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [record.body["at"] for record in _reopened(tmp_path)] == list(range(100))


def test_an_append_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a record reaches the system in one call and needs no other."""
    writes = []
    write = os.pwritev
    log = _log(tmp_path, [])
    monkeypatch.setattr(os, "pwritev", lambda *arguments: writes.append(arguments) or write(*arguments))
    log.append(1, 1, BODY)
    assert len(writes) == 1
    log.close()


def test_a_log_is_created_once(tmp_path: Path) -> None:
    """Proves that creating over a log fails and leaves it as it is."""
    _log(tmp_path, [BODY]).close()
    with pytest.raises(StorageFailed, match="File exists"):
        SessionLog.create(tmp_path, SESSION)
    assert len(_reopened(tmp_path)) == 1


def test_a_log_that_is_gone_is_a_loss(tmp_path: Path) -> None:
    """Proves that a missing file is CorruptLog and no new, empty log."""
    with pytest.raises(CorruptLog, match="got no file"):
        SessionLog.open(tmp_path, SESSION)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("offset", "named"), [(0, "magic"), (8, "format version"), (12, "session id"), (30, "a head")])
def test_a_head_of_anything_else_is_refused(tmp_path: Path, offset: int, named: str) -> None:
    """Proves that magic, version, session, and the checksums of the head are checked and named."""
    _log(tmp_path, [BODY]).close()
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    content[offset] ^= 1
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(CorruptLog, match=f"expected {named}"):
        SessionLog.open(tmp_path, SESSION)


def test_a_damaged_mark_of_what_is_durable_costs_nothing_in_a_whole_log(tmp_path: Path) -> None:
    """Proves that a mark which a full disk took half of loses no record, and lets no damaged one be cut off."""
    _log(tmp_path, [{"at": 1}, {"at": 2}]).close()
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:36] + bytes(8) + whole[44:])
    assert [record.body["at"] for record in _reopened(tmp_path)] == [1, 2]
    assert path.read_bytes() == whole
    path.write_bytes(whole[:36] + bytes(8) + whole[44:-1])
    with pytest.raises(CorruptLog, match="expected record 2 whole"):
        SessionLog.open(tmp_path, SESSION)


def test_a_log_of_another_version_is_refused_as_such(tmp_path: Path) -> None:
    """Proves that a whole head of another version is FormatVersion, told from damage, and that nothing is changed."""
    _log(tmp_path, [BODY]).close()
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    content[8:12] = (2).to_bytes(4, "little")
    content[28:32] = google_crc32c.value(bytes(content[:28])).to_bytes(4, "little")
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(FormatVersion, match="expected a log of format version 1, got 2, at"):
        SessionLog.open(tmp_path, SESSION)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_records_that_nothing_backs_are_cut_off(tmp_path: Path) -> None:
    """Proves that of the records past the durable ones as many count as the caller says, and that it sees no others."""
    log = _log(tmp_path, [{"at": 1}])
    log.sync()
    for at in (2, 3, 4):
        log.append(1, 1, {"at": at})
    seen: list[int] = []

    def holding(doubtful: Sequence[LogRecord]) -> int:
        seen.extend(record.body["at"] for record in doubtful)
        return 1

    again, records = SessionLog.open(tmp_path, SESSION, holding=holding)
    assert seen == [2, 3, 4]
    assert [record.body["at"] for record in records] == [1, 2]
    assert again.append(1, 1, {"at": 5}) == 3
    again.close()
    assert [record.body["at"] for record in _reopened(tmp_path)] == [1, 2, 5]


@pytest.mark.parametrize("size_bytes", [0, 5, 12, HEAD_BYTES - 1])
def test_a_head_that_is_cut_is_refused(tmp_path: Path, size_bytes: int) -> None:
    """Proves that a file shorter than a head, the empty one too, is no log."""
    _log(tmp_path, []).close()
    os.truncate(tmp_path / FILE_NAME, size_bytes)
    with pytest.raises(CorruptLog):
        SessionLog.open(tmp_path, SESSION)


def test_another_sessions_record_is_none_of_ours(tmp_path: Path) -> None:
    """Proves that a record, whole and of the right sequence, does not pass where another session's log holds it."""
    _log(tmp_path / "ours", [{"mine": 1}]).close()
    theirs = _log(tmp_path / "theirs", [{"mine": 1}, {"not mine": 2}], uuid.UUID(int=8).hex)
    first_end = (tmp_path / "ours" / FILE_NAME).stat().st_size
    tail = (tmp_path / "theirs" / FILE_NAME).read_bytes()[first_end:]
    theirs.close()
    with (tmp_path / "ours" / FILE_NAME).open("ab") as file:
        file.write(tail)
    assert [record.body for record in _reopened(tmp_path / "ours")] == [{"mine": 1}]


def test_a_record_out_of_sequence_is_refused(tmp_path: Path) -> None:
    """Proves that a whole record of this session in the wrong place is corruption, not the end of the log."""
    log = _log(tmp_path, [{"at": 1}, {"at": 2}])
    content = (tmp_path / FILE_NAME).read_bytes()
    record_bytes = (len(content) - HEAD_BYTES) // 2
    log.close()
    (tmp_path / FILE_NAME).write_bytes(content[:HEAD_BYTES] + content[HEAD_BYTES + record_bytes :])
    with pytest.raises(CorruptLog, match="expected record 1, got record 2"):
        SessionLog.open(tmp_path, SESSION)


def test_what_was_cut_off_never_returns(tmp_path: Path) -> None:
    """Proves that a whole record past a damaged one is gone: not back once another takes the damaged one's place."""
    log = _log(tmp_path, [{"at": 1}])
    first_end = log.size_bytes
    log.append(2, 5, {"at": 2})
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    log.close()
    content[HEAD_BYTES + 10] ^= 1
    # The head says that nothing past it is durable, as when the process was killed before any sync.
    (tmp_path / FILE_NAME).write_bytes(content)
    again, records = SessionLog.open(tmp_path, SESSION)
    assert records == []
    again.append(2, 5, {"at": 3})
    assert again.size_bytes == first_end
    again.close()
    assert [record.body for record in _reopened(tmp_path)] == [{"at": 3}]


def test_durable_records_that_are_gone_are_a_loss(tmp_path: Path) -> None:
    """Proves that a log cut at the end of a record, inside what was synced, is refused and left as it is."""
    log = _log(tmp_path, [{"at": 1}])
    first_end = log.size_bytes
    log.append(2, 5, {"at": 2})
    log.close()
    os.truncate(tmp_path / FILE_NAME, first_end)
    with pytest.raises(CorruptLog, match=r"expected record 2 whole.*got the end of the file"):
        SessionLog.open(tmp_path, SESSION)
    assert (tmp_path / FILE_NAME).stat().st_size == first_end


def test_what_opening_returns_is_durable(tmp_path: Path) -> None:
    """Proves that records which were never synced are, once the log was opened: damage to them is then a loss."""
    first = _log(tmp_path, [{"at": 1}])
    assert first.unsynced
    second, records = SessionLog.open(tmp_path, SESSION)
    assert len(records) == 1
    assert not second.unsynced
    os.truncate(tmp_path / FILE_NAME, second.size_bytes - 1)
    with pytest.raises(CorruptLog):
        SessionLog.open(tmp_path, SESSION)


def test_a_log_knows_what_is_unsynced(tmp_path: Path) -> None:
    """Proves that unsynced is true from an append to the next sync, and size_bytes is the file's."""
    log = _log(tmp_path, [])
    assert not log.unsynced
    log.append(1, 1, BODY)
    assert log.unsynced
    assert log.size_bytes == (tmp_path / FILE_NAME).stat().st_size
    log.sync()
    assert not log.unsynced
    log.close()


def test_a_sync_promises_no_more_than_it_was_asked_to(tmp_path: Path) -> None:
    """Proves that records past the promised bytes stay doubtful, and that an older promise takes back no newer one."""
    log = _log(tmp_path, [BODY])
    promised = log.size_bytes
    log.append(1, 1, BODY)
    log.sync(promised)
    assert log.unsynced_bytes == log.size_bytes - promised > 0
    seen: list[int] = []
    again, records = SessionLog.open(tmp_path, SESSION, holding=lambda doubtful: seen.append(len(doubtful)) or 0)
    assert (seen, len(records)) == ([1], 1)
    again.close()
    log = SessionLog.open(tmp_path, SESSION)[0]
    log.append(1, 1, BODY)
    log.sync()
    log.sync(promised)
    assert not log.unsynced
    log.close()


def test_syncs_may_overlap_appends(tmp_path: Path) -> None:
    """Proves that records appended during syncs are all there, and none counts as synced that is not."""
    log = _log(tmp_path, [])
    appending = threading.Thread(target=lambda: [log.append(1, 1, {"at": at}) for at in range(2000)])
    appending.start()
    while appending.is_alive():
        log.sync()
    appending.join()
    log.close()
    assert [record.body["at"] for record in _reopened(tmp_path)] == list(range(2000))


def test_a_write_that_fails_ends_appending(tmp_path: Path) -> None:
    """Proves that after a record was cut short every call fails, and opening finds exactly what was acknowledged."""
    log = _log(tmp_path, [{"at": 1}])
    with files_end_at(log.size_bytes + 10), pytest.raises(StorageFailed, match="got 10 written"):
        log.append(1, 1, BODY)
    for call in (lambda: log.append(1, 1, BODY), log.sync):
        with pytest.raises(StorageFailed, match=r"out of use: .* got 10 written"):
            call()
    log.close()
    assert [record.body for record in _reopened(tmp_path)] == [{"at": 1}]


def test_an_fsync_that_fails_ends_appending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a failed sync is raised, stays raised though the disk works again, and opening starts afresh."""
    log = _log(tmp_path, [{"at": 1}])
    with fsync_fails(monkeypatch), pytest.raises(StorageFailed, match="fsync, got Input/output error"):
        log.sync()
    assert log.unsynced
    for call in (lambda: log.append(1, 1, BODY), log.sync):
        with pytest.raises(StorageFailed, match="out of use"):
            call()
    log.close()
    assert len(_reopened(tmp_path)) == 1


def test_opening_stores_again_what_a_failed_fsync_left_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that bytes past the synced ones are written anew: the system may hold them as stored when they are not."""
    log = _log(tmp_path, [{"at": 1}])
    first_end = log.size_bytes
    written: list[tuple[int, bytes]] = []
    write = os.pwritev

    def observed(descriptor: int, pieces: list[bytes], offset: int) -> int:
        written.append((offset, b"".join(pieces)))
        return write(descriptor, pieces, offset)

    monkeypatch.setattr(os, "pwritev", observed)
    SessionLog.open(tmp_path, SESSION)[0].close()
    assert written[0] == (HEAD_BYTES, (tmp_path / FILE_NAME).read_bytes()[HEAD_BYTES:first_end])


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    """Proves that closing syncs, that a second close is fine, and that a record after it is an error."""
    log = _log(tmp_path, [{"at": 1}])
    log.close()
    log.close()
    assert not log.unsynced
    with pytest.raises(StorageFailed, match="closed"):
        log.append(1, 1, BODY)


def test_a_record_has_a_greatest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a record at the limit comes back, and that one byte more is refused and leaves the log usable."""
    # The fields around the body, and of a map of one bytes value below 256 bytes under a key of one letter.
    overhead = 25 + 5
    monkeypatch.setattr(log_module, "RECORD_BYTES_MAX", 100)
    log = _log(tmp_path, [{"x": bytes(100 - overhead)}])
    with pytest.raises(LimitExceeded, match="at most 100 bytes, got 101"):
        log.append(1, 1, {"x": bytes(101 - overhead)})
    assert log.append(1, 1, {}) == 2
    log.close()
    assert len(_reopened(tmp_path)) == 2


def test_a_body_that_cannot_be_packed_changes_nothing(tmp_path: Path) -> None:
    """Proves that our own mistake in a body raises before anything is written, and the next record is whole."""
    log = _log(tmp_path, [])
    with pytest.raises(TypeError):
        log.append(1, 1, {"fine": b"x" * 100, "wrong": object()})
    assert log.append(1, 1, BODY) == 1
    log.close()
    assert [record.body for record in _reopened(tmp_path)] == [BODY]


def test_every_error_is_one_line(tmp_path: Path) -> None:
    """Proves that the message of a loss says what was expected, what came and where, on one line."""
    with pytest.raises(MemsvcError) as raised:
        SessionLog.open(tmp_path, SESSION)
    assert str(raised.value) == f"expected the log of session {SESSION}, got no file, at {tmp_path / FILE_NAME}"


def test_a_log_is_read_beside_who_appends_to_it(tmp_path: Path) -> None:
    """Proves that the first records are given, as many as asked for, and that neither file nor appender is changed."""
    log = _log(tmp_path, [{"at": at} for at in range(3)])
    log.sync()
    log.append(2, 5, {"at": 3})
    before = (tmp_path / FILE_NAME).read_bytes()
    for count in (0, 2, 4):
        records = read_log(tmp_path, SESSION, count)
        assert [record.body["at"] for record in records] == list(range(count))
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert log.append(2, 5, {"at": 4}) == log.sequence == 5
    log.close()


def test_a_log_that_lacks_records_is_not_read_as_a_shorter_one(tmp_path: Path) -> None:
    """Proves that too few records, damage and another session's log are told when a log is read beside its appender."""
    _log(tmp_path, [{"at": at} for at in range(3)]).close()
    path = tmp_path / FILE_NAME
    with pytest.raises(CorruptLog, match="expected 4 records, got 3"):
        read_log(tmp_path, SESSION, 4)
    with pytest.raises(CorruptLog, match="session id"):
        read_log(tmp_path, uuid.UUID(int=8).hex, 1)
    with pytest.raises(StorageFailed):
        read_log(tmp_path / "missing", SESSION, 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert len(read_log(tmp_path, SESSION, 2)) == 2
    with pytest.raises(CorruptLog, match="got 2"):
        read_log(tmp_path, SESSION, 3)
