"""All bookmarks of one stream: what finds their links and the blocks that tokens vote for.

    bookmarks   [0, sealed)                              [sealed, len)
    finder      shards of 262,144 of the spec's kind     flat, exact
                (HNSW, FAISS, walk, dictionary), the
                last one growing

With the flat finder `sealed` is 0. With another, a search on behalf of bookmark n first seals up to

    sealed(n) = the largest multiple of 256 that is at most n - 4096

Invariants:
    Results of the flat finder are exact: the same for any split of the bookmarks into adds, and of queries into calls.
    Links do not depend on the split with any finder, since sealed(n) is a function of n alone. Blocks may with one that
    is not exact: a token can be searched for when a few more bookmarks are sealed.
    An index is only ever extended; to go back is to replay into a new one, which reads saved shards of equal content.

Concurrency: none of its own; the session calls it under its lock.
"""

import math
from pathlib import Path

import numpy as np

from memsvc.lattice import SCALE, similarities
from memsvc.shards.base import NOTHING, BlockHits, Hits, Int16Array, Int64Array, Shard, best, dot_of, index_of, shifted
from memsvc.shards.choice import SavableShard, sealed_kind
from memsvc.shards.flat import FlatShard
from memsvc.shards.scan import best_of_matrix
from protos.memsvc.v1 import types_pb2 as wire

# Bookmarks that are sealed at once, and searched for at once.
_SEAL_ROWS = 256
# The newest bookmarks, which stay exact; also the most that one `best_earlier` may ask for.
TAIL_ROWS = 4096
# Bookmarks of a full sealed shard.
_SHARD_ROWS = 262_144
# Candidates from a sealed shard for each block wanted: neighbouring tokens share blocks.
_CANDIDATES_PER_BLOCK = 8


class StreamIndex:
    """Finders over one stream's bookmarks, numbered from 0 in order of adding.

    Args:
        dims: Dimensions of a vector.
        spec: Which finder, and the least similarity of a link.
        folder: Where full shards are saved and looked for, if their kind has files; nowhere if None.

    Raises:
        InvalidRequest: The finder is unknown, or this installation lacks it.
    """

    def __init__(self, dims: int, spec: wire.SearchSpec, folder: Path | None = None) -> None:
        self._tail = FlatShard(dims)
        self._kind = sealed_kind(spec.finder)
        self._sealed: list[Shard] = []
        self._link_dot_min = math.ceil(spec.link_similarity_min * SCALE**2)
        self._folder = folder

    def __len__(self) -> int:
        """Bookmarks added."""
        return self._tail.first + len(self._tail)

    def add(self, rows: Int16Array) -> None:
        """Append the lattice vectors of new bookmarks, [n, dims]."""
        self._tail.add(rows)

    def best_earlier(self, queries: Int16Array, first_index: int, k: int) -> Hits:
        """Best k links of consecutive bookmarks, [m, dims] to [m, k]: similar enough, and earlier than themselves.

        Args:
            queries: Bookmarks `first_index` and on, whether added yet or not; at most 4,096.
            first_index: Every bookmark before it has been added.
        """
        assert first_index <= len(self)
        assert len(queries) <= TAIL_ROWS
        keys = np.full((len(queries), k), NOTHING)
        # Cut where `sealed` may change.
        start = 0 if self._kind is None else -(first_index % _SEAL_ROWS)
        for offset in range(start, len(queries), _SEAL_ROWS):
            own = slice(max(offset, 0), min(offset + _SEAL_ROWS, len(queries)))
            self._seal_for(first_index + own.start)
            found = [self._tail.search(queries[own], k, first_index, self._link_dot_min).keys]
            found.append(self._best_in_batch(queries, first_index, own, k))
            for shard in self._sealed:
                hits = shard.search(queries[own], k)
                found.append(np.where(hits.dot >= self._link_dot_min, hits.keys, NOTHING))
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
        self._seal_for(total)
        *ends_list, first = np.searchsorted(block_of[:total], np.append(blocks_end, first_block)).tolist()
        ends = np.array(ends_list, dtype=np.int64)
        keys = self._tail_blocks(queries, ends, block_of, first, k)
        if self._sealed:
            keys = self._merge_sealed(keys, queries, ends, block_of, first)
        index = index_of(keys)
        found = index >= 0
        block = np.full(index.shape, -1)
        block[found] = block_of[index[found]]
        return BlockHits(block, dot_of(keys), index, np.count_nonzero(found, axis=1))

    def status(self) -> str:
        """How bookmarks are found now, in words."""
        exact = f"{len(self._tail)} bookmarks compared exactly"
        if self._kind is None:
            return f"flat: {exact}"
        sealed = f"{self._tail.first} bookmarks in {len(self._sealed)} {self._kind.noun}"
        return f"{self._kind.name}: {sealed}, {exact}"

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

    def _merge_sealed(
        self, keys: Int64Array, queries: Int16Array, ends: Int64Array, block_of: Int64Array, first: int
    ) -> Int64Array:
        """Keys of the best distinct blocks in both parts, given those of the exact part, [m, k]."""
        candidates = _CANDIDATES_PER_BLOCK * keys.shape[1]
        while True:
            hits = [shard.search(queries, candidates, int(ends.max())).keys for shard in self._sealed]
            found = np.concatenate(hits, axis=1)
            index = index_of(found)
            found = np.where((index >= first) & (index < ends[:, None]), found, NOTHING)
            merged = _best_distinct(np.concatenate([keys, found], axis=1), block_of, keys.shape[1])
            # Bookmarks that were not looked at are worse than the last candidate of their graph.
            if all((own[:, -1] <= merged[:, -1]).all() for own in hits):
                return merged
            candidates *= 2

    def _seal_for(self, count: int) -> None:
        """Move what a search on behalf of bookmark `count` expects to be sealed out of the exact part."""
        if self._kind is None:
            return
        target = (count - TAIL_ROWS) // _SEAL_ROWS * _SEAL_ROWS
        while (first := self._tail.first) < target:
            if not self._sealed or len(self._sealed[-1]) == _SHARD_ROWS:
                saved = self._saved_shard(first, target)
                self._sealed.append(self._kind.make(self._tail.dims, first) if saved is None else saved)
            shard = self._sealed[-1]
            grown = len(shard) < _SHARD_ROWS
            if grown:
                shard.add(self._tail.rows(first, first + _SEAL_ROWS))
            # Before the save, which may fail: each bookmark is in one part, whatever the disk says.
            self._tail.drop_before(shard.first + len(shard))
            if grown and len(shard) == _SHARD_ROWS and self._folder is not None and isinstance(shard, SavableShard):
                shard.save(self._folder)

    def _saved_shard(self, first: int, target: int) -> Shard | None:
        load = self._kind.load if self._kind is not None else None
        if load is None or self._folder is None or target - first < _SHARD_ROWS:
            return None
        return load(self._folder, first, self._tail.rows(first, first + _SHARD_ROWS))


def _best_distinct(keys: Int64Array, block_of: Int64Array, k: int) -> Int64Array:
    """The k best keys of separate blocks in each row, [m, n] to [m, k], descending."""
    result = np.full((len(keys), k), NOTHING)
    for out, row in zip(result, np.sort(keys, axis=1)[:, ::-1], strict=True):
        hits = row[row != NOTHING]
        _, seen = np.unique(block_of[index_of(hits)], return_index=True)
        chosen = hits[np.sort(seen)[:k]]
        out[: len(chosen)] = chosen
    return result
