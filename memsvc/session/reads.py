"""Reading a session: bookmarks, links, token ids, and why something was recalled. Changes nothing.

Must not know: locks, attachments, disks.
"""

from collections.abc import Sequence

from memsvc.choosing import RecallResult
from memsvc.dictionary.find import Found
from memsvc.errors import BookmarkNotFound, InvalidRequest, LimitExceeded
from memsvc.graph import Bookmark, BookmarkGraph
from memsvc.session.links import Links
from memsvc.session.ranges import to_wire
from memsvc.session.recalls import PendingRecall
from memsvc.session.tokens import TokenRead
from protos.memsvc.v1 import graph_pb2, types_pb2

BOOKMARKS_MAX = 10_000
BOOKMARKS_DEFAULT = 1000
HOPS_MAX = 64
READ_TOKENS_MAX = 100_000
# Chains whose heads a graph begins with where no seeds are named.
SEED_CHAINS = 32
# Searches that an explanation makes again.
SEARCHES_MAX = 8


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
    told = graph_pb2.ReadTokensResponse(ids=read.ids.astype("<u4").tobytes(), positions=to_wire(read.positions))
    if read.text is not None:
        told.text, told.text_sizes = read.text.data, read.text.sizes.astype("<u4").tobytes()
    return told


def explanation(
    pending: PendingRecall, result: RecallResult, searches: Sequence[graph_pb2.ExplainedSearch], finder_status: str
) -> graph_pb2.ExplainResponse:
    """Why a recall chose what it chose."""
    return graph_pb2.ExplainResponse(
        recall=pending.to_wire(result),
        chosen=[result.explain(block) for block in result.blocks],
        below_cut=[result.explain(block) for block in result.below_cut],
        finder_status=finder_status,
        searches=searches,
    )


def searches(pending: PendingRecall, result: RecallResult, links: Links) -> list[graph_pb2.ExplainedSearch]:
    """How the walk goes for the tokens of the largest votes; none where links come from the finder."""
    strongest = [result.explain(block).votes[:1] for block in result.blocks]
    positions = dict.fromkeys(vote.position for votes in strongest for vote in votes)
    rows = pending.seen.rows
    known = [position for position in positions if position in rows][:SEARCHES_MAX]
    found = [(position, links.explain(rows[position], pending.seen.bookmarks)) for position in known]
    return [_search(position, one) for position, one in found if one is not None]


def _search(position: int, found: Found) -> graph_pb2.ExplainedSearch:
    trace = found.trace
    return graph_pb2.ExplainedSearch(
        position=position,
        walked=trace.walked,
        checkpoints=[
            graph_pb2.VisitedCheckpoint(bookmark=visit.checkpoint, level=visit.level, promise=visit.promise)
            for visit in trace.visits
        ],
        refined=trace.refined,
        checkpoints_across=trace.nodes_across,
        compared_across=trace.compared_across,
        contents=trace.contents,
        last_stage=trace.last.value,
        landed=found.landed.parent if found.landed else None,
        similarity=found.landed.weight if found.landed else 0.0,
    )


def _count(count: int, field: str) -> int:
    if count > BOOKMARKS_MAX:
        raise LimitExceeded(f"expected {field} of at most {BOOKMARKS_MAX}, got {count}")
    return count or BOOKMARKS_DEFAULT
