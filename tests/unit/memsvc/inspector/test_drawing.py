"""Pictures as paths."""

import re

from memsvc.inspector import drawing
from memsvc.inspector.shapes import Passage, SessionRow, VoteRow, WhyBlock, WhyView

SESSION = SessionRow("book", 1000, 0, 100, 3, 0, 15, 0, "", 0, "flat", 0, 0, "", "id", [], [])


def _numbers(path: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?", path)]


def _block(block: int, reached: str, *votes: VoteRow) -> WhyBlock:
    return WhyBlock(block, 64 * block, 1.0, 1.0, reached, block, -1, [], list(votes), [], Passage(0, 0, []))


def _view(*blocks: WhyBlock) -> WhyView:
    return WhyView(SESSION, [], 900, None, 0.0, 1.0, 10, list(blocks), [], [], "flat")


def test_an_area_stays_within_its_picture() -> None:
    """Proves that the largest count reaches the top, none the bottom, and nothing lies outside."""
    numbers = _numbers(drawing.area([0, 5, 10], 30, 20))
    assert (min(numbers), max(numbers)) == (0, 30)
    assert max(_numbers(drawing.mirrored([0, 5, 10], 30, 20))[1::2]) == 20
    assert drawing.area([], 30, 20) == "M0 20L30 20Z"


def test_a_recall_that_nothing_voted_for_has_a_picture() -> None:
    """Proves that blocks stand where they are without a thread."""
    loom = drawing.loom(_view(_block(2, "fill")))
    assert (loom.threads, len(loom.blocks), loom.first_voter) == ([], 1, 900)


def test_threads_are_as_wide_as_their_votes_and_limited() -> None:
    """Proves that of many votes the largest are drawn, the strongest last and widest."""
    votes = [VoteRow(800 + at % 100, None, at, at, "probe", 0.5, 0.1, 1 + at) for at in range(2 * drawing.THREADS_MAX)]
    loom = drawing.loom(_view(_block(2, "trail", *votes)))
    widths = [thread.width for thread in loom.threads]
    assert len(widths) == drawing.THREADS_MAX
    assert widths == sorted(widths)
    assert all(0 <= mark.x <= loom.width for mark in (*loom.blocks, *loom.tokens))
