"""One connection to a memory server, and the sessions that are open over it.

    MemoryClient --- Link (shared state) --- AttachStream (steps, recalls, reconnect)
         |                    |------------- BlockTransfer (blocks)
         `--- MemorySession ... one each open session

Invariants: after `close`, also one that failed half-way, no thread and no shared-memory file of the client is left.
"""

import logging
import threading
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np
import numpy.typing as npt

from attn_client.errors import MemoryUnavailable
from attn_client.memory.arena import Arena, remove_abandoned
from attn_client.memory.attachment import Attachment, Opening
from attn_client.memory.calls import Calls
from attn_client.memory.faults import faults_in
from attn_client.memory.link import Link
from attn_client.memory.session import MemorySession
from attn_client.memory.settings import ClientSettings
from attn_client.memory.stream import AttachStream
from attn_client.memory.transfer import BlockTransfer
from protos.faults import Faults
from protos.memsvc.v1 import graph_pb2, session_pb2, types_pb2

# For a thread that was told to end: it only has to notice.
JOIN_TIMEOUT_S = 10.0
PAGE_SIZE = 1000

_LOGGER = logging.getLogger(__name__)


class MemoryClient:
    """A connection, kept up until it is closed. Any thread may call it; each session is one thread's at a time.

    Args:
        address: `unix:///path` or `host:port`.
        faults: Rules at work by which the memory fails on purpose; in place of those that the settings name.

    Raises:
        MemoryUnavailable: Nobody there within `connect_timeout_s`.
        MemoryProtocol: Somebody there who speaks another version, or another protocol.
    """

    def __init__(self, address: str, settings: ClientSettings | None = None, *, faults: Faults | None = None) -> None:
        settings = settings if settings is not None else ClientSettings()
        self._settings = settings
        self._worker = uuid.uuid4().hex
        self._opening = threading.Lock()
        self._sessions: list[MemorySession] = []
        self._calls = Calls(address, settings, faults or faults_in(settings.faults))
        with ExitStack() as undo:
            undo.callback(self._calls.close)
            arena = _arena(settings.arena_bytes)
            if arena is not None:
                undo.callback(arena.close)
            self._link = Link(settings.outbox_bytes_max, settings.stall_timeout_s, arena)
            self._stream = AttachStream(self._link, self._calls, settings, self._worker, self._opening)
            undo.callback(self._stream.close, JOIN_TIMEOUT_S)
            self._transfer = BlockTransfer(self._link, self._calls, settings)
            undo.callback(self._transfer.close, JOIN_TIMEOUT_S)
            # First of all, so that no thread is waited for that waits for an answer.
            undo.callback(self._hang_up)
            self._await_up()
            self._undo = undo.pop_all()

    def __enter__(self) -> "MemoryClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def shares_memory(self) -> bool:
        """Whether blocks cross by shared memory rather than in messages."""
        with self._link.changed:
            return self._link.shared is not None

    @property
    def connected(self) -> bool:
        """Whether the connection is up now; while it is not, opening a session waits for it."""
        with self._link.changed:
            return self._link.up

    def create_session(self, name: str, spec: types_pb2.SessionSpec) -> types_pb2.SessionInfo:
        """Make a session, or find the one that was made with the same specification.

        Raises:
            MemoryRefused: The name is taken by another (SESSION_EXISTS, FINGERPRINT_MISMATCH).
        """
        request = session_pb2.CreateSessionRequest(name=name, spec=spec)
        return self._calls.call(self._calls.sessions.CreateSession, request, f"make session {name!r}").session

    def get_session(self, name: str) -> types_pb2.SessionInfo:
        """A session as it is now. Raises MemoryRefused (SESSION_NOT_FOUND)."""
        request = session_pb2.GetSessionRequest(name=name)
        return self._calls.call(self._calls.sessions.GetSession, request, f"read session {name!r}").session

    def list_sessions(self) -> list[types_pb2.SessionInfo]:
        """All sessions in order of name."""
        sessions: list[types_pb2.SessionInfo] = []
        request = session_pb2.ListSessionsRequest(page_size=PAGE_SIZE)
        while True:
            page = self._calls.call(self._calls.sessions.ListSessions, request, "list sessions")
            sessions += page.sessions
            request.page_token = page.next_page_token
            if not request.page_token:
                return sessions

    def fork_session(self, parent: str, name: str, snapshot: str = "") -> types_pb2.SessionInfo:
        """Make a session that goes on from another's newest tail, or snapshot, apart from it; or find that fork.

        Raises:
            MemoryRefused: SESSION_NOT_FOUND, SNAPSHOT_NOT_FOUND, SESSION_EXISTS (the name is taken by another).
        """
        request = session_pb2.ForkSessionRequest(parent=parent, name=name, snapshot=snapshot)
        return self._calls.call(self._calls.sessions.ForkSession, request, f"fork session {parent!r}").session

    def delete_session(self, name: str) -> None:
        """Delete a session and its files.

        Raises:
            MemoryRefused: SESSION_NOT_FOUND, SESSION_HAS_WRITER, SESSION_HAS_FORKS, SESSION_HAS_SNAPSHOTS.
        """
        request = session_pb2.DeleteSessionRequest(name=name)
        self._calls.call(self._calls.sessions.DeleteSession, request, f"delete session {name!r}")

    def list_bookmarks(self, session: str, first: int, count: int) -> graph_pb2.ListBookmarksResponse:
        """Bookmarks `first` on, at most `count`, and how many there are."""
        request = graph_pb2.ListBookmarksRequest(session=session, first=first, count=count)
        return self._calls.call(self._calls.graph.ListBookmarks, request, f"list bookmarks of session {session!r}")

    def graph(self, session: str, seeds: Sequence[int], hops: int, limit: int) -> list[graph_pb2.Bookmark]:
        """Bookmarks within so many hops of the seeds (by index; none: the newest chains), at most `limit`."""
        request = graph_pb2.GetGraphRequest(session=session, seeds=seeds, hops=hops, bookmarks_max=limit)
        response = self._calls.call(self._calls.graph.GetGraph, request, f"read the graph of session {session!r}")
        return list(response.bookmarks)

    def read_tokens(self, session: str, first: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Positions (int64) and ids (uint32) of the tokens at `first` to `first + count - 1`, gaps left out."""
        request = graph_pb2.ReadTokensRequest(session=session, positions=types_pb2.Range(first=first, count=count))
        response = self._calls.call(self._calls.graph.ReadTokens, request, f"read tokens of session {session!r}")
        ranges = [np.arange(one.first, one.first + one.count, dtype=np.int64) for one in response.positions]
        positions = np.concatenate(ranges) if ranges else np.empty(0, np.int64)
        return positions, np.frombuffer(response.ids, "<u4").astype(np.uint32)

    def explain(self, session: str, asked_at: int | None = None) -> graph_pb2.ExplainResponse:
        """Why the blocks of a recall were chosen; the newest recall if no position is given.

        Raises:
            MemoryRefused: The server does not remember it (RECALL_NOT_FOUND).
        """
        request = graph_pb2.ExplainRequest(session=session)
        if asked_at is not None:
            request.asked_at_position = asked_at
        return self._calls.call(self._calls.graph.Explain, request, f"explain a recall of session {session!r}")

    def open_writer(self, name: str, fingerprint: types_pb2.Fingerprint) -> MemorySession:
        """Go on writing a session.

        Raises:
            MemoryRefused: Another writer has it (SESSION_HAS_WRITER), another model made it (FINGERPRINT_MISMATCH).
        """
        return self._open(name, session_pb2.OPEN_MODE_WRITER, fingerprint)

    def open_view(self, name: str, fingerprint: types_pb2.Fingerprint, snapshot: str = "") -> MemorySession:
        """Read on from a session's newest tail, or from a snapshot, without changing the session.

        Raises:
            MemoryRefused: As above, or there is no such snapshot (SNAPSHOT_NOT_FOUND).
        """
        return self._open(name, session_pb2.OPEN_MODE_VIEW, fingerprint, snapshot)

    def close(self) -> None:
        """Close the sessions and the connection. Twice is fine.

        Raises:
            MemoryUnavailable: A thread did not end.
        """
        with self._undo:
            for session in self._sessions:
                session.close()

    def _open(
        self,
        name: str,
        mode: session_pb2.OpenMode.ValueType,
        fingerprint: types_pb2.Fingerprint,
        snapshot: str = "",
    ) -> MemorySession:
        opening = Opening(name, mode, fingerprint, uuid.uuid4().hex, snapshot)
        self._await_up()
        with self._opening:
            opened = self._calls.open(opening, self._worker, 0)
            attachment = Attachment(opening, opened)
            with self._link.changed:
                self._link.attachments[opening.attachment] = attachment
            session = MemorySession(self._link, self._calls, self._transfer, attachment, opened)
            self._sessions = [*(one for one in self._sessions if not one.closed), session]
        return session

    def _await_up(self) -> None:
        link, timeout_s = self._link, self._settings.connect_timeout_s
        with link.changed:
            link.changed.wait_for(lambda: link.up or link.failure is not None, timeout_s)
            if link.failure is not None:
                raise link.failure
            if not link.up:
                came = f"{self._stream.last_error}" if self._stream.last_error is not None else "no answer"
                expected = f"a memory server at {self._calls.address} within {timeout_s} s"
                raise MemoryUnavailable(f"expected {expected}, got {came}")

    def _hang_up(self) -> None:
        with self._link.changed:
            self._link.close()
        self._calls.close()


def _arena(size_bytes: int) -> Arena | None:
    if not size_bytes:
        return None
    try:
        remove_abandoned()
        return Arena(size_bytes)
    except OSError as error:
        _LOGGER.warning("expected %d bytes of shared memory, got %s: blocks travel in messages", size_bytes, error)
        return None
