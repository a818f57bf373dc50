"""Whatever happens to a log's bytes, opening it gives exactly the first records, or a typed error: never wrong ones."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.errors import CorruptLog
from memsvc.log import SessionLog
from memsvc.log_format import FILE_NAME, LogRecord

SESSION = uuid.UUID(int=3).hex
# Bytes of the head that say how much is durable.
MARK = range(32, 44)

values = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.binary(max_size=9)
)
bodies = st.dictionaries(st.text(max_size=3), values | st.lists(values, max_size=3), max_size=3)
records = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**64 - 1), bodies), min_size=1, max_size=6)


@dataclass(frozen=True)
class Written:
    """A log's bytes as a crash would leave them; record i ends at ends[i], ends[0] being the end of the head."""

    content: bytes
    records: list[LogRecord]
    ends: list[int]
    synced_bytes: int


def _written(appended: list[tuple[int, int, dict[str, Any]]], synced: int) -> Written:
    """The log of these records, of which the first `synced` are durable."""
    with tempfile.TemporaryDirectory() as name:
        log = SessionLog.create(Path(name), SESSION)
        ends = [log.size_bytes]
        for at, (kind, epoch, body) in enumerate(appended, start=1):
            log.append(kind, epoch, body)
            ends.append(log.size_bytes)
            if at == synced:
                log.sync()
        content = (Path(name) / FILE_NAME).read_bytes()
        log.close()
    expected = [LogRecord(kind, at, epoch, body) for at, (kind, epoch, body) in enumerate(appended, start=1)]
    return Written(content, expected, ends, ends[min(synced, len(appended))])


@contextmanager
def _folder_with(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / FILE_NAME).write_bytes(content)
        yield Path(name)


def _recovered(content: bytes) -> list[LogRecord] | None:
    """What opening gives; None for CorruptLog. What it gives is also what opening gives once more."""
    with _folder_with(content) as folder:
        try:
            log, found = SessionLog.open(folder, SESSION)
        except CorruptLog:
            return None
        log.close()
        again, second = SessionLog.open(folder, SESSION)
        again.close()
        assert second == found
        return found


def _flipped(content: bytes, offset: int, mask: int) -> bytes:
    return content[:offset] + bytes([content[offset] ^ mask]) + content[offset + 1 :]


@settings(max_examples=6, deadline=None)
@given(appended=records)
def test_a_last_record_cut_at_any_byte_is_cut_off(appended: list[tuple[int, int, dict[str, Any]]]) -> None:
    """Proves that a record written in part, at every length it may have, leaves exactly those before it."""
    written = _written(appended, synced=len(appended) - 1)
    for end in range(written.ends[-2], written.ends[-1]):
        assert _recovered(written.content[:end]) == written.records[:-1], end


@settings(max_examples=6, deadline=None)
@given(appended=records, mask=st.integers(1, 255))
def test_a_last_record_damaged_in_any_byte_is_cut_off(
    appended: list[tuple[int, int, dict[str, Any]]], mask: int
) -> None:
    """Proves that no byte of a record can change unnoticed."""
    written = _written(appended, synced=len(appended) - 1)
    for offset in range(written.ends[-2], written.ends[-1]):
        assert _recovered(_flipped(written.content, offset, mask)) == written.records[:-1], offset


@settings(max_examples=100, deadline=None)
@given(appended=records, mask=st.integers(1, 255), data=st.data())
def test_a_damaged_byte_anywhere_is_an_error_or_an_earlier_end(
    appended: list[tuple[int, int, dict[str, Any]]], mask: int, data: st.DataObject
) -> None:
    """Proves that damage to what was durable is CorruptLog, and other damage ends the log before the damaged record."""
    written = _written(appended, synced=data.draw(st.integers(0, len(appended)), label="synced"))
    offset = data.draw(st.integers(0, len(written.content) - 1), label="offset")
    found = _recovered(_flipped(written.content, offset, mask))
    if offset in MARK:
        # All of the file counts as durable then, and all of it is whole.
        assert found == written.records
    elif offset < written.synced_bytes:
        assert found is None
    else:
        whole = sum(end <= offset for end in written.ends) - 1
        assert found == written.records[:whole]


@settings(max_examples=100, deadline=None)
@given(appended=records, synced=st.integers(0, 6), damage=st.lists(st.tuples(st.integers(0), st.binary(min_size=1))))
def test_any_damage_gives_first_records_or_an_error(
    appended: list[tuple[int, int, dict[str, Any]]], synced: int, damage: list[tuple[int, bytes]]
) -> None:
    """Proves that bytes overwritten in many places, and past the end, never make a record that was not appended."""
    written = _written(appended, synced)
    content = written.content
    for place, noise in damage:
        offset = place % (len(content) + 1)
        content = content[:offset] + noise + content[offset + len(noise) :]
    found = _recovered(content)
    assert found is None or found == written.records[: len(found)]


@settings(max_examples=30, deadline=None)
@given(appended=records, cut=st.integers(0), more=bodies)
def test_appending_goes_on_after_a_cut(
    appended: list[tuple[int, int, dict[str, Any]]], cut: int, more: dict[str, Any]
) -> None:
    """Proves that a record appended after recovery follows the recovered ones, whatever stood there before."""
    written = _written(appended, synced=0)
    end = written.ends[0] + cut % (len(written.content) - written.ends[0] + 1)
    whole = sum(at <= end for at in written.ends) - 1
    with _folder_with(written.content[:end]) as folder:
        log, found = SessionLog.open(folder, SESSION)
        assert log.append(9, 1, more) == len(found) + 1 == whole + 1
        log.close()
        again, second = SessionLog.open(folder, SESSION)
        again.close()
    assert second == [*written.records[:whole], LogRecord(9, whole + 1, 1, more)]
