"""Reading a log past what is damaged in it."""

import random
from pathlib import Path

import google_crc32c
import pytest

from memsvc.log import SessionLog
from memsvc.log_format import FILE_NAME
from memsvc.verify.log_scan import LogScan, scan_log

SESSION = "00000000000000000000000000000007"
RECORDS = 30
HEAD_BYTES = 44


def _log(folder: Path) -> bytes:
    log = SessionLog.create(folder, SESSION)
    for at in range(RECORDS):
        log.append(3, 1, {"at": at, "data": random.Random(at).randbytes(at * 7)})
    log.close()
    return (folder / FILE_NAME).read_bytes()


def _sequences(scan: LogScan) -> list[int]:
    return [own.record.sequence for own in scan.records]


def test_a_whole_log_has_no_damage(tmp_path: Path) -> None:
    """Proves that every record of a whole log is found where it stands, and nothing else."""
    data = _log(tmp_path / "s")
    scan = scan_log(data, SESSION)
    assert scan.whole
    assert _sequences(scan) == list(range(1, RECORDS + 1))
    assert scan.records[0].offset == HEAD_BYTES
    assert scan.records[-1].offset + scan.records[-1].size_bytes == len(data) == scan.synced_bytes
    assert not scan.torn_bytes


@pytest.mark.parametrize("seed", range(60))
def test_one_changed_byte_costs_one_record_and_is_named(tmp_path: Path, seed: int) -> None:
    """Proves that damage in a record is told with its place, and that all records but that one are found."""
    data, generator = bytearray(_log(tmp_path / "s")), random.Random(seed)
    whole = scan_log(bytes(data), SESSION)
    offset = generator.randrange(HEAD_BYTES, len(data))
    data[offset] ^= 1 << generator.randrange(8)
    scan = scan_log(bytes(data), SESSION)
    (hit,) = [own for own in whole.records if own.offset <= offset < own.offset + own.size_bytes]
    (damage,) = scan.damages
    assert (damage.offset, damage.sequence) == (hit.offset, hit.record.sequence)
    assert _sequences(scan) == [at for at in range(1, RECORDS + 1) if at != hit.record.sequence]


@pytest.mark.parametrize("offset", range(0, HEAD_BYTES, 3))
def test_a_damaged_head_is_named_and_its_records_found(tmp_path: Path, offset: int) -> None:
    """Proves that whatever byte of the head is hurt, the scan says so and reads every record."""
    data = bytearray(_log(tmp_path / "s"))
    data[offset] ^= 4
    scan = scan_log(bytes(data), SESSION)
    assert scan.head
    assert not scan.whole
    assert _sequences(scan) == list(range(1, RECORDS + 1))


def test_records_that_are_gone_are_counted(tmp_path: Path) -> None:
    """Proves that bytes cut out of the middle are told as so many missing records."""
    data = _log(tmp_path / "s")
    records = scan_log(data, SESSION).records
    scan = scan_log(data[: records[4].offset] + data[records[7].offset :], SESSION)
    assert (scan.damages[0].sequence, scan.damages[0].missing) == (5, 3)
    assert _sequences(scan) == [1, 2, 3, 4, *range(8, RECORDS + 1)]


def test_what_a_crash_left_past_the_durable_end_is_torn(tmp_path: Path) -> None:
    """Proves that bytes at the end that were promised to nobody are no damage."""
    data = _log(tmp_path / "s")
    scan = scan_log(data + b"\x50\x00\x00\x00 half a record", SESSION)
    assert scan.whole
    assert scan.torn_bytes == 18


def test_durable_records_that_are_cut_off_are_damage(tmp_path: Path) -> None:
    """Proves that a log that ends before what was durable is no torn one."""
    data = _log(tmp_path / "s")
    end = scan_log(data, SESSION).records[-1].offset
    for cut in (len(data) - 1, end):
        scan = scan_log(data[:cut], SESSION)
        assert not scan.whole
        assert "durable up to byte" in scan.damages[-1].message
    # Unless a server appended what is missing since it was looked at.
    assert scan_log(data[:end], SESSION, growing=True).whole


def test_the_log_of_another_version_is_told_apart(tmp_path: Path) -> None:
    """Proves that a whole head of another version is no damaged one."""
    data = bytearray(_log(tmp_path / "s"))
    data[8] = 2
    assert not scan_log(bytes(data), SESSION).other_version
    data[28:32] = int(google_crc32c.value(bytes(data[:28]))).to_bytes(4, "little")
    assert scan_log(bytes(data), SESSION).other_version
