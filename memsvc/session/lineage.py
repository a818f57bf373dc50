"""What a session is called, which session it began as a part of, and which of its cuts have names.

    kind                record's body       says
    SESSION, the first  name, fork          the name; of a fork, where it was cut from its parent
    SNAPSHOT            name, position,     the newest tail has a name now
                        created_unix_ms
    SNAPSHOT_DROPPED    name                it has none any more
    RENAMED             name                the session's name

Invariants:
    None of these is void when what a lost writer wrote is: a snapshot names a tail, and tails stay.
    A snapshot's cut never changes; it is a cut of every state of the session since.
Must not know: logs, disks, locks, who is attached.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memsvc.errors import CorruptLog, InvalidRequest, SnapshotNotFound
from memsvc.log_format import LogRecord
from memsvc.session.records import Body, RecordKind, unpacking
from memsvc.session.state import Cut
from protos.memsvc.v1 import session_pb2

# Names that a message lists at most.
_NAMES_SHOWN = 8
_SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class ForkPoint:
    """Where a fork was cut from another session.

    Args:
        parent: Id of that session.
        sequence: Of the last record in the parent's log that the fork shares.
        position: Of the next token.
    """

    parent: str
    sequence: int
    position: int


@dataclass(frozen=True)
class Snapshot:
    """A cut with a name."""

    name: str
    cut: Cut
    created_unix_ms: int

    def to_wire(self) -> session_pb2.Snapshot:
        """The snapshot as it travels."""
        return session_pb2.Snapshot(
            name=self.name,
            position=self.cut.position,
            bookmarks=self.cut.bookmarks,
            created_unix_ms=self.created_unix_ms,
        )


class Lineage:
    """Name, origin and snapshots of one session, as its log tells them.

    Args:
        first: Body of the log's first record.

    Attributes:
        name: As the log says; the manifest says so too, but for what a crash cut off.
        fork: None of a session that began empty.

    Raises:
        CorruptLog: The body is none.
    """

    def __init__(self, first: Body) -> None:
        with unpacking("SESSION"):
            self.name = str(first["name"])
            self.fork = _fork_of(first["fork"]) if "fork" in first else None
        self._snapshots: dict[str, Snapshot] = {}

    def __len__(self) -> int:
        """Snapshots there are."""
        return len(self._snapshots)

    def take(self, record: LogRecord, cut: Cut) -> None:
        """Replays one of the records above; `cut` is the newest there is then. Raises CorruptLog."""
        with unpacking(RecordKind(record.kind).name):
            name = str(record.body["name"])
            if record.kind == RecordKind.RENAMED:
                self.name = name
            elif record.kind == RecordKind.SNAPSHOT_DROPPED:
                self.drop(name)
            else:
                self._take_snapshot(name, record, cut)

    def add(self, snapshot: Snapshot) -> None:
        """Gives a cut a name that is free."""
        self._snapshots[snapshot.name] = snapshot

    def drop(self, name: str) -> None:
        """Takes a cut's name away. Raises KeyError if it has none."""
        del self._snapshots[name]

    def get(self, name: str) -> Snapshot | None:
        """The snapshot of that name, if there is one."""
        return self._snapshots.get(name)

    def snapshot(self, name: str) -> Snapshot:
        """The snapshot of that name. Raises SnapshotNotFound."""
        if (known := self._snapshots.get(name)) is None:
            raise SnapshotNotFound(f"expected the name of a snapshot of session {self.name!r}, got {name[:160]!r}")
        return known

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, in order of position, then of name."""
        return sorted(self._snapshots.values(), key=lambda own: (own.cut.position, own.name))

    def _take_snapshot(self, name: str, record: LogRecord, cut: Cut) -> None:
        position = int(record.body["position"])
        if position != cut.position or name in self._snapshots:
            expected = f"a free name for the tail at position {cut.position}"
            raise CorruptLog(f"expected {expected}, got {name!r} at {position} in record {record.sequence}")
        self.add(Snapshot(name, cut, int(record.body["created_unix_ms"])))


def pack_fork(fork: ForkPoint) -> Body:
    """What the body of a fork's SESSION record has beside that of any other."""
    return {"fork": {"parent": fork.parent, "sequence": fork.sequence, "position": fork.position}}


def pack_snapshot(snapshot: Snapshot) -> Body:
    """Body of a SNAPSHOT record."""
    return {
        "name": snapshot.name,
        "position": snapshot.cut.position,
        "created_unix_ms": snapshot.created_unix_ms,
    }


def pack_name(name: str) -> Body:
    """Body of a SNAPSHOT_DROPPED or RENAMED record."""
    return {"name": name}


def snapshot_names(records: Iterable[LogRecord]) -> list[str]:
    """Names of the snapshots that a log tells of, in order of making, without replaying it."""
    names: dict[str, None] = {}
    for record in records:
        if record.kind == RecordKind.SNAPSHOT:
            names[str(record.body.get("name"))] = None
        elif record.kind == RecordKind.SNAPSHOT_DROPPED:
            names.pop(str(record.body.get("name")), None)
    return [*names]


def check_snapshot_name(name: str) -> None:
    """Raises InvalidRequest for what is no snapshot's name."""
    if not _SNAPSHOT_NAME.fullmatch(name):
        raise InvalidRequest(
            "expected a snapshot's name of 1 to 128 characters of [A-Za-z0-9._-] that starts with a letter or digit, "
            f"got {name[:160]!r}"
        )


def named(names: Iterable[str]) -> str:
    """Names as a message lists them: the first few, and how many more there are."""
    every = sorted(names)
    shown = ", ".join(repr(name) for name in every[:_NAMES_SHOWN])
    return shown if len(every) <= _NAMES_SHOWN else f"{shown} and {len(every) - _NAMES_SHOWN} more"


def _fork_of(body: Mapping[str, Any]) -> ForkPoint:
    return ForkPoint(str(body["parent"]), int(body["sequence"]), int(body["position"]))
