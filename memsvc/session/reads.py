"""Reading a session: bookmarks, links, token ids, and why something was recalled. Changes nothing.

Must not know: locks, attachments, disks.
"""

from collections.abc import Sequence

from memsvc.errors import BookmarkNotFound, InvalidRequest, LimitExceeded
from memsvc.graph import Bookmark, BookmarkGraph
from memsvc.session.ranges import to_wire
from memsvc.session.recalls import PendingRecall
from memsvc.session.tokens import TokenRead
from memsvc.trail import RecallResult
from protos.memsvc.v1 import graph_pb2, types_pb2

BOOKMARKS_MAX = 10_000
BOOKMARKS_DEFAULT = 1000
HOPS_MAX = 64
READ_TOKENS_MAX = 100_000
# Chains whose heads a graph begins with where no seeds are named.
SEED_CHAINS = 32


def bookmarks_from(graph: BookmarkGraph, first: int, count: int) -> list[Bookmark]:
    """Bookmarks of consecutive indices; fewer at the end. Raises LimitExceeded."""
    end = min(len(graph), first + _count(count, "count"))
    return graph.bookmarks(range(first, end))


def bookmarks_around(graph: BookmarkGraph, seeds: Sequence[int], hops: int, limit: int) -> list[Bookmark]:
    """The seeds and what lies within `hops` links of them; heads of the newest chains if no seeds are named.

    Raises:
        LimitExceeded, BookmarkNotFound.
    """
    most = _count(limit, "bookmarks_max")
    if hops > HOPS_MAX:
        raise LimitExceeded(f"expected hops of at most {HOPS_MAX}, got {hops}")
    if len(seeds) > BOOKMARKS_MAX:
        raise LimitExceeded(f"expected at most {BOOKMARKS_MAX} seeds, got {len(seeds)}")
    # Larger ones are refused here: the graph counts in signed 64 bits.
    if past := [seed for seed in seeds if seed >= len(graph)]:
        raise BookmarkNotFound(f"expected a bookmark index below {len(graph)}, got {past[0]}")
    chosen = list(seeds) or graph.chains.heads()[: -SEED_CHAINS - 1 : -1].tolist()
    return graph.bookmarks(graph.expand(chosen, hops, most))


def check_token_range(positions: types_pb2.Range) -> None:
    """Raises InvalidRequest for a range that is too long."""
    if positions.count > READ_TOKENS_MAX:
        raise InvalidRequest(f"expected a range of at most {READ_TOKENS_MAX} positions, got {positions.count}")


def bookmarks_to_wire(bookmarks: list[Bookmark]) -> list[graph_pb2.Bookmark]:
    """Bookmarks as they travel."""
    return [
        graph_pb2.Bookmark(
            index=own.index,
            position=own.position,
            block=own.block,
            chain=own.chain,
            links=[graph_pb2.Link(parent=link.parent, weight=link.weight) for link in own.links],
            signal=own.signal,
            forced=own.forced,
        )
        for own in bookmarks
    ]


def tokens_to_wire(read: TokenRead) -> graph_pb2.ReadTokensResponse:
    """Token ids as they travel."""
    return graph_pb2.ReadTokensResponse(ids=read.ids.astype("<u4").tobytes(), positions=to_wire(read.positions))


def explanation(pending: PendingRecall, result: RecallResult) -> graph_pb2.ExplainResponse:
    """Why a recall chose what it chose."""
    return graph_pb2.ExplainResponse(
        recall=pending.to_wire(result),
        chosen=[result.explain(block) for block in result.blocks],
        below_cut=[result.explain(block) for block in result.below_cut],
    )


def _count(count: int, field: str) -> int:
    if count > BOOKMARKS_MAX:
        raise LimitExceeded(f"expected {field} of at most {BOOKMARKS_MAX}, got {count}")
    return count or BOOKMARKS_DEFAULT
