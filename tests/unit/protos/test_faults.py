"""Rules of faults: which messages they hit, and what is refused."""

import json
from typing import Any

import pytest

from protos.faults import CODES, DISK_PLACES, PLACES, RULES_MAX, FaultPlan, Faults, Kind, Rule, place_of
from protos.memsvc.v1 import block_pb2, memory_pb2

ALL = {**PLACES, **DISK_PLACES}


def _plan(*rules: dict[str, Any], seed: int = 1) -> FaultPlan:
    return FaultPlan.parse(json.dumps({"seed": seed, "rules": list(rules)}), ALL)


def _kinds(plan: FaultPlan, place: str, count: int = 200) -> list[Kind | None]:
    faults = Faults(plan)
    return [faults.fate(place).kind for _ in range(count)]


RECALL_LOST = {"place": "attach.recall", "kind": "drop"}


def test_fates_follow_from_the_seed_and_the_number_of_the_message() -> None:
    """Proves that the same rules hit the same messages, another seed others, and the share is the probability's.

    Of 2000 draws at 0.25, 500 +- 5 standard deviations of 19.4.
    """
    rule = {**RECALL_LOST, "probability": 0.25}
    first = _kinds(_plan(rule), "attach.recall", 2000)
    assert first == _kinds(_plan(rule), "attach.recall", 2000)
    assert first != _kinds(_plan(rule, seed=2), "attach.recall", 2000)
    assert 403 < first.count(Kind.DROP) < 597


def test_after_and_count_choose_among_the_same_fates() -> None:
    """Proves that `after` lets so many pass, `count` ends it, and neither changes who would have been hit."""
    rule = {**RECALL_LOST, "probability": 0.5}
    all_hit = [index for index, kind in enumerate(_kinds(_plan(rule), "attach.recall")) if kind]
    some = _kinds(_plan({**rule, "after": 20, "count": 7}), "attach.recall")
    hit = [index for index, kind in enumerate(some) if kind]
    assert hit == [index for index in all_hit if index >= 20][:7]


def test_rules_of_one_place_do_not_disturb_those_of_another() -> None:
    """Proves that a place's fates are its own, whatever happens elsewhere meanwhile."""
    plan = _plan({**RECALL_LOST, "probability": 0.5}, {"place": "attach.ack", "kind": "drop", "probability": 0.5})
    faults = Faults(plan)
    mixed = []
    for _ in range(200):
        faults.fate("attach.ack")
        mixed.append(faults.fate("attach.recall").kind)
    assert mixed == _kinds(plan, "attach.recall")


def test_a_stall_holds_up_all_that_comes_until_it_ends() -> None:
    """Proves that a stall is a span of time at a place, and a delay one message's."""
    clock = [100.0]
    stalled = Faults(_plan({"place": "disk.sync", "kind": "stall", "ms": 2000, "count": 1}), lambda: clock[0])
    assert stalled.fate("disk.sync").wait_s == pytest.approx(2.0)
    clock[0] += 0.5
    assert stalled.fate("disk.sync").wait_s == pytest.approx(1.5)
    assert stalled.fate("disk.read").wait_s == 0.0
    clock[0] += 1.5
    assert stalled.fate("disk.sync").wait_s == 0.0
    delayed = Faults(_plan({"place": "disk.sync", "kind": "delay", "ms": 2000, "count": 1}), lambda: clock[0])
    assert [delayed.fate("disk.sync").wait_s for _ in range(2)] == [2.0, 0.0]


def test_the_first_rule_that_ends_a_message_decides_and_delays_add_up() -> None:
    """Proves what rules do together."""
    delay = {"place": "attach.ack", "kind": "delay", "ms": 250}
    fate = Faults(
        _plan(delay, {"place": "attach.ack", "kind": "error"}, {"place": "attach.ack", "kind": "drop"}, delay)
    )
    came = fate.fate("attach.ack")
    assert (came.wait_s, came.kind, came.code) == (0.5, Kind.ERROR, "UNAVAILABLE")
    assert fate.made == {"attach.ack delay": 2, "attach.ack error": 1, "attach.ack drop": 1}


def test_a_call_meets_its_own_rules_and_those_of_every_call() -> None:
    """Proves that `call` is all calls."""
    faults = Faults(_plan({"place": "call", "kind": "error", "after": 1}))
    assert [faults.fate(name, "call").kind for name in ("OpenSession", "SaveTail")] == [None, Kind.ERROR]


def test_switched_off_everything_passes_and_is_not_counted() -> None:
    """Proves that a rehearsal can be interrupted and taken up where it was."""
    faults = Faults(_plan({**RECALL_LOST, "count": 1}))
    faults.switch(False)
    assert faults.fate("attach.recall").kind is None
    assert faults.made == {}
    faults.switch(True)
    assert [faults.fate("attach.recall").kind for _ in range(2)] == [Kind.DROP, None]


def test_a_rule_has_the_defaults_that_are_described() -> None:
    """Proves what an absent field means."""
    assert _plan(RECALL_LOST).rules == (Rule("attach.recall", Kind.DROP, 1.0, 0, 0, 0, "", ""),)
    assert _plan({"place": "disk.write", "kind": "error"}).rules[0].code == "EIO"
    assert FaultPlan.parse("{}", ALL) == FaultPlan((), 0)


# What is wrong, and the parts of the one line that says so.
WRONG: list[tuple[str, list[str]]] = [
    ("[", ["expected JSON"]),
    ("[]", ["the whole", "got []"]),
    ('{"rulez": []}', ["rulez", "seed, rules"]),
    ('{"seed": -1}', ["seed", "0 to", "-1"]),
    ('{"seed": true}', ["seed", "true"]),
    ('{"rules": {}}', ["rules", "a list", "{}"]),
    (json.dumps({"rules": [RECALL_LOST] * (RULES_MAX + 1)}), ["rules", str(RULES_MAX)]),
    ('{"rules": [7]}', ["rules[0]", "an object", "7"]),
    ('{"rules": [{"place": "call"}]}', ["rules[0]", "place and kind"]),
    ('{"rules": [{"place": "call", "kind": "error", "often": 1}]}', ["rules[0].often", "probability"]),
    ('{"rules": [{"place": "somewhere", "kind": "drop"}]}', ["rules[0].place", "attach.recall", "somewhere"]),
    ('{"rules": [{"place": [], "kind": "drop"}]}', ["rules[0].place", "[]"]),
    ('{"rules": [{"place": "call", "kind": "explode"}]}', ["rules[0].kind", "delay, drop, error", "explode"]),
    ('{"rules": [{"place": "call", "kind": "corrupt"}]}', ["rules[0].kind", "at call", "corrupt"]),
    ('{"rules": [{"place": "disk.sync", "kind": "drop"}]}', ["rules[0].kind", "at disk.sync", "drop"]),
    ('{"rules": [{"place": "call", "kind": "delay"}]}', ["rules[0].ms", "null"]),
    ('{"rules": [{"place": "call", "kind": "delay", "ms": 0}]}', ["rules[0].ms", "1 to", "got 0"]),
    ('{"rules": [{"place": "call", "kind": "delay", "ms": 1.5}]}', ["rules[0].ms", "1.5"]),
    ('{"rules": [{"place": "call", "kind": "drop", "ms": 5}]}', ["rules[0].ms", "delay and stall", "5"]),
    ('{"rules": [{"place": "call", "kind": "drop", "probability": 0}]}', ["rules[0].probability", "above 0 to 1"]),
    ('{"rules": [{"place": "call", "kind": "drop", "probability": 1.01}]}', ["rules[0].probability", "1.01"]),
    ('{"rules": [{"place": "call", "kind": "drop", "probability": "1"}]}', ["rules[0].probability", '"1"']),
    ('{"rules": [{"place": "call", "kind": "drop", "count": -1}]}', ["rules[0].count", "-1"]),
    ('{"rules": [{"place": "call", "kind": "drop", "after": -1}]}', ["rules[0].after", "-1"]),
    ('{"rules": [{"place": "call", "kind": "error", "code": "EIO"}]}', ["rules[0].code", "UNAVAILABLE", "EIO"]),
    ('{"rules": [{"place": "disk.read", "kind": "error", "code": "ABORTED"}]}', ["rules[0].code", "EIO, ENOSPC"]),
    ('{"rules": [{"place": "call", "kind": "drop", "code": "ABORTED"}]}', ["rules[0].code", "with error"]),
    ('{"rules": [{"place": "attach.ack", "kind": "corrupt", "field": "z"}]}', ["rules[0].field", "bookmarks", '"z"']),
    ('{"rules": [{"place": "call", "kind": "drop", "field": "z"}]}', ["rules[0].field", "none here"]),
    ('{"rules": [{"place": "disk.read", "kind": "corrupt", "field": "z"}]}', ["rules[0].field", "none here"]),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_what_does_not_hold_is_one_line_that_names_it(text: str, says: list[str]) -> None:
    """Proves that each field is checked, and that field, value and what is allowed are told."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as raised:
        FaultPlan.parse(text, ALL)
    assert all(part in str(raised.value) for part in says), str(raised.value)


def test_places_of_a_disk_are_only_taken_where_there_is_one() -> None:
    """Proves that a client's rules cannot name the server's disk."""
    with pytest.raises(ValueError, match=r"rules\[0\]\.place"):
        FaultPlan.parse('{"rules": [{"place": "disk.read", "kind": "error"}]}', PLACES)


def test_every_place_and_every_kind_at_it_can_be_ruled() -> None:
    """Proves that nothing that is listed is refused."""
    for place, kinds in ALL.items():
        for kind in kinds:
            more = {"ms": 1} if kind in (Kind.DELAY, Kind.STALL) else {}
            assert _plan({"place": place, "kind": kind, **more}).rules[0].kind is kind
    for code in CODES:
        assert _plan({"place": "call", "kind": "error", "code": code}).rules[0].code == code


def test_each_message_of_a_stream_has_its_place() -> None:
    """Proves that messages are told apart, and that greetings have no place."""
    assert place_of(memory_pb2.AttachRequest(steps={})) == "attach.step"
    assert place_of(memory_pb2.AttachRequest(hello={})) is None
    for kind in ("welcome", "ack", "recall", "fault", "drain"):
        assert place_of(memory_pb2.AttachResponse(**{kind: {}})) == f"attach.{kind}"
    assert place_of(block_pb2.PutBlocksRequest()) == "put_blocks.piece"
    assert place_of(block_pb2.PutBlocksResponse()) == "put_blocks.answer"
    assert place_of(block_pb2.GetBlocksResponse()) == "get_blocks.block"
    assert place_of(block_pb2.GetBlocksRequest()) is None
