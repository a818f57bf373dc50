"""Which records count, and what contradicts them."""

import pytest

from memsvc.errors import CorruptLog
from memsvc.log import LogRecord
from memsvc.session.recovery import live_records, recover, up_to_tail
from tests.session_driver import Node, Text, memory_of, session_spec

KINDS = {"S": 1, "O": 2, "t": 3, "b": 4, "T": 5}


def _records(kinds: str) -> list[LogRecord]:
    return [LogRecord(KINDS[kind], at + 1, 1, {}) for at, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("log", "live", "kept"),
    [
        ("S", "S", "S"),
        ("SOttb", "SOttb", "S"),
        ("SOttbO", "SO", "S"),
        ("SOttTt", "SOttTt", "SOttT"),
        ("SOtTtbOtt", "SOtTOtt", "SOtT"),
        ("SOtTtbOttOb", "SOtTOb", "SOtT"),
        ("SOtTOtTtO", "SOtTOtTO", "SOtTOtT"),
    ],
)
def test_what_a_lost_writer_wrote_after_the_tail_is_void(log: str, live: str, kept: str) -> None:
    """Proves that an opening voids what came after the newest tail, earlier openings included, and nothing else."""
    names = {number: name for name, number in KINDS.items()}
    assert "".join(names[record.kind] for record in live_records(_records(log))) == live
    assert "".join(names[record.kind] for record in up_to_tail(_records(log))) == kept


def _logged(node: Node) -> list[LogRecord]:
    writer = node.open()
    writer.read(Text(400), [130, 300])
    return writer.session.core.files.reread()


def test_records_lead_back_to_the_state_that_wrote_them(node: Node) -> None:
    """Proves that recovery names the writer, its epoch and its newest step."""
    records = _logged(node)
    session = node.sessions.get("book")
    recovered = recover(records, session.spec, session.core.files.shards)
    assert recovered.writer is not None
    assert (recovered.writer.attachment, recovered.epoch, recovered.applied_seq) == ("one", 1, 2)
    assert recovered.state.tokens.position == 300
    assert len(recovered.state.graph) == len(memory_of(session)["bookmarks"])


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_missing_record_is_noticed(node: Node, at: int) -> None:
    """Proves that a log without its session or a step is not taken for a shorter one."""
    records = _logged(node)
    session = node.sessions.get("book")
    assert [record.kind for record in records] == [1, 2, 3, 4, 4, 3, 4, 4]
    with pytest.raises(CorruptLog):
        recover(
            [*records[:at], *records[at + 1 :], *([records[2]] if at == 5 else [])],
            session.spec,
            session.core.files.shards,
        )


def test_a_record_that_the_policy_contradicts_is_corrupt(node: Node) -> None:
    """Proves that decisions in the log are checked against the policy's own."""
    records = _logged(node)
    session = node.sessions.get("book")
    step = records[2]
    body = {**step.body, "signals": {"surprisal": bytes(len(step.body["signals"]["surprisal"]))}}
    changed = [*records[:2], LogRecord(step.kind, step.sequence, step.epoch, body), *records[3:]]
    with pytest.raises(CorruptLog, match="as logged in step 1"):
        recover(changed, session.spec, session.core.files.shards)


def test_an_unknown_kind_of_record_is_corrupt(node: Node) -> None:
    """Proves that a record of a later version is refused and not skipped."""
    records = [*_logged(node), LogRecord(99, 99, 1, {})]
    session = node.sessions.get("book")
    with pytest.raises(CorruptLog, match="99"):
        recover(records, session_spec(), session.core.files.shards)
