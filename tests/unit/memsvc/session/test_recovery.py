"""Which records count, and what contradicts them."""

import numpy as np
import pytest

from memsvc.errors import CorruptLog
from memsvc.log_format import LogRecord
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
    with pytest.raises(CorruptLog, match="as logged from step 1 on"):
        recover(changed, session.spec, session.core.files.shards)


def test_an_unknown_kind_of_record_is_corrupt(node: Node) -> None:
    """Proves that a record of a later version is refused and not skipped."""
    records = [*_logged(node), LogRecord(99, 99, 1, {})]
    session = node.sessions.get("book")
    with pytest.raises(CorruptLog, match="99"):
        recover(records, session_spec(), session.core.files.shards)


def _changed(records: list[LogRecord], at: int, **values: object) -> list[LogRecord]:
    own = records[at]
    return [*records[:at], LogRecord(own.kind, own.sequence, own.epoch, {**own.body, **values}), *records[at + 1 :]]


def test_a_wrong_bookmark_among_steps_in_a_row_is_named(node: Node) -> None:
    """Proves that steps replayed as one are checked as each by itself, and that the error says where they differ."""
    writer = node.open()
    writer.read(Text(900), range(130, 900, 20))
    records, core = writer.session.core.files.reread(), writer.session.core
    steps = [at for at, record in enumerate(records) if record.kind == KINDS["t"] and not record.body["raw"]]
    at = next(at for at in steps[10:] if len(records[at].body["decided"]) >= 16)
    logged = np.frombuffer(records[at].body["decided"], dtype="<i8")
    wrong = logged.copy()
    wrong[-1] += 1
    named = rf"expected bookmarks at \[{wrong[-1]}[],].*, got \[{logged[-1]}[],].*, up to record {steps[-1] + 1}"
    with pytest.raises(CorruptLog, match=named):
        recover(_changed(records, at, decided=wrong.tobytes()), core.spec, core.files.shards)
    with pytest.raises(CorruptLog, match="as logged"):
        recover(_changed(records, at, forced=b""), core.spec, core.files.shards)
    expected = records[at].body["first"]
    with pytest.raises(CorruptLog, match=f"expected position {expected}, got {expected + 1} in record {at + 1}"):
        recover(_changed(records, at, first=expected + 1), core.spec, core.files.shards)


def _moved(records: list[LogRecord], at: int, to: int, **units: int) -> list[LogRecord]:
    """The last of each of these fields of a step, which take so many bytes each, as the first of a later step's."""
    given, taken = records[at].body, records[to].body
    kept = {name: given[name][:-unit] for name, unit in units.items()}
    more = {name: given[name][-unit:] + taken[name] for name, unit in units.items()}
    return _changed(_changed(records, at, **kept), to, **more)


@pytest.mark.parametrize(
    ("units", "named"),
    [
        ({"decided": 8, "signal": 4, "forced": 1}, "expected bookmarks at"),
        ({"parents": 3 * 8, "weights": 3 * 4}, "expected links of"),
        ({"ids": 4}, "expected ids and signals of"),
    ],
)
def test_what_one_step_lacks_another_does_not_make_up_for(node: Node, units: dict[str, int], named: str) -> None:
    """Proves that each step has its own sizes: a log in which a step's last number is the next one's is refused."""
    writer = node.open()
    writer.read(Text(900), range(130, 900, 20))
    records, core = writer.session.core.files.reread(), writer.session.core
    steps = [at for at, record in enumerate(records) if record.kind == KINDS["t"] and not record.body["raw"]]
    at = next(at for at in steps[10:] if records[at].body["decided"])
    with pytest.raises(CorruptLog, match=named):
        recover(_moved(records, at, steps[steps.index(at) + 1], **units), core.spec, core.files.shards)


def test_measured_numbers_of_a_step_are_those_of_its_tokens(node: Node) -> None:
    """Proves that a measured number that moved to the next step is noticed, as is a signal that has one too few."""
    node.create(session_spec("distance"), "other")
    writer = node.open(session="other")
    writer.read(Text(900), range(130, 900, 20))
    records, core = writer.session.core.files.reread(), writer.session.core
    at, to = [at for at, record in enumerate(records) if record.kind == KINDS["t"]][10:12]
    own, later = (records[place].body["measured"]["distance"] for place in (at, to))
    moved = _changed(records, at, measured={"distance": own[:-4]})
    with pytest.raises(CorruptLog, match="expected measured numbers of"):
        recover(_changed(moved, to, measured={"distance": own[-4:] + later}), core.spec, core.files.shards)
    signals = records[at].body["signals"]
    short = {**signals, "surprisal": signals["surprisal"][:-4]}
    with pytest.raises(CorruptLog, match="expected ids and signals of 20 tokens"):
        recover(_changed(records, at, signals=short), core.spec, core.files.shards)


def test_links_and_vectors_of_other_bookmarks_are_corrupt(node: Node) -> None:
    """Proves that a link to a later bookmark, and a vector that is lacking or of another step's token, are noticed."""
    writer = node.open()
    writer.read(Text(900), range(130, 900, 20))
    records, core = writer.session.core.files.reread(), writer.session.core
    steps = [at for at, record in enumerate(records) if record.kind == KINDS["t"] and not record.body["raw"]]
    at = next(at for at in steps[10:] if records[at].body["decided"])
    body = records[at].body
    parents = np.frombuffer(body["parents"], dtype="<i8").copy()
    parents[0] = 899
    with pytest.raises(CorruptLog, match="to earlier ones, got one to a later one"):
        recover(_changed(records, at, parents=parents.tobytes()), core.spec, core.files.shards)
    kept = np.frombuffer(body["kept"], dtype="<i8")
    without = kept != np.frombuffer(body["decided"], dtype="<i8")[-1]
    rows = {
        name: np.frombuffer(own, dtype="<i2").reshape(len(kept), -1)[without].tobytes()
        for name, own in body["rows"].items()
    }
    with pytest.raises(CorruptLog, match="expected a vector of each bookmark"):
        recover(_changed(records, at, kept=kept[without].tobytes(), rows=rows), core.spec, core.files.shards)
    with pytest.raises(CorruptLog, match="expected vectors of the step's tokens"):
        recover(_changed(records, at, kept=(kept + 1).tobytes()), core.spec, core.files.shards)
