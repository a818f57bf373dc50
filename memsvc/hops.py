"""Multi-hop recall: from the bookmarks that a search hit along their links to others, within a budget.

A path is worth the hit's score times, for each link, the link's weight (faded by its age, if wished) times `keep`. A
bookmark is worth the best of its shortest paths. Links are followed both ways: what leads on may have been read earlier
or later.

Invariants:
    A link keeps at most the score it was reached with, so a bookmark never outdoes what led to it.
    Per block one hop, its best bookmark, and none for the blocks of the hits themselves.
    The result is a function of graph, cut, hits and settings; ties go to the newer bookmark.
Must not know: embeddings, sessions, I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memsvc.errors import BookmarkNotFound, InvalidRequest
from memsvc.graph import BookmarkGraph, faded

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

# Bookmarks that one hop goes on from at most, the best ones.
_FRONTIER_MAX = 1024


@dataclass(frozen=True)
class HopSettings:
    """How far recall follows links.

    Args:
        hops: Links of a path at most; 0 switches hops off.
        blocks: Blocks returned at most.
        keep: Share of the score that a link keeps, in (0, 1].
        weight_min: Links below this weight are not followed, in [0, 1].
        half_life_tokens: Tokens in which a link's weight halves; 0 for no fading.

    Raises:
        InvalidRequest: A value is out of range.
    """

    hops: int = 1
    blocks: int = 4
    keep: float = 0.5
    weight_min: float = 0.0
    half_life_tokens: int = 0

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("hops", 0 <= self.hops <= 16, "0 to 16"),
            ("blocks", 0 <= self.blocks <= 4096, "0 to 4096"),
            ("keep", 0 < self.keep <= 1, "in (0, 1]"),
            ("weight_min", 0 <= self.weight_min <= 1, "in [0, 1]"),
            ("half_life_tokens", self.half_life_tokens >= 0, "at least 0"),
        ):
            if not holds:
                raise InvalidRequest(f"expected hops.{name} to be {expected}, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Hop:
    """A block that links lead to.

    Args:
        bookmark: The best bookmark of the block.
        score: What its path is worth.
        path: Bookmarks from the hit to `bookmark`, both included.
    """

    block: int
    bookmark: int
    score: float
    path: tuple[int, ...]


def hop_from(
    graph: BookmarkGraph, hits: Mapping[int, float], settings: HopSettings, total: int | None = None
) -> tuple[Hop, ...]:
    """Blocks that the hits' links lead to, best first.

    Args:
        hits: Score of each bookmark that a search hit; those of at most 0 lead nowhere.
        total: The cut: only the first so many bookmarks; all if None.

    Raises:
        BookmarkNotFound: A hit lies past the cut.

    Cost: a hop reads the part of the link table that is newer than its oldest bookmark, 20 to 45 ms for a million
    bookmarks of 4 links.
    """
    end = len(graph) if total is None else total
    for past in (hit for hit in hits if not 0 <= hit < end):
        raise BookmarkNotFound(f"expected a bookmark index from 0 to {end - 1}, got {past}")
    scores, origin = np.full(end, -np.inf), np.full(end, -1)
    own = np.array(sorted(hits), dtype=np.int64)
    scores[own] = [hits[hit] for hit in own.tolist()]
    frontier = own[scores[own] > 0]
    for _ in range(settings.hops):
        if not len(frontier):
            break
        frontier = _follow(graph, _best(frontier, scores, _FRONTIER_MAX), scores, origin, settings)
    return _blocks(graph.blocks(total), own, scores, origin, settings.blocks)


def _follow(
    graph: BookmarkGraph, frontier: Int64Array, scores: Float64Array, origin: Int64Array, settings: HopSettings
) -> Int64Array:
    """Takes one hop from the frontier; returns the bookmarks that were reached, ascending."""
    end = len(scores)
    parents, weights = graph.links(end)
    oldest = int(frontier.min())
    entered = np.zeros(end + 1, dtype=np.bool_)
    entered[frontier] = True
    # The parent -1 is the last flag, which stays off.
    children, column = np.divmod(np.flatnonzero(entered[parents[oldest:]]), parents.shape[1])
    children += oldest
    ahead, slot = np.nonzero(parents[frontier] >= 0)
    source = np.concatenate([parents[children, column], frontier[ahead]])
    target = np.concatenate([children, parents[frontier[ahead], slot]])
    weight = np.concatenate([weights[children, column], weights[frontier[ahead], slot]])
    # A link is as old as the younger of its ends.
    positions = graph.positions(end)
    weight = faded(weight, positions[-1] - positions[np.maximum(source, target)], settings.half_life_tokens)
    leads = (weight >= settings.weight_min) & (weight > 0) & (scores[target] == -np.inf)
    source, target = source[leads], target[leads]
    worth = scores[source] * np.minimum(weight[leads], 1.0) * settings.keep
    # The best of each target comes last, of equal ones the one from the newest source; numpy keeps the last.
    order = np.lexsort((source, worth))
    scores[target[order]] = worth[order]
    origin[target[order]] = source[order]
    return np.unique(target)


def _best(bookmarks: Int64Array, scores: Float64Array, count: int) -> Int64Array:
    return bookmarks[np.lexsort((-bookmarks, -scores[bookmarks]))[:count]]


def _blocks(
    block_of: Int64Array, own: Int64Array, scores: Float64Array, origin: Int64Array, count: int
) -> tuple[Hop, ...]:
    """The best bookmark of each block that was reached and not hit, best first."""
    reached = np.flatnonzero((origin >= 0) & ~np.isin(block_of, block_of[own]))
    chosen: dict[int, Hop] = {}
    for bookmark in _best(reached, scores, len(reached)).tolist():
        block = int(block_of[bookmark])
        if len(chosen) == count:
            break
        if block not in chosen:
            chosen[block] = Hop(block, bookmark, float(scores[bookmark]), _path(bookmark, origin))
    return tuple(chosen.values())


def _path(bookmark: int, origin: Int64Array) -> tuple[int, ...]:
    path = [bookmark]
    while (before := int(origin[path[-1]])) >= 0:
        path.append(before)
    return tuple(reversed(path))
