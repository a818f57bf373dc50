"""All bookmarks of one stream: what finds their links and the blocks that tokens vote for.

    bookmarks   [0, sealed)                              [sealed, len)
    finder      of the spec's kind, approximate          flat, exact
                (`memsvc.shards.sealed`)

With the flat finder `sealed` is 0. With another, a search on behalf of bookmark n sees

    sealed(n) = the largest multiple of `group` that is at most n - 256, or 0 as long as that is below what the kind
                seals at first: what it learns from, and 1,024 more that come while it does

`group` is how many bookmarks are sealed together: those of so many tokens as the spec says (see `group_rows_of`), as
far as the kind takes them. They are handed over as soon as n is the next bookmark to come, and taken in by another
thread; the search that is to see them waits for it. So from the first seal on, 256 to 256 + group bookmarks are
compared exactly.

Invariants:
    Results of the flat finder are exact: the same for any split of the bookmarks into adds, and of queries into calls.
    Links do not depend on the split with any finder, nor on when threads run, since sealed(n) is a function of n alone,
    as long as bookmarks are searched for before they are added. Blocks may with one that is not exact: a token can be
    searched for when a few more bookmarks are sealed.
    An index is only ever extended; to go back is to replay into a new one, which reads saved shards of equal content.

Concurrency: none of its own; the session calls it under its lock.
"""

import math
from pathlib import Path

import numpy as np

from memsvc.lattice import SCALE, similarities
from memsvc.shards.base import NOTHING, BlockHits, Hits, Int16Array, Int64Array, best, dot_of, index_of, shifted
from memsvc.shards.choice import GROUP_ROWS, sealed_kind
from memsvc.shards.flat import FlatShard
from memsvc.shards.scan import best_of_matrix
from memsvc.shards.sealed import SealedPart
from protos.memsvc.v1 import types_pb2 as wire

# The newest bookmarks, which stay exact; also the most that one `best_earlier` may ask for.
TAIL_ROWS = 256
# Candidates for each block wanted: neighbouring tokens share blocks.
_CANDIDATES_PER_BLOCK = 8
# Bookmarks that come between a first part's being handed over and its being due, where the finder learns from it first.
_HEAD_START_ROWS = 1024


class StreamIndex:
    """Finders over one stream's bookmarks, numbered from 0 in order of adding.

    Args:
        dims: Dimensions of a vector.
        spec: Which finder, and the least similarity of a link.
        folder: Where shards are saved and looked for, if their kind has files; nowhere if None.
        group_rows: Bookmarks that are sealed together, if the kind takes as many.

    Raises:
        InvalidRequest: The finder is unknown, or this installation lacks it.
    """

    def __init__(
        self, dims: int, spec: wire.SearchSpec, folder: Path | None = None, group_rows: int = GROUP_ROWS
    ) -> None:
        self._tail = FlatShard(dims)
        kind = sealed_kind(spec.finder)
        self._sealed = None if kind is None else SealedPart(kind, dims, folder)
        self._group = group_rows if kind is None else min(group_rows, kind.group_rows)
        # The least that is sealed, a multiple of the group.
        learnt = 0 if kind is None else kind.rows_min
        self._least = self._group * max(1, math.ceil(learnt / self._group))
        self._first_due = self._least + (_HEAD_START_ROWS if learnt else 0)
        self._link_dot_min = math.ceil(spec.link_similarity_min * SCALE**2)

    def __len__(self) -> int:
        """Bookmarks added."""
        return self._tail.first + len(self._tail)

    def add(self, rows: Int16Array) -> None:
        """Append the lattice vectors of new bookmarks, [n, dims]."""
        self._tail.add(rows)
        self._hand_over(len(self))

    def best_earlier(self, queries: Int16Array, first_index: int, k: int) -> Hits:
        """Best k links of consecutive bookmarks, [m, dims] to [m, k]: similar enough, and earlier than themselves.

        Args:
            queries: Bookmarks `first_index` and on, whether added yet or not; at most 256.
            first_index: Every bookmark before it has been added.
        """
        assert first_index <= len(self)
        assert len(queries) <= TAIL_ROWS
        keys = np.full((len(queries), k), NOTHING)
        # Cut where `sealed` may change.
        start = 0 if self._sealed is None else -((first_index - TAIL_ROWS) % self._group)
        step = max(TAIL_ROWS, self._group) if self._sealed is None else self._group
        for offset in range(start, len(queries), step):
            own = slice(max(offset, 0), min(offset + step, len(queries)))
            found = [self._links(queries[own], first_index + own.start, first_index, k)]
            found.append(self._best_in_batch(queries, first_index, own, k))
            keys[own] = best(np.concatenate(found, axis=1), k)
        return Hits(keys)

    def best_blocks(
        self,
        queries: Int16Array,
        blocks_end: Int64Array,
        block_of: Int64Array,
        total: int,
        k: int,
        first_block: int = 0,
    ) -> BlockHits:
        """Best k distinct blocks of each query, [m, dims] to [m, k]; a block is as similar as its best bookmark.

        Args:
            blocks_end: First block that each query may not see, [m].
            block_of: Block of each bookmark, ascending; at least `total` of them.
            total: Bookmarks from here on are not seen: the cut of a snapshot, or all.
            first_block: Blocks before it are not seen: the sinks.
        """
        sealed = self._seal_for(total)
        *ends_list, first = np.searchsorted(block_of[:total], np.append(blocks_end, first_block)).tolist()
        ends = np.array(ends_list, dtype=np.int64)
        keys = self._tail_blocks(queries, ends, block_of, first, k)
        if sealed is not None:
            keys = _merge_sealed(sealed, keys, queries, ends, block_of, first)
        index = index_of(keys)
        found = index >= 0
        block = np.full(index.shape, -1)
        block[found] = block_of[index[found]]
        return BlockHits(block, dot_of(keys), index, np.count_nonzero(found, axis=1))

    def exact_rows(self, first: int, end: int) -> Int16Array:
        """Lattice vectors of bookmarks `first` to `end`, exclusive, that are compared exactly; of any, if all are."""
        return self._tail.rows(first, end)

    def status(self) -> str:
        """How bookmarks are found now, in words."""
        exact = f"{len(self._tail)} bookmarks compared exactly"
        if self._sealed is None:
            return f"flat: {exact}"
        kind = self._sealed.kind
        return f"{kind.name}: {self._tail.first} bookmarks in {len(self._sealed)} {kind.noun}, {exact}"

    def settle(self) -> None:
        """Wait until threads have taken in, and saved, what they were given. Raises StorageFailed."""
        if self._sealed is not None:
            self._seal_for(len(self))
            self._sealed.settle()

    def _links(self, queries: Int16Array, n: int, limit: int, k: int) -> Int64Array:
        """Keys of the links below `limit` of bookmark n and the next ones, int64 [m, k]."""
        sealed = self._seal_for(n)
        found = [self._tail.search(queries, k, limit, self._link_dot_min).keys]
        if sealed is not None:
            found += sealed.search(queries, k, limit)
        keys = best(np.concatenate(found, axis=1), k)
        return np.where(dot_of(keys) >= self._link_dot_min, keys, NOTHING)

    def _best_in_batch(self, queries: Int16Array, first_index: int, own: slice, k: int) -> Int64Array:
        """Keys of the links to bookmarks of the same batch, int64 [own, k]."""
        dots = similarities(queries[own], queries[: own.stop])
        dots[np.arange(own.stop) >= np.arange(own.start, own.stop)[:, None]] = -np.inf
        keys = best_of_matrix(dots, k, np.full(len(dots), self._link_dot_min, dtype=np.float32))
        return shifted(keys, first_index)

    def _tail_blocks(
        self, queries: Int16Array, ends: Int64Array, block_of: Int64Array, first: int, k: int
    ) -> Int64Array:
        """Keys of the best distinct blocks in the exact part, bookmarks `first` to `ends` of each query, [m, k]."""
        first, last = max(first, self._tail.first), int(ends.max(initial=0))
        if first >= last:
            return np.full((len(queries), k), NOTHING)
        starts = first + np.flatnonzero(np.diff(block_of[first:last], prepend=-1))
        keys = self._tail.block_best(queries, starts, last)
        return best(np.where(starts < ends[:, None], keys, NOTHING), k)

    def _due(self, n: int) -> int:
        """sealed(n)."""
        due = (n - TAIL_ROWS) // self._group * self._group
        return due if due >= self._first_due else 0

    def _hand_over(self, n: int) -> None:
        """Let what a search on behalf of bookmark n expects to be sealed be taken in."""
        if self._sealed is None:
            return
        begun, due = self._sealed.begun, self._due(n)
        if not begun and self._sealed.searched and len(self) >= self._least:
            # The first bookmarks take longest; nothing sees them before they are due.
            due = max(due, self._least)
        if due > begun:
            self._sealed.begin(self._tail.rows(max(begun, self._tail.first), due))

    def _seal_for(self, n: int) -> SealedPart | None:
        """The sealed part as a search on behalf of bookmark n sees it; None if that sees nothing sealed."""
        sealed = self._sealed
        if sealed is None:
            return None
        sealed.expect_searches()
        self._hand_over(n)
        if sealed.count == 0 and self._due(n) == 0:
            return None
        if sealed.begun > sealed.count:
            # Before what `wait` may tell: each bookmark is in one part, whatever the disk says.
            self._tail.drop_before(sealed.begun)
            sealed.wait()
        return sealed


def _merge_sealed(
    sealed: SealedPart, keys: Int64Array, queries: Int16Array, ends: Int64Array, block_of: Int64Array, first: int
) -> Int64Array:
    """Keys of the best distinct blocks in both parts, given those of the exact part, [m, k].

    Each query is searched with its own bound and as often as it needs: what it finds owes nothing to its company.
    """
    merged = np.full(keys.shape, NOTHING)
    for end in sorted(set(ends.tolist())):
        open_, candidates = np.flatnonzero(ends == end), _CANDIDATES_PER_BLOCK * keys.shape[1]
        while len(open_):
            hits = sealed.search(queries[open_], candidates, end)
            found = np.concatenate([keys[open_], *hits], axis=1)
            found = np.where(index_of(found) >= first, found, NOTHING)
            own = _best_distinct(found, block_of, keys.shape[1])
            # Bookmarks that were not looked at are worse than the last candidate of their shard.
            done = np.ones(len(open_), dtype=np.bool_)
            for worst in hits:
                done &= worst[:, -1] <= own[:, -1]
            merged[open_[done]] = own[done]
            open_, candidates = open_[~done], 2 * candidates
    return merged


def _best_distinct(keys: Int64Array, block_of: Int64Array, k: int) -> Int64Array:
    """The k best keys of separate blocks in each row, [m, n] to [m, k], descending."""
    result = np.full((len(keys), k), NOTHING)
    for out, row in zip(result, np.sort(keys, axis=1)[:, ::-1], strict=True):
        hits = row[row != NOTHING]
        # Place of each block's best key. Most rows are through after a few of their keys: no need to look at all.
        places: dict[int, int] = {}
        for place, block in enumerate(block_of[index_of(hits)].tolist()):
            if len(places) == k:
                break
            places.setdefault(block, place)
        out[: len(places)] = hits[list(places.values())]
    return result
