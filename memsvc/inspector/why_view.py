"""Why a recall brought what it brought, with the passages that it speaks of.

Must not know: HTTP, templates.
"""

from collections.abc import Iterable

from memsvc.errors import RecallNotFound
from memsvc.geometry import BLOCK_TOKENS
from memsvc.inspector import rows
from memsvc.inspector.door import Reader
from memsvc.inspector.shapes import (
    CheckpointRow,
    FollowedRow,
    SearchRow,
    SessionRow,
    Token,
    VoteRow,
    WhyBlock,
    WhyView,
)
from memsvc.inspector.views import NEAR_TOKENS, passage, session_of
from memsvc.session.overview import columns_of, recalls_of
from memsvc.shards.base import Int64Array
from protos.memsvc.v1 import graph_pb2, memory_pb2

# Tokens that a trail goes back at most; what a session's spec allows is not more.
_TRAIL_TOKENS = 4096

_REACHED = {
    memory_pb2.REACHED_UNSPECIFIED: "below",
    memory_pb2.REACHED_TRAIL: "trail",
    memory_pb2.REACHED_NEIGHBOUR: "neighbour",
    memory_pb2.REACHED_FILL: "fill",
    memory_pb2.REACHED_HOP: "hop",
}


async def why_view(reader: Reader, name: str, asked_at: int | None) -> WhyView:
    """The recall asked at a position, or the newest. Raises RecallNotFound for a position without one."""
    session = await session_of(reader, name)
    recalls = rows.recall_rows(await reader.on_session(name, recalls_of))
    try:
        told = await reader.explanation(name, asked_at)
    except RecallNotFound:
        if asked_at is not None:
            raise
        return _nothing(session)
    positions = (await reader.on_session(name, columns_of)).positions
    at = told.recall.asked_at_position
    trail = rows.tokens_of(await reader.tokens(name, max(0, at - _TRAIL_TOKENS), _TRAIL_TOKENS + 1))
    by_position = {own.position: own for own in trail}
    blocks = [await _block(reader, name, own, by_position, positions) for own in (*told.chosen, *told.below_cut)]
    return WhyView(
        session=session,
        recalls=recalls,
        asked_at=at,
        asked=await passage(reader, name, at, NEAR_TOKENS // 2),
        mean=told.recall.mean,
        std=told.recall.std,
        candidates=told.recall.candidates,
        chosen=blocks[: len(told.chosen)],
        below=blocks[len(told.chosen) :],
        searches=[_search(own) for own in told.searches],
        finder_status=told.finder_status,
    )


def _nothing(session: SessionRow) -> WhyView:
    return WhyView(session, [], None, None, 0.0, 0.0, 0, [], [], [], "")


async def _block(
    reader: Reader, name: str, own: graph_pb2.ExplainedBlock, trail: dict[int, Token], positions: Int64Array
) -> WhyBlock:
    block, first = own.block, BLOCK_TOKENS * own.block.block
    read = await reader.tokens(name, first, BLOCK_TOKENS)
    return WhyBlock(
        block=block.block,
        first=first,
        score=block.score,
        z=block.z,
        reached=_REACHED[block.reached],
        via_block=block.via_block,
        bookmark=block.bookmark,
        path=list(block.path),
        votes=list(_votes(own.votes, trail, positions)),
        links=[FollowedRow(link.source, link.target, link.weight, link.worth) for link in own.links],
        passage=rows.cut(rows.tokens_of(read), first, first + BLOCK_TOKENS),
    )


def _votes(votes: Iterable[graph_pb2.Vote], trail: dict[int, Token], positions: Int64Array) -> Iterable[VoteRow]:
    for vote in votes:
        yield VoteRow(
            position=vote.position,
            token=trail.get(vote.position),
            bookmark=vote.bookmark,
            bookmark_position=int(positions[vote.bookmark]),
            stream=vote.stream,
            similarity=vote.similarity,
            cut=vote.cut,
            contribution=vote.contribution,
        )


def _search(own: graph_pb2.ExplainedSearch) -> SearchRow:
    return SearchRow(
        position=own.position,
        walked=list(own.walked),
        checkpoints=[CheckpointRow(one.bookmark, one.level, one.promise) for one in own.checkpoints],
        refined=list(own.refined),
        checkpoints_across=own.checkpoints_across,
        compared_across=own.compared_across,
        contents=list(own.contents),
        last_stage=own.last_stage,
        landed=own.landed if own.HasField("landed") else None,
        similarity=own.similarity,
    )
