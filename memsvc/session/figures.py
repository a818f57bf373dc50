"""How the open sessions are, in figures that are cheap to take.

Concurrency: without the session's lock, so that nobody waits for a step; a figure may be a moment old.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from memsvc.session.core import SessionCore
from memsvc.session.session import Session


@dataclass(frozen=True)
class OpenFigures:
    """Of all sessions in memory.

    Args:
        states: How many are `writing` (a writer is there), `reading` (views only), `idle`, or `failed` (a write was
            refused: they take no more).
        unsynced_bytes: Of logs and blocks, that a power loss now would take.
    """

    states: Counter[str]
    unsynced_bytes: int


def figures_of(sessions: Iterable[Session]) -> OpenFigures:
    """The figures of these sessions."""
    cores = [session.core for session in sessions]
    return OpenFigures(Counter(map(_state, cores)), sum(core.files.unsynced_bytes for core in cores))


def _state(core: SessionCore) -> str:
    writer = core.writer
    if core.failure or core.files.failure:
        return "failed"
    if writer is not None and not writer.lost:
        return "writing"
    return "reading" if core.views else "idle"
