"""Recalls between being asked for and being forgotten.

    apply     the votes are counted and kept: PendingRecall
    ready     every block that the asker finished before is put or a gap
    recall    the candidates as of then, the scores, where links lead if they are followed, the answer; remembered for
              `explain` and for a repeated step

Invariant: votes are those of the tokens up to the one that asked, and links those of the bookmarks there were then,
whatever was applied since.
Must not know: locks; the session calls it under its own, but for `score` and `choose`, which look at no state.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from memsvc.choosing import RecallResult, Scores, choose, follow, tally
from memsvc.errors import RecallNotFound
from memsvc.geometry import BLOCK_TOKENS, visible_blocks_end
from memsvc.graph import BookmarkGraph
from memsvc.hops import Hop
from memsvc.session.block_table import BlockTable
from memsvc.shards.base import Int16Array, Int64Array
from memsvc.trail import BlockSearch, Trail
from memsvc.votes import TrailSettings, Votes
from protos.memsvc.v1 import memory_pb2


@dataclass(frozen=True)
class Seen:
    """What a recall may look at.

    Args:
        blocks: Table that the candidates come from.
        graph: Whose links may be followed.
        bookmarks: The first so many of it.
        position_end: Candidates hold tokens before it only: the cut of a view, the writer's own position.
        similarity_min: Least weight of a link.
        rows: Of the newest tokens by position, for an explanation of the walk; empty where links come from the finder.
    """

    blocks: BlockTable
    graph: BookmarkGraph
    bookmarks: int
    position_end: int
    similarity_min: float
    rows: Mapping[int, Int16Array]


@dataclass(frozen=True)
class PendingRecall:
    """A recall whose votes are counted and whose candidates are not.

    Args:
        attachment: Who asked.
        seq: Of the step that asked.
        asked_at: Position of its last token.
        ask: What it asked for.
        votes: Of the newest tokens.
        settings: Of the trail.
        seen: What it may look at.
        first_block: Candidates begin here.
        blocks_end: Candidates end before this one.
        deadline_s: Of `time.monotonic()`; later the answer is of no use.
        search_s: Seconds that the search for the votes took.
    """

    attachment: str
    seq: int
    asked_at: int
    ask: memory_pb2.RecallRequest
    votes: Votes
    settings: TrailSettings
    seen: Seen
    first_block: int
    blocks_end: int
    deadline_s: float
    search_s: float = field(compare=False)

    @property
    def ready(self) -> bool:
        """Whether blocks 0 to `ask.blocks_through`, exclusive, are put or gaps."""
        return self.seen.blocks.through >= self.ask.blocks_through

    def candidates(self) -> Int64Array:
        """Blocks that could be recalled now, ascending."""
        return self.seen.blocks.whole(self.first_block, self.blocks_end)

    def score(self, candidates: Int64Array) -> Scores:
        """What the votes say of the candidates."""
        return tally(self.votes, self.asked_at, candidates, self.settings)

    def follow(self, scores: Scores) -> tuple[Hop, ...]:
        """Where the hits' links lead; nowhere unless that was asked for."""
        seen = self.seen
        return follow(seen.graph, scores, self.ask, seen.similarity_min, seen.bookmarks)

    def choose(self, scores: Scores, hops: tuple[Hop, ...]) -> RecallResult:
        """The answer."""
        return choose(scores, self.ask, hops)

    def to_wire(self, result: RecallResult) -> memory_pb2.Recall:
        """The answer as it travels."""
        return memory_pb2.Recall(
            attachment=self.attachment,
            seq=self.seq,
            asked_at_position=result.asked_at,
            blocks=result.blocks,
            mean=result.mean,
            std=result.std,
            candidates=result.candidates,
        )


def count_votes(
    step: memory_pb2.Step, trail: Trail, search: BlockSearch, seen: Seen, deadline_s: float
) -> PendingRecall:
    """The recall that a step asks for, which its tokens were just added to the trail for."""
    settings, asked_at = trail.settings, step.first_position + step.count - 1
    resident_first = step.resident.first if step.HasField("resident") else math.inf
    if resident_first == math.inf:
        resident_first = BLOCK_TOKENS * visible_blocks_end(asked_at, settings.sink_tokens, settings.window_tokens)
    end = min(int(resident_first), seen.position_end, asked_at + 1) // BLOCK_TOKENS
    # A copy: a part of a message keeps all of it in memory, embeddings included.
    ask = memory_pb2.RecallRequest()
    ask.CopyFrom(step.recall)
    started_s = time.perf_counter()
    votes = trail.votes(asked_at, search)
    return PendingRecall(
        attachment=step.attachment,
        seq=step.seq,
        asked_at=asked_at,
        ask=ask,
        votes=votes,
        settings=settings,
        seen=seen,
        first_block=settings.sink_tokens // BLOCK_TOKENS,
        blocks_end=max(settings.sink_tokens // BLOCK_TOKENS, end),
        deadline_s=deadline_s,
        search_s=time.perf_counter() - started_s,
    )


class RememberedRecalls:
    """The newest recalls of a session, by who asked and in which step.

    Args:
        count: How many are kept.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._recalls: OrderedDict[tuple[str, int], tuple[PendingRecall, RecallResult | None]] = OrderedDict()

    def pending(self, attachment: str, seq: int) -> PendingRecall | None:
        """The recall that a step asked for, if it did and is still remembered."""
        known = self._recalls.get((attachment, seq))
        return known[0] if known else None

    def result(self, pending: PendingRecall) -> RecallResult | None:
        """What was answered, if anything yet."""
        known = self._recalls.get((pending.attachment, pending.seq))
        return known[1] if known else None

    def keep(self, pending: PendingRecall, result: RecallResult | None = None) -> None:
        """Remembers a recall, or its answer; the oldest gives way."""
        self._recalls[pending.attachment, pending.seq] = (pending, result)
        while len(self._recalls) > self._count:
            self._recalls.popitem(last=False)

    def forget(self, attachment: str) -> None:
        """Drops what an attachment asked: its steps are void, or its sequence numbers begin anew."""
        for key in [key for key in self._recalls if key[0] == attachment]:
            del self._recalls[key]

    def forget_past(self, position: int) -> None:
        """Drops what was asked after tokens at `position` or later were read: they are void."""
        for key in [key for key, (own, _) in self._recalls.items() if own.seen.position_end > position]:
            del self._recalls[key]

    def reconsider(self) -> None:
        """Drops every answer, but not what was asked: candidates may have left."""
        for key, (pending, _) in self._recalls.items():
            self._recalls[key] = (pending, None)

    def all_answered(self) -> list[tuple[PendingRecall, RecallResult]]:
        """Recalls that were answered, the newest first."""
        return [(pending, result) for pending, result in reversed(self._recalls.values()) if result is not None]

    def answered(self, asked_at: int | None) -> tuple[PendingRecall, RecallResult]:
        """The newest recall that was answered, as of the token at `asked_at` if that is given.

        Raises:
            RecallNotFound: None is remembered.
        """
        for pending, result in reversed(self._recalls.values()):
            if result is not None and asked_at in (None, pending.asked_at):
                return pending, result
        place = "any recall" if asked_at is None else f"a recall asked at position {asked_at}"
        raise RecallNotFound(f"expected {place} among the last {self._count}, got none that is remembered")
