"""What must hold of the answer to a recall, whoever asked: of real ones beside a model."""

from dataclasses import dataclass

from memsvc.hops import PASSAGE_TOKENS
from memsvc.session import PendingRecall, Session
from protos.memsvc.v1 import memory_pb2
from tests.property.session_model import Model, expected_recall, hits_kept


@dataclass(frozen=True)
class Asked:
    """A recall that waits for its answer, and what decides about that.

    Attributes:
        votes: As of the token that asked.
        total: Bookmarks that it could see.
    """

    pending: PendingRecall
    ask: memory_pb2.RecallRequest
    votes: list[tuple[int, float, int]]
    total: int
    position_end: int
    resident_first: int | None


def check_answer(session: Session, asked: Asked, model: Model, stored: Model, exact: bool) -> None:
    """Answers a recall: of what was put by now, within the budget, and of nothing else.

    Args:
        model: What the asker sees.
        stored: Whose blocks may be recalled: the session's, or a view's own cut.
        exact: Whether it must be that of a comparison with everything.
    """
    assert session.recall_ready(asked.pending) is (stored.through >= asked.ask.blocks_through)
    recall = session.recall(asked.pending)
    assert session.recall(asked.pending) == recall
    asked_at = asked.pending.asked_at
    candidates = stored.candidates(asked_at, asked.position_end, asked.resident_first)
    assert (recall.asked_at_position, recall.candidates) == (asked_at, len(candidates))
    blocks = [own.block for own in recall.blocks]
    assert len(set(blocks)) == len(blocks) <= asked.ask.budget_blocks
    assert set(blocks) <= set(candidates)
    for own in recall.blocks:
        assert own.via_block in candidates
        assert -1 <= own.bookmark < asked.total
        if own.bookmark >= 0:
            assert model.bookmarks[own.bookmark].block == own.block
    if asked.ask.HasField("hops"):
        _check_hops(recall, asked, model)
    if exact:
        expected, mean, std = expected_recall(asked.votes, candidates, asked.ask)
        assert (recall.mean, recall.std) == (mean, std)
        kept = hits_kept(asked.ask)
        if kept is None:
            assert list(recall.blocks) == expected
        else:
            assert list(recall.blocks[: min(kept, len(candidates))]) == expected[:kept]
    explained = session.explain(asked_at)
    assert explained.recall.asked_at_position == asked_at
    if (explained.recall.attachment, explained.recall.seq) == (recall.attachment, recall.seq):
        assert explained.recall == recall
        assert {own.block.block for own in explained.below_cut} <= set(candidates) - set(blocks)


def _check_hops(recall: memory_pb2.Recall, asked: Asked, model: Model) -> None:
    """Hops lead from hits that stay over links there are to other candidates, and take their places alone."""
    ask, marks = asked.ask, model.bookmarks
    hopped = [own for own in recall.blocks if own.reached == memory_pb2.REACHED_HOP]
    direct = (memory_pb2.REACHED_TRAIL, memory_pb2.REACHED_FILL)
    hits = [own.block for own in recall.blocks if own.reached in direct]
    assert len(hopped) <= ask.hops.blocks
    assert len(hits) >= min(hits_kept(ask) or 0, recall.candidates)
    for own in hopped:
        path = list(own.path)
        assert len(path) in range(2, 2 * ask.hops.hops + 1, 2)
        assert max(path) < asked.total
        assert (own.block, path[-1]) == (marks[path[-1]].block, own.bookmark)
        assert own.via_block in hits
        for source, target in zip(path[::2], path[1::2], strict=True):
            child, parent = max(source, target), min(source, target)
            assert parent in [link.parent for link in marks[child].links]
        for target, source in zip(path[1:-1:2], path[2::2], strict=True):
            assert abs(marks[target].position - marks[source].position) <= PASSAGE_TOKENS
