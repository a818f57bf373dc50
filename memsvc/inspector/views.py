"""The views of sessions and their bookmarks: what a page shows, read for one caller.

Must not know: HTTP, templates.
"""

import time
from collections.abc import Sequence

import numpy as np

from memsvc.errors import BookmarkNotFound
from memsvc.geometry import BLOCK_TOKENS
from memsvc.inspector import rows, timeline
from memsvc.inspector.door import Reader
from memsvc.inspector.shapes import (
    NODES_MAX,
    PASSAGE_TOKENS_MAX,
    BookmarkView,
    LinkRow,
    LiveView,
    NodeColumns,
    Passage,
    SessionRow,
    SessionsView,
    TimelineView,
)
from memsvc.session import Session
from memsvc.session.overview import BookmarkColumns, RecallSummary, columns_of, recalls_of
from memsvc.shards.base import Int64Array

# Parts of a range, and of a whole session, that a timeline counts.
PARTS = 480
WHOLE_PARTS = 240
# Links that a bookmark's page shows each way.
LINKS_SHOWN = 24
# Tokens to each side of a bookmark: of the one that is looked at, and of others.
NEAR_TOKENS = 48
BRIEF_TOKENS = 12
# Newest bookmarks of a live view, and the newest tokens that it counts.
NEWEST = 10
LIVE_TOKENS = 1 << 15


async def sessions_view(reader: Reader, after: str, count: int) -> SessionsView:
    """A page of sessions."""
    listed = await reader.sessions(after, count)
    return SessionsView([rows.session_row(own) for own in listed.sessions], listed.next_page_token)


async def session_of(reader: Reader, name: str) -> SessionRow:
    """One session in figures."""
    return rows.session_row((await reader.session(name)).session)


async def timeline_view(reader: Reader, name: str, first: int, count: int) -> TimelineView:
    """A range of positions; to the end if `count` is 0."""
    session = await session_of(reader, name)

    def look(own: Session) -> tuple[BookmarkColumns, tuple[RecallSummary, ...]]:
        return columns_of(own), recalls_of(own)

    columns, recalls = await reader.on_session(name, look)
    length = max(session.tokens, session.tail_position, 1)
    start = min(first, length - 1)
    end = min(length, start + count) if count else length
    near: Passage | None = None
    if end - start <= PASSAGE_TOKENS_MAX:
        near = rows.cut(rows.tokens_of(await reader.tokens(name, start, end - start)), start, end)

    def draw() -> TimelineView:
        places = columns.positions
        blocks = [own.blocks for own in recalls]
        height = timeline.heights(columns.chains)
        chosen, least = timeline.shown(places, height, start, end, NODES_MAX)
        return TimelineView(
            session=session,
            first=start,
            count=end - start,
            whole=timeline.binned(places, 0, length, WHOLE_PARTS, blocks),
            bins=timeline.binned(places, start, end, PARTS, blocks),
            nodes=node_columns(columns, height, chosen),
            least_height=least,
            checkpoints_every=timeline.checkpoints_every(),
            recalls=rows.recall_rows(recalls),
            passage=near,
        )

    return await reader.door.run(draw)


def node_columns(columns: BookmarkColumns, height: Int64Array, chosen: Int64Array) -> NodeColumns:
    """Some bookmarks by column."""
    children = timeline.children_counts(columns.parents)
    return NodeColumns(
        index=chosen.tolist(),
        position=columns.positions[chosen].tolist(),
        chain=columns.chains[chosen].tolist(),
        height=height[chosen].tolist(),
        children=children[chosen].tolist(),
    )


async def passage(reader: Reader, name: str, position: int, near: int) -> Passage:
    """The tokens around a position."""
    first = max(0, position - near)
    read = await reader.tokens(name, first, position + near + 1 - first)
    return rows.cut(rows.tokens_of(read), first, position + near + 1)


async def bookmark_view(reader: Reader, name: str, index: int) -> BookmarkView:
    """One bookmark. Raises BookmarkNotFound."""
    session = await session_of(reader, name)
    listed = (await reader.bookmarks(name, index, 1)).bookmarks
    if not listed:
        raise BookmarkNotFound(f"expected a bookmark index below {session.bookmarks}, got {index}")
    own = listed[0]
    columns = await reader.on_session(name, columns_of)
    recalls = await reader.on_session(name, recalls_of)
    later = np.argwhere(columns.parents == index)
    weights = columns.weights[later[:, 0], later[:, 1]]
    strongest = np.argsort(-weights, kind="stable")[:LINKS_SHOWN]
    children = [(int(later[at, 0]), float(weights[at])) for at in strongest]
    parents = [(link.parent, link.weight) for link in own.links[:LINKS_SHOWN]]
    return BookmarkView(
        session=session,
        index=index,
        position=own.position,
        block=own.block,
        chain=own.chain,
        signal=own.signal,
        forced=own.forced,
        passage=await passage(reader, name, own.position, NEAR_TOKENS),
        parents=await link_rows(reader, name, columns, parents),
        children=await link_rows(reader, name, columns, children),
        recalled_at=[recall.asked_at for recall in recalls if own.block in recall.blocks],
    )


async def link_rows(
    reader: Reader, name: str, columns: BookmarkColumns, ends: Sequence[tuple[int, float]]
) -> list[LinkRow]:
    """Bookmarks at the ends of links, each with its weight."""
    found = []
    for index, weight in ends:
        position, chain = int(columns.positions[index]), int(columns.chains[index])
        brief = await passage(reader, name, position, BRIEF_TOKENS)
        found.append(LinkRow(index, position, chain, weight, brief))
    return found


async def live_view(reader: Reader, name: str) -> LiveView:
    """A session at this moment."""
    session = await session_of(reader, name)
    columns = await reader.on_session(name, columns_of)
    recalls = await reader.on_session(name, recalls_of)
    newest = range(len(columns.positions) - 1, max(-1, len(columns.positions) - 1 - NEWEST), -1)
    end = max(session.tokens, session.tail_position)
    first = max(0, end - LIVE_TOKENS) // BLOCK_TOKENS * BLOCK_TOKENS
    strongest = [(index, float(columns.weights[index].max(initial=0.0))) for index in newest]
    return LiveView(
        session=session,
        unix_ms=time.time_ns() // 1_000_000,
        newest=await link_rows(reader, name, columns, strongest),
        recalls=rows.recall_rows(recalls)[:NEWEST],
        bins=timeline.binned(columns.positions, first, max(end, first + 1), PARTS // 4, [r.blocks for r in recalls]),
    )
