"""Looking after the sessions of a running node: verifying, forgetting, compacting, and reading blocks again.

    a round, every `interval_s`       for each session, in order of name
        retention                     blocks that are too old or too many leave
        compaction                    of sessions that something left, once nobody is attached
        scrub                         every block is read, at most so many bytes a second

Invariants:
    Nothing here holds a session's lock while it reads the disk.
    A block is told as damaged once, and only if somebody can still ask for it.
Must not know: gRPC.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from memsvc.blocks import BlockRef
from memsvc.errors import MemsvcError, SessionNotFound, StorageFailed
from memsvc.lines import emit, session_tag
from memsvc.log_format import FILE_NAME
from memsvc.manifest import Manifest, SessionEntry
from memsvc.retention.compact import compact
from memsvc.retention.forget import Forgotten, forget_before
from memsvc.retention.policy import forgettable, position_past_bytes, position_put_before
from memsvc.session.core import SessionCore
from memsvc.session.folder import SessionFolder
from memsvc.settings import UpkeepSettings
from memsvc.storage import Machine
from memsvc.verify.findings import SessionReport
from memsvc.verify.log_scan import scan_log
from memsvc.verify.outline import Outline, outline_of
from memsvc.verify.reading import bytes_at, bytes_of
from memsvc.verify.segments import problem_of, segment_name
from memsvc.verify.session_check import check_session, promised_records, spec_of
from protos.memsvc.v1 import types_pb2

_LOGGER = logging.getLogger(__name__)
# Entries of the manifest that are read at once.
_PAGE_SIZE = 1000


@dataclass(frozen=True)
class _Known:
    """What a session's log says, and where its files are."""

    folder: Path
    spec: types_pb2.SessionSpec
    outline: Outline


class Upkeep:
    """Upkeep of the sessions of one data folder.

    Args:
        data: Where they lie.
        manifest: Which there are.
        corrupted: Told once a block that is found damaged.

    Concurrency: any calls may overlap; `round` is called by one thread.
    """

    def __init__(
        self,
        data: Path,
        manifest: Manifest,
        sessions: SessionFolder,
        settings: UpkeepSettings,
        machine: Machine,
        corrupted: Callable[[], None],
    ) -> None:
        self._data, self._manifest, self._sessions = data, manifest, sessions
        self._settings, self._machine = settings, machine
        self._corrupted = corrupted
        self._stopping = threading.Event()
        # Names of sessions that something left whose files are not compacted yet.
        self._due: set[str] = set()
        # By id of a session.
        self._damaged: dict[str, dict[BlockRef, str]] = {}

    def verify(self, name: str) -> SessionReport:
        """Reads all that a session stores, while it is used.

        Raises:
            SessionNotFound, DataLoss, StorageFailed, ManifestUnavailable.
        """
        with self._sessions.using(name) as session:
            core = session.core
            with core.files.put_lock, core.lock:
                core.require_open()
                log_bytes = core.files.log_bytes
            storage = self._machine.storage
            check = check_session(core.files.folder, core.entry, storage, log_bytes)
            # Blocks may have left meanwhile.
            wanted = set(_refs(core))
            segments = tuple(
                replace(own, lost=tuple(one for one in own.lost if one[0] in wanted)) for own in check.segments
            )
            return replace(check, segments=segments).report()

    def forget(self, name: str, position: int, why: str = "asked") -> tuple[Forgotten, bool]:
        """Lets go of a session's blocks that end at `position` or before; whether the disk has their room back.

        Raises:
            SessionNotFound, DataLoss, StorageFailed, ManifestUnavailable, StaleEpoch.
        """
        with self._sessions.using(name) as session:
            forgotten = forget_before(session.core, position, why)
        if not forgotten.blocks:
            return forgotten, False
        self._due.add(name)
        return forgotten, self.compact(name)

    def compact(self, name: str) -> bool:
        """Compacts a session's files; False while somebody is attached.

        Raises:
            SessionNotFound, DataLoss, StorageFailed, ManifestUnavailable.
        """
        with self._sessions.alone(name):
            entry = self._manifest.get(name)
            if entry is None:
                raise SessionNotFound(f"expected the name of a session, got {name[:160]!r}")
            if not self._sessions.rest(name):
                return False
            compact(self._place(entry), self._machine.storage)
        self._due.discard(name)
        return True

    def run(self) -> None:
        """Rounds until `stop`: the work of a thread of its own."""
        while not self._stopping.wait(self._settings.interval_s):
            self.round()

    def stop(self) -> None:
        """Ends `run`, within one block's reading."""
        self._stopping.set()

    def round(self) -> None:
        """Looks after every session once. What fails is logged, and the next session's turn comes."""
        for entry in self._entries():
            if self._stopping.is_set():
                return
            try:
                self._look_after(entry)
            except MemsvcError as error:
                tag = session_tag(entry.name)
                emit(_LOGGER, logging.WARNING, "upkeep_failed", error, session=tag, reason=error.reason)

    def _look_after(self, entry: SessionEntry) -> None:
        settings = self._settings
        if settings.keep_session_bytes or settings.keep_block_s:
            position = self._position_to_forget(self._known(entry))
            if position:
                self.forget(entry.name, position, "retention")
        if entry.name in self._due:
            self.compact(entry.name)
        if settings.scrub_bytes_per_s:
            self._scrub(entry)

    def _position_to_forget(self, known: _Known) -> int:
        """Before which blocks leave; 0 if none may."""
        settings, refs, position = self._settings, known.outline.blocks.refs(), 0
        if settings.keep_session_bytes:
            position = position_past_bytes(refs, settings.keep_session_bytes)
        if settings.keep_block_s:
            oldest = self._machine.clock.unix_ms() - 1000 * settings.keep_block_s
            position = max(position, position_put_before(refs, known.outline.stored_unix_ms, oldest))
        cuts = [known.outline.tail_position, *(cut for cut, _ in known.outline.snapshots.values())]
        return position if forgettable(refs, cuts, known.spec.fingerprint, position) else 0

    def _scrub(self, entry: SessionEntry) -> None:
        known, found = self._known(entry), self._damaged.setdefault(entry.id, {})
        for ref in known.outline.refs():
            if self._stopping.wait(ref.size_bytes / self._settings.scrub_bytes_per_s):
                return
            problem = self._problem(known.folder, ref)
            if not problem or ref in found or ref not in self._known(entry).outline.refs():
                continue
            found[ref] = problem
            self._corrupted()
            tag = session_tag(entry.name)
            emit(_LOGGER, logging.ERROR, "block_damaged", session=tag, reason="CORRUPT_BLOCK", problem=problem)
        for session in (own for own in self._sessions.loaded() if own.core.entry.id == entry.id):
            session.core.files.damage = f"{len(found)} damaged blocks, {min(found.values())}" if found else ""

    def _problem(self, folder: Path, ref: BlockRef) -> str:
        path = folder / segment_name(ref.segment)
        try:
            return problem_of(ref, bytes_at(path, ref.offset, ref.size_bytes, self._machine.storage))
        except StorageFailed as error:
            return str(error)

    def _entries(self) -> Iterator[SessionEntry]:
        """All sessions, in order of name. Raises ManifestUnavailable."""
        after = ""
        while page := self._manifest.list(after, _PAGE_SIZE):
            yield from page
            after = page[-1].name

    def _place(self, entry: SessionEntry) -> Path:
        return self._data / "sessions" / entry.id

    def _known(self, entry: SessionEntry) -> _Known:
        """What a session's log says now. Raises StorageFailed."""
        folder, storage = self._place(entry), self._machine.storage
        # A log that is damaged or gone tells nothing: opening the session says so.
        data = bytes_of(folder / FILE_NAME, storage) or b""
        records = promised_records(folder, scan_log(data, folder.name, growing=True), storage)
        spec = spec_of(records)
        if spec is None:
            return _Known(folder, types_pb2.SessionSpec(), Outline())
        return _Known(folder, spec, outline_of(records, spec))


def _refs(core: SessionCore) -> list[BlockRef]:
    """Every block that a reader of an open session can ask for."""
    with core.lock:
        cuts = [core.state.cut, *(own.cut for own in core.lineage.snapshots())]
        return [*core.state.blocks.refs(), *(cut.partial for cut in cuts if cut.partial is not None)]
