"""What a whole session looks like from afar: all its bookmarks as arrays, and the recalls that it remembers.

Changes nothing. The arrays stay as they are while the session grows, so whoever has them looks at them without a lock.
Must not know: who looks, and how it is shown.
"""

from dataclasses import dataclass

from memsvc.session.session import Session
from memsvc.shards.base import Float32Array, Int64Array


@dataclass(frozen=True)
class BookmarkColumns:
    """All bookmarks of a session at one moment, by index.

    Args:
        positions: [n], ascending.
        chains: [n].
        parents: [n, links_max], strongest first; -1 for none.
        weights: Similarities of these links, [n, links_max].
    """

    positions: Int64Array
    chains: Int64Array
    parents: Int64Array
    weights: Float32Array


@dataclass(frozen=True)
class RecallSummary:
    """One recall that is remembered.

    Args:
        asked_at: Position of the last token that voted.
        blocks: Best first.
        best_z: Highest standardised score; 0 if it brought nothing.
    """

    asked_at: int
    blocks: tuple[int, ...]
    best_z: float


def columns_of(session: Session) -> BookmarkColumns:
    """The bookmarks of now."""
    with session.core.lock:
        graph = session.core.state.graph
        parents, weights = graph.links()
        return BookmarkColumns(graph.positions(), graph.chains.of_bookmarks(), parents, weights)


def recalls_of(session: Session) -> tuple[RecallSummary, ...]:
    """Recalls that were answered and are remembered, the newest first."""
    with session.core.lock:
        known = session.core.remembered.all_answered()
    return tuple(
        RecallSummary(
            pending.asked_at,
            tuple(own.block for own in result.blocks),
            max((own.z for own in result.blocks), default=0.0),
        )
        for pending, result in known
    )
