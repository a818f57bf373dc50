"""What sessions should do, as simple as can be said: some names, the sessions that they stand for, and calls on them.

    Family      names that rename and fork into each other, and no others; what a history is checked by
    Session     its text, its blocks, its newest tail, its snapshots, who writes it and who views it

A text is told by its steps: each has an id of its own, which its tokens bear. A block is told by its salt, which no
other put has. So a read tells which writes it saw.

Two kinds of call do two things, and in between others may do something: a fork looks at its parent first and makes its
session later; a writer that opens displaces a lost one first, and what that one wrote after the tail is void later.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from memsvc.geometry import BLOCK_TOKENS, visible_blocks_end

SINK_TOKENS = WINDOW_TOKENS = BLOCK_TOKENS
# What a call is refused with, of an attachment that is not, or no longer, the writer or a view.
GONE = frozenset({"STALE_EPOCH", "ATTACHMENT_NOT_FOUND", "SESSION_NOT_FOUND"})
NO_SESSION = "SESSION_NOT_FOUND"

# First position, tokens, id.
TextStep: TypeAlias = tuple[int, int, int]
# How many tokens it holds if not all, else 0; and its salt.
Stored: TypeAlias = tuple[int, int]


class Tail(NamedTuple):
    """Where a writer or a view begins; not saved while there is none but the beginning."""

    position: int = 0
    partial: Stored | None = None
    saved: bool = False


class View(NamedTuple):
    """A view that is open."""

    attachment: str
    tail: Tail


class Writer(NamedTuple):
    """The newest writer unless it closed."""

    attachment: str
    worker: str
    seq: int = 0
    lost: bool = False


class Session(NamedTuple):
    """A session."""

    id: str
    parent: str = ""
    epoch: int = 0
    writer: Writer | None = None
    tail: Tail = Tail()
    text: tuple[TextStep, ...] = ()
    blocks: frozenset[tuple[int, Stored]] = frozenset()
    snapshots: frozenset[tuple[str, Tail]] = frozenset()
    views: frozenset[View] = frozenset()

    @property
    def position(self) -> int:
        """Of the next token."""
        return self.text[-1][0] + self.text[-1][1] if self.text else 0

    def stored(self, block: int) -> Stored | None:
        """What there is of a block."""
        return next((stored for own, stored in self.blocks if own == block), None)

    def whole(self, first: int, end: int) -> int:
        """How many whole blocks there are from `first` on, before `end`."""
        return sum(first <= block < end and not partial for block, (partial, _) in self.blocks)

    def cut(self, tail: Tail) -> "Session":
        """As it was at a tail: what a new writer goes on from."""
        end = tail.position // BLOCK_TOKENS
        blocks = {(block, stored) for block, stored in self.blocks if block < end and not stored[0]}
        if tail.partial is not None:
            blocks.add((end, tail.partial))
        text = tuple(step for step in self.text if step[0] < tail.position)
        return self._replace(tail=tail, text=text, blocks=frozenset(blocks))

    def snapshot(self, name: str) -> Tail | None:
        """The tail that a name stands for; the newest one's if it is empty."""
        return self.tail if not name else dict(self.snapshots).get(name)


class Family(NamedTuple):
    """Sessions by name; by fork, what those that are being made begin with."""

    sessions: tuple[tuple[str, Session], ...] = ()
    forks: tuple[tuple[int, Session], ...] = ()

    def get(self, name: str) -> Session | None:
        """The session of that name."""
        return dict(self.sessions).get(name)

    def put(self, name: str, session: Session | None) -> "Family":
        """With that session under the name, or none."""
        known = {**dict(self.sessions), name: session}
        return self._replace(sessions=tuple(sorted((one, own) for one, own in known.items() if own is not None)))

    def writing(self, attachment: str) -> tuple[str, Session, Writer] | None:
        """The session that an attachment is the newest writer of."""
        for name, session in self.sessions:
            if session.writer is not None and session.writer.attachment == attachment:
                return name, session, session.writer
        return None

    def viewing(self, attachment: str) -> tuple[str, Session, View] | None:
        """The session that an attachment is a view of."""
        for name, session in self.sessions:
            for view in session.views:
                if view.attachment == attachment:
                    return name, session, view
        return None


@dataclass(frozen=True)
class Create:
    """Makes a session, or finds it."""

    name: str
    created: bool
    id: str
    tokens: int

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        known = family.get(self.name)
        if known is None:
            return family.put(self.name, Session(self.id)) if self.created and not self.tokens else None
        return family if (self.created, self.id, self.tokens) == (False, known.id, known.position) else None


@dataclass(frozen=True)
class Delete:
    """Deletes a session; `reason` is empty if it did."""

    name: str
    reason: str

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        session = family.get(self.name)
        if session is None:
            return family if self.reason == NO_SESSION else None
        others = [*(own for _, own in family.sessions), *(own for _, own in family.forks)]
        holds = {
            "SESSION_HAS_WRITER": session.writer is not None and not session.writer.lost,
            "SESSION_HAS_SNAPSHOTS": bool(session.snapshots),
            "SESSION_HAS_FORKS": any(own.parent == session.id for own in others),
        }
        if self.reason:
            return family if holds.get(self.reason, False) else None
        return None if any(holds.values()) else family.put(self.name, None)


@dataclass(frozen=True)
class Rename:
    """Gives a session another name."""

    name: str
    to: str
    reason: str

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        session = family.get(self.name)
        holds = {
            NO_SESSION: session is None,
            "SESSION_EXISTS": family.get(self.to) is not None,
            "SESSION_HAS_WRITER": session is not None and session.writer is not None and not session.writer.lost,
        }
        if self.reason:
            return family if holds.get(self.reason, False) else None
        return None if any(holds.values()) else family.put(self.name, None).put(self.to, session)


@dataclass(frozen=True)
class Cut:
    """First half of a fork that was made: what it begins with."""

    fork: int
    parent: str
    snapshot: str
    id: str
    position: int

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        parent = family.get(self.parent)
        tail = parent.snapshot(self.snapshot) if parent is not None else None
        if parent is None or tail is None or tail.position != self.position:
            return None
        begun = Session(self.id, parent.id)
        own = begun._replace(text=parent.text, blocks=parent.blocks).cut(tail)
        return family._replace(forks=(*family.forks, (self.fork, own)))


@dataclass(frozen=True)
class Fork:
    """Second half of a fork: the session is there; or the whole of one that was refused, or found."""

    fork: int
    parent: str
    snapshot: str
    name: str
    reason: str
    created: bool = False
    id: str = ""

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        parent, known = family.get(self.parent), family.get(self.name)
        if self.created:
            begun = dict(family.forks).get(self.fork)
            if begun is None or known is not None:
                return None
            rest = tuple(one for one in family.forks if one[0] != self.fork)
            return family._replace(forks=rest).put(self.name, begun)
        tail = parent.snapshot(self.snapshot) if parent is not None else None
        holds = {
            NO_SESSION: parent is None,
            "SNAPSHOT_NOT_FOUND": parent is not None and tail is None,
            "SESSION_EXISTS": known is not None,
            "": known is not None and parent is not None and (known.id, known.parent) == (self.id, parent.id),
        }
        return family if holds.get(self.reason, False) else None


@dataclass(frozen=True)
class Snap:
    """Names the newest tail, or takes the name away."""

    name: str
    snapshot: str
    reason: str
    created: bool = False
    position: int = 0
    drops: bool = False

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        session = family.get(self.name)
        if session is None:
            return family if self.reason == NO_SESSION else None
        known = dict(session.snapshots).get(self.snapshot)
        if self.drops:
            if known is None:
                return family if self.reason == "SNAPSHOT_NOT_FOUND" else None
            left = session.snapshots - {(self.snapshot, known)}
            return None if self.reason else family.put(self.name, session._replace(snapshots=left))
        if known is not None and known != session.tail:
            return family if self.reason == "SNAPSHOT_EXISTS" else None
        if self.reason or self.position != session.tail.position or self.created is not (known is None):
            return None
        named = session.snapshots | {(self.snapshot, session.tail)}
        return family if known is not None else family.put(self.name, session._replace(snapshots=named))


@dataclass(frozen=True)
class Look:
    """Reads what a session is; `seen` is what there was, None if there was no session."""

    name: str
    seen: Mapping[str, object] | None

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        session = family.get(self.name)
        if session is None or self.seen is None:
            return family if session is None and self.seen is None else None
        return family if all(_LOOKS[what](session) == came for what, came in self.seen.items()) else None


_LOOKS: dict[str, Callable[[Session], object]] = {
    "id": lambda own: own.id,
    "parent": lambda own: own.parent,
    "tokens": lambda own: own.position,
    "tail": lambda own: own.tail.position,
    "epoch": lambda own: own.epoch,
    "blocks": lambda own: own.whole(0, 1 << 40),
    "writer": lambda own: own.writer.worker if own.writer is not None and not own.writer.lost else "",
    "snapshots": lambda own: len(own.snapshots),
    "names": lambda own: frozenset((name, tail.position) for name, tail in own.snapshots),
    "text": lambda own: own.text,
}


def candidates(session: Session, asked_at: int, end: int) -> int:
    """Blocks that a recall may choose from: past the sinks, before the window and before a view's end."""
    visible = visible_blocks_end(asked_at, SINK_TOKENS, WINDOW_TOKENS)
    return session.whole(SINK_TOKENS // BLOCK_TOKENS, min(visible, end // BLOCK_TOKENS))
