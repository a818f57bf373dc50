"""Where a session's links come from: its finder, or the source's own search.

    finder    the best of all earlier bookmarks, as the finder of the session finds them
    walk      `find_relevant_bookmark`: newest relevant, back along its chain, its dictionary, across chains, contents

With the walk, any bookmark that is similar enough for a link ends a find; what else it takes are the defaults of
`memsvc.dictionary.settings.FindSettings`. Its chains are those of the graph, since both go by the strongest parent.

Invariants:
    Links depend on the bookmarks in order, not on how they were handed over.
    After `enter` with the links that `find` gave, the next links are those that come after `find` itself.
Must not know: policies, logs, the graph.

Concurrency: none of its own; one caller at a time.
"""

from collections.abc import Mapping

import numpy as np

from memsvc.dictionary.find import Found
from memsvc.dictionary.settings import FindSettings
from memsvc.dictionary.walker import Walker
from memsvc.lattice import SIMILARITY_UNIT
from memsvc.session.records import Entry
from memsvc.session.vectors import TokenRows
from memsvc.shards.base import Int16Array, Int64Array
from memsvc.shards.index import TAIL_ROWS, StreamIndex
from protos.memsvc.v1 import types_pb2


class Links:
    """Finds the links of bookmarks as they enter the indexes.

    Args:
        indexes: By stream. The first stream of the fingerprint, which is the first here, decides what resembles what.
    """

    def __init__(self, indexes: Mapping[str, StreamIndex], dims: int, search: types_pb2.SearchSpec) -> None:
        self._indexes = indexes
        self._stream = next(iter(indexes))
        self._most = search.links_max
        self._walker = _walker_of(search, dims)

    def find(self, rows: TokenRows) -> Entry:
        """Links of the next bookmarks, which enter on the way."""
        if self._walker is not None:
            entry = self._entry_of(self._walker.link(rows.rows[self._stream]))
            self._index(rows)
            return entry
        index = self._indexes[self._stream]
        entry = self.none()
        for start in range(0, len(rows), TAIL_ROWS):
            piece = rows.take(slice(start, start + TAIL_ROWS))
            hits = index.best_earlier(piece.rows[self._stream], len(index), self._most)
            parents = hits.index
            weights = np.where(parents < 0, 0.0, hits.dot.astype(np.float64) * SIMILARITY_UNIT).astype(np.float32)
            entry = Entry(np.concatenate([entry.parents, parents]), np.concatenate([entry.weights, weights]))
            self._index(piece)
        return entry

    def enter(self, rows: TokenRows, strongest: Int64Array) -> None:
        """The next bookmarks enter, whose strongest parents, [n], are known; -1 for none."""
        if self._walker is not None and len(rows):
            self._walker.enter(rows.rows[self._stream], strongest)
        self._index(rows)

    def none(self) -> Entry:
        """The links of no bookmark."""
        shape = (0, self._most)
        return Entry(np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32))

    def status(self) -> str:
        """How bookmarks and their links are found now, in words; finds are counted since the session was opened."""
        status = self._indexes[self._stream].status()
        return status if self._walker is None else f"{status}; links by walk: {self._walker.counts}"

    def explain(self, vector: Int16Array, bookmarks: int) -> Found | None:
        """How the walk finds what a vector of the first stream, [dims], continues among the first so many bookmarks.

        Checkpoints are those of now: a find that was made when there were fewer may have gone another way. None where
        links come from the finder.
        """
        return None if self._walker is None else self._walker.find(vector, bookmarks)

    def _index(self, rows: TokenRows) -> None:
        if len(rows):
            for name, index in self._indexes.items():
                index.add(rows.rows[name])

    def _entry_of(self, found: list[Found]) -> Entry:
        parents = np.full((len(found), self._most), -1, dtype=np.int64)
        weights = np.zeros((len(found), self._most), dtype=np.float32)
        for at, one in enumerate(found):
            parents[at, : len(one.parents)] = [link.parent for link in one.parents]
            weights[at, : len(one.parents)] = [link.weight for link in one.parents]
        return Entry(parents, weights)


def _walker_of(search: types_pb2.SearchSpec, dims: int) -> Walker | None:
    if search.link_search != types_pb2.LINK_SEARCH_WALK:
        return None
    least = search.link_similarity_min
    return Walker(dims, FindSettings(relevant=least, sure=least, parents=search.links_max))
