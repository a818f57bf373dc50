"""Faults on purpose, to rehearse an outage: rules, and what becomes of each message under them.

    {"seed": 7, "rules": [{"place": "attach.recall", "kind": "delay", "ms": 3000, "after": 10, "count": 5}]}

    place         a call by its name (OpenSession), `call` for every call, a stream's messages (`attach.recall`), the
                  server's disk (`disk.sync`); PLACES and DISK_PLACES are all there are
    kind          delay    goes on `ms` later, and with it what comes behind it
                  stall    for `ms` from now on nothing goes on at the place
                  drop     is lost; a call is never answered
                  error    the call or stream ends with `code`, a disk call fails with it
                  corrupt  one field of the message, or one bit of what was read, is another
    probability   of each message, above 0 to 1; 1 if absent
    after         messages at the place that pass first; 0 if absent
    count         messages that are hit at most; 0, or absent: no end
    ms            of delay and stall
    code          of error: a gRPC status or, of a disk, EIO or ENOSPC; UNAVAILABLE or EIO if absent
    field         of corrupt: the field to change; any that is set if absent

Invariants: which messages are hit depends on the seed and on how many were at the place before, and on nothing else.
Must not know: gRPC, disks, threads' work; each side puts its own messages through.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from typing import Any, TypeAlias

from google.protobuf.message import Message

from protos.corruption import fields_of
from protos.memsvc.v1 import admin_pb2, block_pb2, graph_pb2, memory_pb2, session_pb2

MS_MAX = 3_600_000
COUNTS_MAX = 2**31 - 1
RULES_MAX = 256


class Kind(StrEnum):
    """What a rule does."""

    DELAY = "delay"
    STALL = "stall"
    DROP = "drop"
    ERROR = "error"
    CORRUPT = "corrupt"


ANY_CALL = "call"
CODES = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "DATA_LOSS",
    "INTERNAL",
    "UNKNOWN",
)
DISK_CODES = ("EIO", "ENOSPC")

# Messages of the streams, by place; those of Attach by which of them it is.
MESSAGES: dict[str, type[Message]] = {
    "attach.step": memory_pb2.StepBatch,
    "attach.welcome": memory_pb2.Welcome,
    "attach.ack": memory_pb2.Ack,
    "attach.recall": memory_pb2.Recall,
    "attach.fault": memory_pb2.Fault,
    "attach.drain": memory_pb2.Drain,
    "put_blocks.piece": block_pb2.PutBlocksRequest,
    "put_blocks.answer": block_pb2.PutBlocksResponse,
    "get_blocks.block": block_pb2.GetBlocksResponse,
}
_CALLS = frozenset(
    method.name
    for file in (admin_pb2, block_pb2, graph_pb2, memory_pb2, session_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
_WHOLE = frozenset(Kind) - {Kind.CORRUPT}
PLACES: dict[str, frozenset[Kind]] = {
    ANY_CALL: _WHOLE,
    **dict.fromkeys(sorted(_CALLS), _WHOLE),
    **dict.fromkeys(MESSAGES, frozenset(Kind)),
}
DISK_PLACES: dict[str, frozenset[Kind]] = {
    "disk.read": frozenset(Kind) - {Kind.DROP},
    "disk.write": _WHOLE - {Kind.DROP},
    "disk.sync": _WHOLE - {Kind.DROP},
}

Places: TypeAlias = dict[str, frozenset[Kind]]


def place_of(message: Message) -> str | None:
    """Where a message of a stream is; None for one that no rule can name."""
    if isinstance(message, memory_pb2.AttachRequest):
        return "attach.step" if message.HasField("steps") else None
    if isinstance(message, memory_pb2.AttachResponse):
        return f"attach.{message.WhichOneof('message')}"
    return next((place for place, kind in MESSAGES.items() if type(message) is kind), None)


@dataclass(frozen=True)
class Rule:
    """One rule, as the head of this module describes it."""

    place: str
    kind: Kind
    probability: float = 1.0
    ms: int = 0
    after: int = 0
    count: int = 0
    code: str = ""
    field: str = ""


@dataclass(frozen=True)
class FaultPlan:
    """What is to go wrong, and by which seed."""

    rules: tuple[Rule, ...]
    seed: int = 0

    @classmethod
    def parse(cls, text: str | bytes, places: Places) -> "FaultPlan":
        """A plan from JSON.

        Raises:
            ValueError: One line that names what does not hold, and what is allowed.
        """
        try:
            made = json.loads(text)
        except ValueError as error:
            raise ValueError(f"expected JSON, got {error}") from None
        _require(isinstance(made, dict), "the whole", '{"seed": N, "rules": [...]}', made)
        _known(made, ("seed", "rules"), "")
        seed, rules = made.get("seed", 0), made.get("rules", [])
        _require(_is_whole(seed) and 0 <= seed <= COUNTS_MAX, "seed", f"0 to {COUNTS_MAX}", seed)
        _require(isinstance(rules, list) and len(rules) <= RULES_MAX, "rules", f"a list of at most {RULES_MAX}", rules)
        return cls(tuple(_rule(one, f"rules[{index}]", places) for index, one in enumerate(rules)), seed)


@dataclass(frozen=True)
class Fate:
    """What becomes of one message: it waits, and then this is done to it, or nothing.

    Args:
        draw: Randomness of what is done.
    """

    wait_s: float
    rule: Rule | None
    draw: random.Random

    @property
    def kind(self) -> Kind | None:
        """DROP, ERROR, CORRUPT, or None: it goes on as it is."""
        return self.rule.kind if self.rule is not None else None

    @property
    def code(self) -> str:
        """Of ERROR."""
        return self.rule.code if self.rule is not None else ""

    @property
    def field(self) -> str:
        """Of CORRUPT; empty: any."""
        return self.rule.field if self.rule is not None else ""


class Faults:
    """A plan at work. Thread-safe.

    Args:
        now: Seconds of a clock that only goes on.
    """

    def __init__(self, plan: FaultPlan, now: Callable[[], float] = time.monotonic) -> None:
        self.plan = plan
        self._now = now
        self._lock = threading.Lock()
        self._on = True
        self._rules = [_RuleAtWork(rule, f"{plan.seed}/{index}") for index, rule in enumerate(plan.rules)]
        self._stalled_until: dict[str, float] = {}
        self._made: Counter[str] = Counter()

    def switch(self, on: bool) -> None:
        """Let everything pass from now on, uncounted; or go on where it was left."""
        with self._lock:
            self._on = on
            self._stalled_until.clear()

    @property
    def made(self) -> dict[str, int]:
        """How often what was done where, by "place kind"."""
        with self._lock:
            return dict(self._made)

    def fate(self, *places: str) -> Fate:
        """Of the next message at a place, or of one that is at several."""
        with self._lock:
            hits = [one for one in self._rules if self._on and one.rule.place in places and one.hits()]
            for one in hits:
                self._made[f"{one.rule.place} {one.rule.kind}"] += 1
            now = self._now()
            for one in hits:
                if one.rule.kind is Kind.STALL:
                    until = max(now + one.rule.ms / 1000, self._stalled_until.get(one.rule.place, 0.0))
                    self._stalled_until[one.rule.place] = until
            stalled_s = max(self._stalled_until.get(place, now) - now for place in places)
            delayed_s = sum(one.rule.ms / 1000 for one in hits if one.rule.kind is Kind.DELAY)
            done = next((one for one in hits if one.rule.kind not in (Kind.DELAY, Kind.STALL)), None)
            draw = random.Random(done.draw.random()) if done is not None else random.Random(0)
        return Fate(max(0.0, stalled_s) + delayed_s, done.rule if done is not None else None, draw)


class _RuleAtWork:
    """A rule, and what came by it."""

    def __init__(self, rule: Rule, seed: str) -> None:
        self.rule = rule
        self.draw = random.Random(seed)
        self._chance = random.Random(f"{seed}/chance")
        self._seen = 0
        self._hit = 0

    def hits(self) -> bool:
        """Whether the next message is hit."""
        # Drawn for each, so that a message's fate does not depend on `after` and `count`.
        chosen = self._chance.random() < self.rule.probability
        self._seen += 1
        hit = chosen and self._seen > self.rule.after and (not self.rule.count or self._hit < self.rule.count)
        self._hit += hit
        return hit


def _rule(made: Any, name: str, places: Places) -> Rule:
    _require(isinstance(made, dict), name, "an object", made)
    _known(made, [own.name for own in fields(Rule)], f"{name}.")
    missing = [own.name for own in fields(Rule) if own.default is MISSING and own.name not in made]
    _require(not missing, name, "place and kind", made)
    place, kind = made["place"], made["kind"]
    _require(isinstance(place, str) and place in places, f"{name}.place", _one_of(places), place)
    allowed = places[place]
    _require(kind in sorted(allowed), f"{name}.kind", f"{_one_of(sorted(allowed))} at {place}", kind)
    _check_numbers(made, name)
    timed = kind in (Kind.DELAY, Kind.STALL)
    _require(timed == ("ms" in made), f"{name}.ms", "with delay and stall, and with no other kind", made.get("ms"))
    disk = place in DISK_PLACES
    codes = DISK_CODES if disk else CODES
    code = made.get("code", codes[0] if kind == Kind.ERROR else "")
    _require(code in codes or (not code and kind != Kind.ERROR), f"{name}.code", _one_of(codes), code)
    _require(kind == Kind.ERROR or "code" not in made, f"{name}.code", "with error, and with no other kind", code)
    if "field" in made:
        named = sorted(fields_of(MESSAGES[place])) if kind == Kind.CORRUPT and not disk else []
        _require(made["field"] in named, f"{name}.field", _one_of(named) if named else "none here", made["field"])
    return Rule(**{**made, "kind": Kind(kind), "code": code})


def _check_numbers(made: dict[str, Any], name: str) -> None:
    probability = made.get("probability", 1.0)
    number = isinstance(probability, (int, float)) and not isinstance(probability, bool)
    _require(number and 0 < probability <= 1, f"{name}.probability", "above 0 to 1", probability)
    for field, low, high in (("ms", 1, MS_MAX), ("after", 0, COUNTS_MAX), ("count", 0, COUNTS_MAX)):
        value = made.get(field, low)
        _require(_is_whole(value) and low <= value <= high, f"{name}.{field}", f"{low} to {high}", value)


def _known(made: dict[str, Any], names: Iterable[str], prefix: str) -> None:
    known = list(names)
    unknown = next((name for name in made if name not in known), None)
    if unknown is not None:
        raise ValueError(f"{prefix}{unknown}: expected one of {', '.join(known)}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {json.dumps(came)[:200]}")
