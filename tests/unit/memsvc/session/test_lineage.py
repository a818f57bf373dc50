"""What a log says of its session's name, origin and snapshots."""

import pytest

from memsvc.errors import CorruptLog, InvalidRequest
from memsvc.log_format import LogRecord
from memsvc.session.forking import end_of_cut
from memsvc.session.lineage import (
    ForkPoint,
    Lineage,
    Snapshot,
    check_snapshot_name,
    named,
    pack_fork,
    pack_name,
    pack_snapshot,
    snapshot_names,
)
from memsvc.session.records import Body, RecordKind, pack_session
from memsvc.session.recovery import live_records, up_to_tail
from memsvc.session.state import Cut
from memsvc.trail import Trail
from memsvc.votes import TrailSettings
from protos.memsvc.v1 import session_pb2
from tests.session_driver import session_spec

FIRST = pack_session("book", session_spec())


def _cut(position: int) -> Cut:
    return Cut(session_pb2.Tail(version=1, position=position), 3, Trail(TrailSettings.of(session_spec())), None)


def _record(kind: RecordKind, body: Body) -> LogRecord:
    return LogRecord(kind, 9, 1, body)


def test_names_and_snapshots_come_back_from_their_records() -> None:
    """Proves that replaying what was packed gives the name, the origin, and each snapshot at the cut there was then."""
    fork = ForkPoint("0" * 32, 17, 128)
    lineage = Lineage({**FIRST, **pack_fork(fork)})
    assert (lineage.name, lineage.fork, len(lineage)) == ("book", fork, 0)
    first, second = _cut(64), _cut(200)
    for name, cut, now in (("z", first, 5), ("a", second, 6), ("b", first, 7)):
        lineage.take(_record(RecordKind.SNAPSHOT, pack_snapshot(Snapshot(name, cut, now))), cut)
    lineage.take(_record(RecordKind.SNAPSHOT_DROPPED, pack_name("b")), second)
    lineage.take(_record(RecordKind.RENAMED, pack_name("novel")), second)
    assert lineage.name == "novel"
    assert lineage.snapshots() == [Snapshot("z", first, 5), Snapshot("a", second, 6)]
    assert lineage.snapshots()[0].to_wire() == session_pb2.Snapshot(
        name="z", position=64, bookmarks=3, created_unix_ms=5
    )


def test_a_session_that_is_no_fork_says_so() -> None:
    """Proves that the first record of an empty session has no origin."""
    assert Lineage(FIRST).fork is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (RecordKind.SNAPSHOT, {"name": "s", "position": 65, "created_unix_ms": 1}),
        (RecordKind.SNAPSHOT, {"name": "known", "position": 64, "created_unix_ms": 1}),
        (RecordKind.SNAPSHOT, {"name": "s", "position": 64}),
        (RecordKind.SNAPSHOT_DROPPED, {"name": "unknown"}),
        (RecordKind.RENAMED, {}),
    ],
)
def test_a_record_that_contradicts_those_before_it_is_corrupt(kind: RecordKind, body: Body) -> None:
    """Proves that another cut, a name twice, an unknown name and a missing key are told, not guessed."""
    lineage = Lineage(FIRST)
    lineage.add(Snapshot("known", _cut(64), 1))
    with pytest.raises(CorruptLog):
        lineage.take(_record(kind, body), _cut(64))


@pytest.mark.parametrize("fork", ["x", {}, {"parent": "p", "sequence": "many", "position": 1}])
def test_a_damaged_origin_is_corrupt(fork: object) -> None:
    """Proves that a fork whose first record does not say where it was cut is refused."""
    with pytest.raises(CorruptLog):
        Lineage({**FIRST, "fork": fork})


# As in test_recovery, and s and x for a snapshot and its end, n for another name, f for blocks that left.
KINDS = {"S": 1, "O": 2, "t": 3, "b": 4, "T": 5, "s": 6, "x": 7, "n": 8, "f": 9}


def _records(kinds: str) -> list[LogRecord]:
    return [LogRecord(KINDS[kind], at + 1, 1, {"name": "s"}) for at, kind in enumerate(kinds)]


def _kinds(records: list[LogRecord]) -> str:
    names = {number: name for name, number in KINDS.items()}
    return "".join(names[record.kind] for record in records)


@pytest.mark.parametrize(
    ("log", "live", "kept"),
    [
        ("SsOt", "SsOt", "Ss"),
        ("SOtTtsbO", "SOtTsO", "SOtTs"),
        ("SOtTtsnO", "SOtTsnO", "SOtTsn"),
        ("SOtTtsOtxfO", "SOtTsxfO", "SOtTsxf"),
        ("SOtsTt", "SOtsTt", "SOtsT"),
    ],
)
def test_names_outlive_what_is_void_around_them(log: str, live: str, kept: str) -> None:
    """Proves that a snapshot, its end, a new name and blocks that left count, whatever else is void."""
    assert _kinds(live_records(_records(log))) == live
    assert _kinds(up_to_tail(_records(log))) == kept


@pytest.mark.parametrize(
    ("log", "snapshot", "shared"),
    [
        ("S", "", "S"),
        ("SOtb", "", "S"),
        ("SOtTtTt", "", "SOtTtT"),
        ("SOtTstTt", "s", "SOtT"),
        ("SOtTtbsOtT", "s", "SOtT"),
        ("SOtTsxtTst", "s", "SOtTsxtT"),
        ("SsOtT", "s", "S"),
    ],
)
def test_a_cut_ends_with_the_tail_that_its_snapshot_names(log: str, snapshot: str, shared: str) -> None:
    """Proves that a snapshot is the newest tail as of its record, the newest snapshot of a name counting."""
    live = live_records(_records(log))
    assert _kinds(live[: end_of_cut(live, snapshot)]) == shared


def test_names_of_snapshots_are_told_without_a_replay() -> None:
    """Proves that what was dropped is not listed, and what was made again is."""
    records = [
        LogRecord(kind, at, 1, {"name": name})
        for at, (kind, name) in enumerate([(6, "a"), (6, "b"), (7, "a"), (6, "c")])
    ]
    assert snapshot_names(records) == ["b", "c"]
    assert snapshot_names([*records, LogRecord(6, 9, 1, {"name": "a"})]) == ["b", "c", "a"]


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "a" * 129])
def test_a_snapshot_has_a_name_that_people_can_type(name: str) -> None:
    """Proves that a name out of form is refused, and those at the bounds are not."""
    with pytest.raises(InvalidRequest, match="snapshot's name"):
        check_snapshot_name(name)
    for fine in ("a", "0", "a" * 128, "v1.2_b-c"):
        check_snapshot_name(fine)


def test_a_message_lists_a_few_names() -> None:
    """Proves that many names do not make a line that nobody reads."""
    assert named(["b", "a"]) == "'a', 'b'"
    assert named(str(at) for at in range(10)).endswith("'7' and 2 more")
