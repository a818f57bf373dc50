"""The bookmarks of a session and the links between them: a weighted graph whose edges point to the past.

Invariants:
    Bookmarks are numbered from 0 in order of position; positions ascend strictly.
    A link's parent is an earlier bookmark. A bookmark's links stand strongest first, at most `links_max` of them: of
    more candidates a search keeps the strongest, so the weakest are pruned before they come here.
    Nothing changes once added, so a cut at the first `total` bookmarks is a consistent snapshot of the graph.

Links are kept by child, and chained by parent (`memsvc.children`), so that a hop costs what it finds and no scan.

Must not know: embeddings, how links were found, disks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memsvc.chains import Chains
from memsvc.children import Children
from memsvc.columns import Column
from memsvc.errors import BookmarkNotFound
from memsvc.geometry import BLOCK_TOKENS

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Link:
    """An edge to an earlier bookmark; `weight` is the similarity."""

    parent: int
    weight: float


@dataclass(frozen=True, slots=True)
class Bookmark:
    """One bookmark as it is read; `links` stand strongest first."""

    index: int
    position: int
    block: int
    chain: int
    links: tuple[Link, ...]
    signal: float
    forced: bool


def faded(weights: Float32Array, ages: Int64Array, half_life_tokens: int) -> Float32Array:
    """Weights of links as they are read when old ones are to count less: halved with every `half_life_tokens`.

    What is stored never changes. A negative weight, of a link between opposites, fades towards 0 as well.

    Args:
        weights: [n].
        ages: Tokens since each link was made, [n].
        half_life_tokens: 0 for no fading.
    """
    if half_life_tokens == 0:
        return weights
    return (weights * np.exp2(-ages / half_life_tokens)).astype(np.float32)


class BookmarkGraph:
    """Append-only graph of one session. Reads take a cut: the first `total` bookmarks, or all.

    Attributes:
        chains: The chain of each bookmark, kept in step by `extend`.

    Concurrency: one caller at a time, but arrays that were returned stay constant while the graph grows.
    """

    def __init__(self, links_max: int) -> None:
        assert links_max >= 1, f"expected at least one link a bookmark, got {links_max}"
        self.chains = Chains()
        self._links_max = links_max
        self._children = Children(links_max)
        self._positions = Column(np.int64)
        self._blocks = Column(np.int64)
        self._parents = Column(np.int64, links_max)
        self._weights = Column(np.float32, links_max)
        self._signals = Column(np.float32)
        self._forced = Column(np.bool_)

    def __len__(self) -> int:
        return len(self._positions)

    def extend(
        self, positions: Int64Array, parents: Int64Array, weights: Float32Array, signal: Float32Array, forced: BoolArray
    ) -> Int64Array:
        """Adds the next n bookmarks and returns their chains, [n].

        Args:
            positions: [n], ascending, past the last one there is.
            parents: [n, links_max], distinct, strongest first, then -1 for none; may name earlier ones of this call.
            weights: [n, links_max], similarities; ignored beside -1.
            signal: [n], what the policy saw.
            forced: [n], whether made only because the block had none.

        Cost: 0.8 us a bookmark and 40 us a call.
        """
        first = len(self)
        newest = int(self._positions.view()[-1]) if first else -1
        assert np.all(np.diff(positions, prepend=newest) > 0), f"expected positions ascending past {newest}"
        assert np.all(parents < np.arange(first, first + len(positions))[:, None]), "expected parents that came earlier"
        self._positions.extend(positions)
        self._blocks.extend(positions // BLOCK_TOKENS)
        self._parents.extend(parents)
        self._weights.extend(weights)
        self._children.extend(parents)
        self._signals.extend(signal)
        self._forced.extend(forced)
        return self.chains.join(parents[:, 0])

    def positions(self, total: int | None = None) -> Int64Array:
        """Position of each bookmark, [total]; read-only."""
        return self._positions.view(total)

    def blocks(self, total: int | None = None) -> Int64Array:
        """Block of each bookmark, [total]; read-only, ascending."""
        return self._blocks.view(total)

    def block_bounds(self, first_block: int, blocks_end: int, total: int | None = None) -> Int64Array:
        """Where the bookmarks of each block lie, [blocks + 1].

        Block first_block + j holds the indices bounds[j] to bounds[j + 1], exclusive; none where the two are equal.
        """
        return np.searchsorted(self._positions.view(total), BLOCK_TOKENS * np.arange(first_block, blocks_end + 1))

    def links(self, total: int | None = None) -> tuple[Int64Array, Float32Array]:
        """Parents and weights of each bookmark, [total, links_max] each, strongest first; read-only.

        A weight beside a parent of -1 means nothing.
        """
        return self._parents.view(total), self._weights.view(total)

    def crossings(self, total: int | None = None) -> Int64Array:
        """Bookmarks at which chains cross: those whose parents lie in several chains, ascending, [n]."""
        parents, chain_of = self._parents.view(total), self.chains.of_bookmarks(total)
        several = np.flatnonzero(parents[:, 1] >= 0) if self._links_max > 1 else np.empty(0, dtype=np.int64)
        own = parents[several]
        # The strongest parent's chain is the bookmark's own; a missing parent counts as of that one.
        others = np.where(own >= 0, chain_of[own], chain_of[several][:, None])
        crossing: Int64Array = several[(others != chain_of[several][:, None]).any(axis=1)]
        return crossing

    def link_count(self, total: int | None = None) -> int:
        """Links there are."""
        return int(np.count_nonzero(self._parents.view(total) >= 0))

    def bookmark(self, index: int, total: int | None = None) -> Bookmark:
        """One bookmark. Raises BookmarkNotFound past the cut."""
        return self.bookmarks([index], total)[0]

    def bookmarks(self, indices: Sequence[int], total: int | None = None) -> list[Bookmark]:
        """The bookmarks of these indices, in their order. Raises BookmarkNotFound if one lies past the cut."""
        rows = self._rows(indices, total)
        columns = (
            rows,
            self._positions.view()[rows],
            self._blocks.view()[rows],
            self.chains.of_bookmarks()[rows],
            self._parents.view()[rows],
            self._weights.view()[rows],
            self._signals.view()[rows],
            self._forced.view()[rows],
        )
        return [
            Bookmark(index, position, block, chain, _links(parents, weights), signal, forced)
            for index, position, block, chain, parents, weights, signal, forced in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]

    def children(self, index: int, total: int | None = None) -> list[int]:
        """Bookmarks that link to this one, ascending. Raises BookmarkNotFound past the cut."""
        rows = self._rows([index], total)
        _, links = self._children.links(rows, len(self) if total is None else total)
        children: list[int] = (links[::-1] // self._links_max).tolist()
        return children

    def links_into(self, bookmarks: Int64Array, most: int, total: int | None = None) -> tuple[Int64Array, Int64Array]:
        """Links that lead to some bookmarks below the cut, of each the newest `most`.

        Returns:
            The place in `bookmarks` that each link leads to, and the link's own place in `links`, flattened.
        """
        return self._children.links(bookmarks, len(self) if total is None else total, most)

    def expand(self, seeds: Iterable[int], hops: int, limit: int, total: int | None = None) -> list[int]:
        """Bookmarks within `hops` links of the seeds, over links both ways, at most `limit`.

        The seeds come first as given, without repeats; then each hop, newest first within a hop.

        Raises:
            BookmarkNotFound: A seed lies past the cut.
        """
        frontier = self._rows(list(dict.fromkeys(seeds)), total)[:limit]
        found: list[int] = frontier.tolist()
        parents = self._parents.view(total)
        # One more than there are bookmarks: the parent -1 lands on the last flag, which means nothing.
        seen = np.zeros(len(parents) + 1, dtype=np.bool_)
        seen[frontier] = True
        for _ in range(hops):
            if len(frontier) == 0 or len(found) == limit:
                break
            oldest = int(frontier.min())
            entered = np.zeros_like(seen)
            entered[frontier] = True
            reached = np.zeros_like(seen)
            reached[oldest + np.flatnonzero(entered[parents[oldest:]]) // self._links_max] = True
            reached[parents[frontier]] = True
            frontier = np.flatnonzero((reached & ~seen)[:-1])[::-1][: limit - len(found)]
            seen[frontier] = True
            found += frontier.tolist()
        return found

    def _rows(self, indices: Sequence[int], total: int | None) -> Int64Array:
        rows = np.array(indices, dtype=np.int64)
        end = len(self) if total is None else total
        past = rows[(rows < 0) | (rows >= end)]
        if len(past):
            raise BookmarkNotFound(f"expected a bookmark index from 0 to {end - 1}, got {past[0]}")
        return rows


def _links(parents: list[int], weights: list[float]) -> tuple[Link, ...]:
    return tuple(Link(parent, weight) for parent, weight in zip(parents, weights, strict=True) if parent >= 0)
