"""What fixes a dictionary and a find, checked where it is made."""

import math
from dataclasses import dataclass

from memsvc.errors import InvalidRequest

# Bookmarks of one segment at most, whatever the settings: sums of so many lattice vectors fit in int32.
SEGMENT_MAX = 1 << 18


@dataclass(frozen=True)
class DictionarySettings:
    """Where checkpoints stand.

    Args:
        every: Bookmarks of a list from one checkpoint to the next at most; 0 switches this off.
        boundary: A bookmark whose similarity to the running mean of its segment is below this begins a new one, in
            [-1, 1]; None switches this off.
        skip: Each level keeps every skip-th checkpoint of the one below.

    Raises:
        InvalidRequest: A value is out of range, or both ways are switched off.
    """

    every: int = 16
    boundary: float | None = None
    skip: int = 8

    def __post_init__(self) -> None:
        _require(0 <= self.every <= SEGMENT_MAX, "dictionary.every", f"0 to {SEGMENT_MAX}", self.every)
        inside = self.boundary is None or -1 <= self.boundary <= 1
        _require(inside, "dictionary.boundary", "in [-1, 1], or None", self.boundary)
        _require(self.every > 0 or self.boundary is not None, "dictionary.every", "at least 1 without a boundary", 0)
        _require(2 <= self.skip <= 1024, "dictionary.skip", "2 to 1024", self.skip)


@dataclass(frozen=True)
class TopicalSettings:
    """How wide the dictionary by topic is (see `memsvc.dictionary.topical`).

    Args:
        fan: Bookmarks of a segment, and nodes right below another, at most.
        kin: Kin that are chosen for a bookmark at most.
        width: Best bookmarks whose kin a search has looked at when it ends; a search for more of them is wider.

    Raises:
        InvalidRequest: A value is out of range.
    """

    fan: int = 32
    kin: int = 16
    width: int = 48

    def __post_init__(self) -> None:
        _require(8 <= self.fan <= 1024, "dictionary.fan", "8 to 1024", self.fan)
        _require(4 <= self.kin <= 128, "dictionary.kin", "4 to 128", self.kin)
        _require(1 <= self.width <= 1 << 20, "dictionary.width", f"1 to {1 << 20}", self.width)


@dataclass(frozen=True)
class FindSettings:
    """How a bookmark is looked for in the source's order.

    Args:
        relevant: Similarity from which on a bookmark is relevant: the walk stops at one, and only such are parents.
        sure: Similarity of the best bookmark compared so far from which on a find is sure, and looks no further. Equal
            to `relevant`, each stage runs only if those before it found nothing relevant; above 1, every stage runs.
        walk_links: Bookmarks that the walk goes back along the chain at most.
        refine: Bookmarks to each side that are compared around where the walk ended, and around a checkpoint's segment.
        checkpoints: Best checkpoints of a chain to refine around.
        contents_chains: Best chains of the table of contents to look into.
        parents: Parents kept at most.

    Raises:
        InvalidRequest: A value is out of range.
    """

    relevant: float = 0.4
    sure: float = 0.4
    walk_links: int = 4
    refine: int = 8
    checkpoints: int = 2
    contents_chains: int = 4
    parents: int = 4

    def __post_init__(self) -> None:
        _require(-1 <= self.relevant <= 1, "find.relevant", "in [-1, 1]", self.relevant)
        sure = math.isfinite(self.sure) and self.sure >= self.relevant
        _require(sure, "find.sure", f"finite, at least find.relevant ({self.relevant})", self.sure)
        for name, least in (
            ("walk_links", 0),
            ("refine", 0),
            ("checkpoints", 1),
            ("contents_chains", 0),
            ("parents", 1),
        ):
            value = getattr(self, name)
            _require(least <= value <= 1024, f"find.{name}", f"{least} to 1024", value)


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise InvalidRequest(f"expected {name} to be {expected}, got {came}")
