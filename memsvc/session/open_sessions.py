"""Which sessions of a node are in memory: found by name, kept while they are used, closed when they are too many.

Invariants:
    One call at a time makes, opens, closes or deletes a name.
    While more sessions are open than the limit, those that nobody uses are closed, the longest unused first.
Must not know: files, the manifest.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memsvc.session.session import Session
from protos.memsvc.v1 import types_pb2


class OpenSessions:
    """Open sessions by name.

    Args:
        open_max: How many stay open that nobody uses.
        closed: Told each session that was closed because nobody used it.

    Concurrency: any calls may overlap; `add`, `rename` and `drop` are called inside `alone`.
    """

    def __init__(self, open_max: int, closed: Callable[[Session], None]) -> None:
        self._open_max = open_max
        self._closed = closed
        # Guards what follows, and is notified when a name is no longer busy.
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        # The newest used last.
        self._open: dict[str, Session] = {}
        # By name, how many are inside `kept`.
        self._users: Counter[str] = Counter()
        # Of sessions that were closed because nobody used them.
        self._infos: dict[str, types_pb2.SessionInfo] = {}

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Waits until nobody else makes, opens, closes or deletes this name, and keeps others waiting."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._busy)
            self._busy.add(name)
        try:
            yield
        finally:
            self._not_busy(name)
            self._close_idle()

    @contextmanager
    def kept(self, name: str) -> Iterator[None]:
        """Around a use of a session, open or about to be: it is not closed meanwhile."""
        with self._changed:
            self._users[name] += 1
        try:
            yield
        finally:
            with self._changed:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name]

    def find(self, name: str) -> Session | None:
        """The session if it is open and nobody changes that now."""
        with self._changed:
            if name in self._busy or (session := self._open.pop(name, None)) is None:
                return None
            self._open[name] = session
            return session

    def get(self, name: str) -> Session | None:
        """The session if it is open; inside `alone`."""
        with self._changed:
            return self._open.get(name)

    def info(self, name: str) -> types_pb2.SessionInfo | None:
        """Of a session that was closed because nobody used it, as it has been since."""
        with self._changed:
            return self._infos.get(name) if name not in self._open else None

    def add(self, name: str, session: Session) -> None:
        """It is open now."""
        with self._changed:
            self._open[name] = session
            self._infos.pop(name, None)

    def rename(self, name: str, to: str) -> None:
        """It is open, and has another name from now on; inside `alone` of both."""
        with self._changed:
            self._open[to] = self._open.pop(name)
            self._infos.pop(to, None)

    def drop(self, name: str) -> None:
        """It is being deleted."""
        with self._changed:
            self._open.pop(name, None)
            self._infos.pop(name, None)

    def rest(self, name: str) -> bool:
        """Closes the session if it is open, inside `alone`; False, and nothing happens, while somebody uses it."""
        with self._changed:
            session = self._open.get(name)
            if self._users[name] or (session is not None and not session.core.idle):
                return False
        if session is not None:
            self._close(name)
        with self._changed:
            # What it took on the disk may change now.
            self._infos.pop(name, None)
        return session is None or session.core.ended

    def all(self) -> list[Session]:
        """Those that are open."""
        with self._changed:
            return [*self._open.values()]

    def clear(self) -> list[Session]:
        """Forgets those that are open, and returns them."""
        with self._changed:
            sessions = [*self._open.values()]
            self._open.clear()
            return sessions

    def _not_busy(self, name: str) -> None:
        with self._changed:
            self._busy.remove(name)
            self._changed.notify_all()

    def _close_idle(self) -> None:
        """Closes those that nobody uses, as many as are too many."""
        while (name := self._next_idle()) is not None:
            try:
                self._close(name)
            finally:
                self._not_busy(name)

    def _next_idle(self) -> str | None:
        """The one to close next, made busy."""
        with self._changed:
            if len(self._open) <= self._open_max:
                return None
            for name, session in self._open.items():
                if name not in self._busy and not self._users[name] and session.core.idle:
                    self._busy.add(name)
                    return name
        return None

    def _close(self, name: str) -> None:
        with self._changed:
            session = self._open[name]
        try:
            session.core.end_if_idle()
        finally:
            if session.core.ended:
                self._closed(session)
                info = session.info()
                with self._changed:
                    del self._open[name]
                    self._infos[name] = info
