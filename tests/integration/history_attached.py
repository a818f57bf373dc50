"""Calls of the model in `history_model` that are made from an attachment, or make one."""

from dataclasses import dataclass

from memsvc.geometry import BLOCK_TOKENS
from tests.integration.history_model import GONE, NO_SESSION, Family, Session, Stored, Tail, View, Writer, candidates


@dataclass(frozen=True)
class OpenWriter:
    """Second half of opening a writer: it begins at the newest tail; or goes on as one where `resumes` is its epoch."""

    name: str
    attachment: str
    worker: str
    reason: str
    epoch: int = 0
    position: int = 0
    applied_seq: int = 0
    blocks: frozenset[int] = frozenset()
    resumes: int = 0

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        session = family.get(self.name)
        if session is None:
            return family if self.reason == NO_SESSION else None
        if self.resumes:
            return self._resumed(family, session)
        if session.writer is not None and not session.writer.lost:
            return family if self.reason == "SESSION_HAS_WRITER" else None
        began = session.cut(session.tail)._replace(epoch=session.epoch + 1, writer=Writer(self.attachment, self.worker))
        return family.put(self.name, began) if self._told_of(began) else None

    def _resumed(self, family: Family, session: Session) -> Family | None:
        writer = session.writer
        known = writer is not None and (writer.attachment, session.epoch) == (self.attachment, self.resumes)
        if writer is None or not known:
            # Of an attachment of another session the name is taken.
            return family if self.reason in ("STALE_EPOCH", "INVALID_REQUEST") else None
        there = session._replace(writer=writer._replace(lost=False))
        if not self._told_of(there):
            return None
        return family.put(self.name, there) if writer.lost else family

    def _told_of(self, session: Session) -> bool:
        assert session.writer is not None
        end = session.position // BLOCK_TOKENS
        whole = frozenset(block for block, (partial, _) in session.blocks if not partial and block < end)
        told = (self.epoch, self.position, self.applied_seq, self.blocks)
        return not self.reason and told == (session.epoch, session.position, session.writer.seq, whole)


@dataclass(frozen=True)
class Displace:
    """First half of opening a writer: one that was lost is refused from now on."""

    name: str

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        session = family.get(self.name)
        if session is None or (session.writer is not None and not session.writer.lost):
            return None
        return family if session.writer is None else family.put(self.name, session._replace(writer=None))


@dataclass(frozen=True)
class OpenView:
    """Opens a view at a snapshot, or at the newest tail."""

    name: str
    attachment: str
    snapshot: str
    reason: str
    position: int = 0
    blocks: frozenset[int] = frozenset()

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        session = family.get(self.name)
        if session is None:
            return family if self.reason == NO_SESSION else None
        tail = session.snapshot(self.snapshot)
        if tail is None:
            return family if self.reason == "SNAPSHOT_NOT_FOUND" else None
        told = (self.reason, self.position, self.blocks)
        if told != ("", tail.position, frozenset(range(tail.position // BLOCK_TOKENS))):
            return None
        views = session.views | {View(self.attachment, tail)}
        return family.put(self.name, session._replace(views=views))


@dataclass(frozen=True)
class Leave:
    """Ends an attachment; a writer whose stream broke off is lost, and may go on until another one opens."""

    attachment: str
    lost: bool = False

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        if (writing := family.writing(self.attachment)) is not None:
            name, session, writer = writing
            left = writer._replace(lost=True) if self.lost else None
            return family if left == writer else family.put(name, session._replace(writer=left))
        if (viewing := family.viewing(self.attachment)) is not None:
            name, session, view = viewing
            return family.put(name, session._replace(views=session.views - {view}))
        return family


@dataclass(frozen=True)
class Append:
    """Sends a step of the writer."""

    attachment: str
    seq: int
    first: int
    count: int
    id: int
    reason: str
    bookmarks: int = 0

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        if (writing := family.writing(self.attachment)) is None:
            return family if self.reason in GONE else None
        name, session, writer = writing
        if self.seq <= writer.seq:
            return family if (self.reason, self.bookmarks) == ("", session.position) else None
        if self.seq != writer.seq + 1:
            return family if self.reason == "INVALID_REQUEST" else None
        if self.first != session.position:
            return family if self.reason == "POSITION_OUT_OF_ORDER" else None
        if (self.reason, self.bookmarks) != ("", self.first + self.count):
            return None
        text = (*session.text, (self.first, self.count, self.id))
        return family.put(name, session._replace(text=text, writer=writer._replace(seq=self.seq)))


@dataclass(frozen=True)
class Recalled:
    """Gets the answer to a step that asked: out of how many blocks it chose."""

    attachment: str
    asked_at: int
    candidates: int

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        writing, viewing = family.writing(self.attachment), family.viewing(self.attachment)
        if writing is not None:
            expected = candidates(writing[1], self.asked_at, self.asked_at + 1)
        elif viewing is not None:
            expected = candidates(viewing[1], self.asked_at, viewing[2].tail.position)
        else:
            # Asked before the attachment ended: of what there was then.
            return family
        return family if self.candidates == expected else None


@dataclass(frozen=True)
class Put:
    """Puts a block, or its first tokens."""

    attachment: str
    block: int
    stored: Stored
    reason: str

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        if (writing := family.writing(self.attachment)) is None:
            return family if self.reason in GONE else None
        name, session, _ = writing
        known, partial = session.stored(self.block), self.stored[0]
        if known == self.stored:
            return family if not self.reason else None
        if known is not None and not (known[0] and (not partial or partial > known[0])):
            return family if self.reason == "INVALID_REQUEST" else None
        if self.reason:
            return None
        blocks = session.blocks - {(self.block, known)} if known is not None else session.blocks
        return family.put(name, session._replace(blocks=blocks | {(self.block, self.stored)}))


@dataclass(frozen=True)
class Fetch:
    """Reads a block through an attachment; `stored` is None if it was refused."""

    attachment: str
    block: int
    reason: str
    stored: Stored | None = None

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        if (writing := family.writing(self.attachment)) is not None:
            known = writing[1].stored(self.block)
        elif (viewing := family.viewing(self.attachment)) is not None:
            _, session, view = viewing
            end = view.tail.position // BLOCK_TOKENS
            known = session.stored(self.block) if self.block < end else None
            known = view.tail.partial if self.block == end else known
        else:
            return family if self.reason in GONE else None
        expected = ("", known) if known is not None else ("BLOCK_NOT_FOUND", None)
        return family if (self.reason, self.stored) == expected else None


@dataclass(frozen=True)
class SaveTail:
    """Cuts a tail at a position."""

    attachment: str
    position: int
    reason: str

    def after(self, family: Family) -> Family | None:
        """As `Call`."""
        if (writing := family.writing(self.attachment)) is None:
            return family if self.reason in GONE else None
        name, session, _ = writing
        if self.position < session.position:
            return family if self.reason == "INVALID_REQUEST" else None
        block, filled = divmod(session.position, BLOCK_TOKENS)
        known = session.stored(block)
        whole = session.whole(0, block) == block
        if self.position > session.position or not whole or (filled and (known is None or known[0] != filled)):
            return family if self.reason == "TAIL_INCOMPLETE" else None
        if self.reason:
            return None
        tail = Tail(self.position, known if filled else None, saved=True)
        return family if tail == session.tail else family.put(name, session._replace(tail=tail))
