"""Pictures that pages carry in their text, as paths and places: areas of counts, and the threads of a recall.

Must not know: HTTP, sessions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from memsvc.inspector.shapes import VoteRow, WhyBlock, WhyView

# Of the picture of a recall, in its own units.
WIDTH, HEIGHT = 1000, 250
_RAIL_TOP, _RAIL_BOTTOM = 58, 196
THREADS_MAX = 240
_THREAD_WIDEST, _THREAD_THINNEST = 7.0, 0.7


def area(counts: Sequence[int], width: float, height: float, most: int = 0) -> str:
    """The path of an area over counts, from the bottom up; `most` is what reaches the top, the largest if it is 0."""
    top = max(most, *counts, 1)
    step = width / max(1, len(counts))
    parts = [f"M0 {height:g}"]
    for at, value in enumerate(counts):
        level = height - height * value / top
        parts.append(f"L{at * step:.2f} {level:.2f}L{(at + 1) * step:.2f} {level:.2f}")
    return f"{''.join(parts)}L{width:g} {height:g}Z"


def mirrored(counts: Sequence[int], width: float, height: float, most: int = 0) -> str:
    """As `area`, from the top down."""
    top = max(most, *counts, 1)
    step = width / max(1, len(counts))
    parts = ["M0 0"]
    for at, value in enumerate(counts):
        level = height * value / top
        parts.append(f"L{at * step:.2f} {level:.2f}L{(at + 1) * step:.2f} {level:.2f}")
    return f"{''.join(parts)}L{width:g} 0Z"


@dataclass(frozen=True)
class Thread:
    """One vote as a curve, from the token below to the bookmark above."""

    path: str
    width: float
    block: int
    reached: str


@dataclass(frozen=True)
class Mark:
    """A block on the upper rail, or a token on the lower one; `weight` is its share of the largest, up to 1."""

    x: float
    width: float
    weight: float
    block: int
    reached: str
    position: int


@dataclass(frozen=True)
class Loom:
    """The picture of a recall: blocks above, the tokens that voted below, threads between them."""

    width: int
    height: int
    top: int
    bottom: int
    threads: list[Thread]
    blocks: list[Mark]
    tokens: list[Mark]
    first_voter: int
    last_voter: int
    end: int


def loom(view: WhyView) -> Loom:
    """The picture of a recall that there is."""
    assert view.asked_at is not None
    end = max(1, view.asked_at + 1)
    votes = sorted(
        ((vote, own) for own in (*view.chosen, *view.below) for vote in own.votes),
        key=lambda pair: -pair[0].contribution,
    )[:THREADS_MAX]
    voters = sorted({vote.position for vote, _ in votes}) or [view.asked_at]
    first, last = min(voters[0], view.asked_at), view.asked_at
    largest = max((vote.contribution for vote, _ in votes), default=1.0) or 1.0

    def below(position: int) -> float:
        return 60 + (WIDTH - 120) * (position - first) / max(1, last - first)

    threads = [_thread(vote, own, below(vote.position), end, largest) for vote, own in reversed(votes)]
    given: dict[int, float] = {}
    for vote, _ in votes:
        given[vote.position] = given.get(vote.position, 0.0) + vote.contribution
    most = max(given.values(), default=1.0) or 1.0
    score = max((own.score for own in view.chosen), default=1.0) or 1.0
    blocks = [
        Mark(
            WIDTH * own.first / end,
            max(3.0, WIDTH * 64 / end),
            min(1.0, own.score / score),
            own.block,
            own.reached,
            own.first,
        )
        for own in reversed((*view.chosen, *view.below))
    ]
    tokens = [Mark(below(at), 0.0, given.get(at, 0.0) / most, -1, "", at) for at in voters]
    return Loom(WIDTH, HEIGHT, _RAIL_TOP, _RAIL_BOTTOM, threads, blocks, tokens, first, last, end)


def _thread(vote: VoteRow, own: WhyBlock, x: float, end: int, largest: float) -> Thread:
    above = WIDTH * (vote.bookmark_position + 0.5) / end
    middle = (_RAIL_TOP + _RAIL_BOTTOM) / 2
    path = f"M{x:.1f} {_RAIL_BOTTOM}C{x:.1f} {middle:.0f} {above:.1f} {middle:.0f} {above:.1f} {_RAIL_TOP}"
    width = max(_THREAD_THINNEST, _THREAD_WIDEST * vote.contribution / largest)
    return Thread(path, round(width, 2), own.block, own.reached)
