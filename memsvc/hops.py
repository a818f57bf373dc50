"""Multi-hop recall: from what a recall hit along links to blocks that the question itself does not name.

A question that names A votes for the passage "A is B's lodger". The passage names B, and its bookmarks on B link to
other passages about B, earlier and later ones:

    passage    the bookmarks within 12 positions of a hit's best bookmark
    starts     of these, the ones that no token voted for: what the passage says beyond the question
    worth      of a link, what its weight has above the weakest link of the bookmark that searched for it, as a vote
               has its similarity above the K-th best; faded by age, if wished
    S(block)   sum over the starts of the worth of each one's best link into the block, both ways
    score      of a block: the hit's score times (the hit's score / the best hit's) times (S / the largest S)

and the best of the three best hits counts. A further hop goes on from the three best blocks of the one before, as from
hits, at half the score.

Invariants:
    A link keeps at most the score it was reached with, so a block never outdoes the hit that led to it.
    Only candidates come out, and none of the blocks that are kept anyway.
    The result is a function of graph, cut, hits, candidates and settings; ties go to the newer block.
Must not know: embeddings, sessions, I/O.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memsvc.graph import BookmarkGraph, faded

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Positions around a hit's bookmark whose bookmarks are one passage with it.
PASSAGE_TOKENS = 12
# Hits, and blocks of a hop, that a hop goes on from.
PASSAGES_MAX = 3
# Newest links into one bookmark that are looked at: a common word has thousands.
LINKS_INTO_MAX = 32
# Share of the score that each hop after the first keeps.
_FURTHER_KEEPS = 0.5


@dataclass(frozen=True)
class HopSettings:
    """How far a recall follows links.

    Args:
        hops: Links of a path at most, at least 1.
        blocks: Blocks returned at most.
        similarity_min: Least weight of a link: counts as the weakest one of a bookmark with fewer than it may have, or
            with one.
        half_life_tokens: Tokens in which a link's worth halves; 0 for no fading.
    """

    hops: int
    blocks: int
    similarity_min: float = 0.0
    half_life_tokens: int = 0


@dataclass(frozen=True)
class Hit:
    """A block that hops go on from.

    Args:
        bookmark: Its best bookmark.
        score: Above 0.
        matched: Its bookmarks that led here: what votes or links met. Int64 [n].
        path: Bookmarks on the way here.
        origin: The block that the first hop began at.
    """

    block: int
    bookmark: int
    score: float
    matched: Int64Array
    path: tuple[int, ...]
    origin: int


@dataclass(frozen=True)
class HopLink:
    """A link that counted; `worth` is what it added, before the hit's score."""

    source: int
    target: int
    weight: float
    worth: float


@dataclass(frozen=True)
class Hop:
    """A block that links lead to.

    Args:
        bookmark: Its bookmark at the end of the best link.
        score: As the hits' scores are.
        path: Bookmarks from the hit's passage to `bookmark`. From the first of each pair a link leads to the second;
            from pair to pair they stand in one passage.
        origin: The block of the hit.
        links: All that counted in the last hop, the best first.
    """

    block: int
    bookmark: int
    score: float
    path: tuple[int, ...]
    origin: int
    links: tuple[HopLink, ...]


def hop_from(
    graph: BookmarkGraph,
    hits: Sequence[Hit],
    candidates: Int64Array,
    kept: frozenset[int],
    settings: HopSettings,
    total: int | None = None,
) -> tuple[Hop, ...]:
    """Blocks that the hits' links lead to, best first.

    Args:
        hits: Best first.
        candidates: Blocks that may be recalled, ascending.
        kept: Blocks that are recalled anyway.
        total: The cut: only the first so many bookmarks, the hits' among them; all if None.

    Cost: at a million bookmarks 0.25 ms a hop with 4 links each and 0.45 ms with 16 (one busy core), where every sixth
    token is a bookmark; 1.6 ms where every token is one. It grows with the links around three passages only.
    """
    follower = _Follower(graph, candidates, settings, len(graph) if total is None else total)
    found: dict[int, Hop] = {}
    passages, keeps = hits[:PASSAGES_MAX], 1.0
    for _ in range(settings.hops):
        if not passages:
            break
        # Of the shortest paths: a block that was reached in fewer hops stays as it was.
        fresh = follower.hop(passages, keeps, kept | found.keys())
        found.update((hop.block, hop) for hop in fresh)
        passages, keeps = [_as_hit(hop) for hop in fresh[:PASSAGES_MAX]], _FURTHER_KEEPS
    best = sorted(found.values(), key=lambda hop: (-hop.score, -hop.block))
    return tuple(best[: settings.blocks])


def _as_hit(hop: Hop) -> Hit:
    matched = np.array([link.target for link in hop.links], dtype=np.int64)
    return Hit(hop.block, hop.bookmark, hop.score, matched, hop.path, hop.origin)


@dataclass(frozen=True)
class _Links:
    """Links from the starts of some passages: arrays of the same length.

    Args:
        start: Number of the start, in order of passages.
        source: Its bookmark.
    """

    start: Int64Array
    source: Int64Array
    target: Int64Array
    block: Int64Array
    weight: Float32Array
    worth: Float64Array

    def take(self, rows: Int64Array) -> "_Links":
        """Some of them."""
        return _Links(
            start=self.start[rows],
            source=self.source[rows],
            target=self.target[rows],
            block=self.block[rows],
            weight=self.weight[rows],
            worth=self.worth[rows],
        )

    def best(self) -> "_Links":
        """Of each start the best into each block, the newest of equals, if it is worth anything."""
        order = np.lexsort((self.target, self.worth, self.block, self.start))
        last = np.ones(len(order), dtype=np.bool_)
        last[:-1] = (np.diff(self.start[order]) != 0) | (np.diff(self.block[order]) != 0)
        chosen = order[last]
        return self.take(chosen[self.worth[chosen] > 0])


@dataclass(frozen=True)
class _Follower:
    """Follows links of one graph up to one cut."""

    graph: BookmarkGraph
    candidates: Int64Array
    settings: HopSettings
    end: int

    def hop(self, passages: Sequence[Hit], keeps: float, without: Collection[int]) -> list[Hop]:
        """The best blocks one hop away from some passages, best first, as many as may be wanted.

        Args:
            passages: Best first.
            keeps: Share of the best one's score that its best block keeps.
            without: Blocks that are not wanted.
        """
        starts = [self._starts(hit) for hit in passages]
        passage_of = np.repeat(np.arange(len(passages)), [len(own) for own in starts])
        links = self._links_from(np.concatenate(starts))
        passage = passage_of[links.start]
        own_block = np.array([hit.block for hit in passages])[passage]
        allowed = (links.block != own_block) & _among(links.block, self.candidates)
        # By passage and block, of each the best first.
        rank = np.lexsort((-links.target, -links.worth, links.block, passage))
        rank = rank[allowed[rank]]
        links, passage = links.take(rank), passage[rank]
        if not len(rank):
            return []
        begins = ((np.diff(links.block, prepend=-1) != 0) | (np.diff(passage, prepend=-1) != 0)).nonzero()[0]
        ends = np.append(begins[1:], len(rank))
        scores = self._scores(passages, keeps, passage[begins], np.add.reduceat(links.worth, begins))
        hops: dict[int, Hop] = {}
        for at in np.lexsort((passage[begins], -links.block[begins], -scores)).tolist():
            own = slice(int(begins[at]), int(ends[at]))
            block = int(links.block[own.start])
            if block not in without and block not in hops:
                hops[block] = _hop(passages[passage[own.start]], block, float(scores[at]), links, own)
            if len(hops) == self.settings.blocks:
                break
        return list(hops.values())

    def _scores(self, passages: Sequence[Hit], keeps: float, passage: Int64Array, sums: Float64Array) -> Float64Array:
        """Scores of blocks, given the passage that leads to each and the sum of the links' worth."""
        most = np.zeros(len(passages))
        np.maximum.at(most, passage, sums)
        own = np.array([hit.score for hit in passages])
        scores: Float64Array = (keeps * own**2 / own[0])[passage] * sums / most[passage]
        return scores

    def _starts(self, hit: Hit) -> Int64Array:
        """Bookmarks of a passage that nothing matched yet."""
        positions = self.graph.positions(self.end)
        at = int(positions[hit.bookmark])
        first, last = np.searchsorted(positions, [at - PASSAGE_TOKENS, at + PASSAGE_TOKENS + 1]).tolist()
        matched = set(hit.matched.tolist())
        return np.array([bookmark for bookmark in range(first, last) if bookmark not in matched], dtype=np.int64)

    def _links_from(self, starts: Int64Array) -> _Links:
        """Links of some bookmarks, both ways, with what they are worth; of each start the best into each block."""
        graph, end = self.graph, self.end
        parents, weights = graph.links(end)
        start, slot = np.nonzero(parents[starts] >= 0)
        entered, link = graph.links_into(starts, LINKS_INTO_MAX, end)
        child, child_slot = np.divmod(link, parents.shape[1])
        # A link is as old as the younger of its ends, which searched for it.
        searcher = np.concatenate([starts[start], child])
        target = np.concatenate([parents[starts[start], slot], child])
        weight = weights[searcher, np.concatenate([slot, child_slot])]
        worth = weight - self._weakest(searcher)
        if self.settings.half_life_tokens:
            positions = graph.positions(end)
            worth = faded(worth, positions[end - 1] - positions[searcher], self.settings.half_life_tokens)
        start = np.concatenate([start, entered])
        block = graph.blocks(end)[target]
        return _Links(start, starts[start], target, block, weight, worth.astype(np.float64)).best()

    def _weakest(self, searcher: Int64Array) -> Float32Array:
        """What a link is worth nothing at: the weakest of a full list, or the least that there may be."""
        parents, weights = self.graph.links(self.end)
        least = np.float32(self.settings.similarity_min)
        # A list of one would be worth nothing itself.
        if parents.shape[1] == 1:
            return np.full(len(searcher), least)
        return np.where(parents[searcher, -1] >= 0, weights[searcher, -1], least)


def _among(blocks: Int64Array, candidates: Int64Array) -> npt.NDArray[np.bool_]:
    """Which blocks are candidates, which ascend."""
    if not len(candidates):
        return np.zeros(len(blocks), dtype=np.bool_)
    within: npt.NDArray[np.bool_] = (candidates[0] <= blocks) & (blocks <= candidates[-1])
    # Without gaps among the candidates, that is all there is to ask.
    if candidates[-1] - candidates[0] == len(candidates) - 1:
        return within
    found: npt.NDArray[np.bool_] = candidates[np.searchsorted(candidates, blocks) % len(candidates)] == blocks
    return found


def _hop(hit: Hit, block: int, score: float, links: _Links, own: slice) -> Hop:
    """A hop to a block along these of the links, the best first."""
    columns = (links.source, links.target, links.weight, links.worth)
    listed = tuple(HopLink(*row) for row in zip(*(column[own].tolist() for column in columns), strict=True))
    best = listed[0]
    return Hop(block, best.target, score, (*hit.path, best.source, best.target), hit.origin, listed)
