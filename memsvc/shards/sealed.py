"""The part of an index that is not compared exactly: shards of one kind, filled and saved in the background.

    bookmarks   [0, first_rows)   then growth times as many   and so on          [count, len)
    shard       full              full                        the growing one    of the index: not sealed yet

Rows are handed over in order with `begin`, which returns at once, and are seen after `wait`. So the caller decides, by
numbers of bookmarks alone, what a search sees.

Invariants:
    Rows are seen all at once and in the order they came; between `begin` and `wait` nothing may be searched.
    A full shard never changes: it is saved while it is searched.

Concurrency: one caller at a time; two threads of its own, which the caller never shares shards with except as said.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from memsvc.errors import StorageFailed
from memsvc.shards.base import Int16Array, Int64Array, Shard
from memsvc.shards.choice import SavableShard, SealedKind, WorkingShard


class SealedPart:
    """Shards of one kind.

    Args:
        kind: How they are made.
        dims: Dimensions of a vector.
        folder: Where shards are saved and looked for, if their kind has files; nowhere if None.

    Attributes:
        begun: Bookmarks handed over so far.
        count: Bookmarks that searches see.
        searched: Whether searches are expected, so that bookmarks are taken in as they are handed over.
    """

    def __init__(self, kind: SealedKind, dims: int, folder: Path | None) -> None:
        self.kind = kind
        self.begun = 0
        self.count = 0
        self.searched = False
        self._dims = dims
        self._folder = folder
        self._shards: list[Shard] = []
        # Handed over before the first search: after a replay all of them are taken in at once, so that files are read.
        self._waiting: list[Int16Array] = []
        self._filling: Future[None] | None = None
        self._saving: list[Future[Path]] = []
        self._filler = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="save")

    def __len__(self) -> int:
        """Shards that searches see."""
        return len(self._shards)

    def begin(self, rows: Int16Array) -> None:
        """Hand over the next bookmarks, [n, dims], which nobody changes afterwards."""
        self.begun += len(rows)
        if self.searched:
            self._filling = self._filler.submit(self._fill, rows, self._filling)
        else:
            self._waiting.append(rows)

    def expect_searches(self) -> None:
        """From now on, take rows in as they are handed over."""
        if self.searched:
            return
        self.searched = True
        rows, self._waiting = self._waiting, []
        if rows:
            self._filling = self._filler.submit(self._fill, np.concatenate(rows), None)

    def wait(self) -> None:
        """Let searches see all that was handed over.

        Raises:
            StorageFailed: A shard could not be saved, told once; it is searched all the same.
        """
        self.expect_searches()
        if self._filling is not None:
            filling, self._filling = self._filling, None
            filling.result()
        self.count = self.begun
        done = [saving for saving in self._saving if saving.done()]
        self._saving = [saving for saving in self._saving if not saving.done()]
        for saving in done:
            saving.result()

    def settle(self) -> None:
        """Wait until all that was handed over is taken in, and what is full saved. Raises StorageFailed."""
        if self._filling is not None:
            self._filling.exception()
        saving, self._saving = self._saving, []
        for one in saving:
            one.result()
        for shard in self._shards:
            if isinstance(shard, WorkingShard):
                shard.settle()

    def search(self, queries: Int16Array, k: int, limit: int | None = None) -> list[Int64Array]:
        """Keys of each shard's best k for each query, int64 [m, k] each, of bookmarks below `limit`."""
        assert self.begun == self.count
        return [shard.search(queries, k, limit).keys for shard in self._shards if limit is None or shard.first < limit]

    def _fill(self, rows: Int16Array, before: "Future[None] | None") -> None:
        """Adds rows to the growing shard and, as it gets full, to the next ones."""
        # A failure is told once all rows are in: none may lose its number.
        failed = None if before is None else before.exception()
        done = 0
        while done < len(rows):
            if not self._shards or self._room() == 0:
                self._shards.append(self._next(rows[done:]))
            shard = self._shards[-1]
            # A shard that was read back is full.
            taken = min(len(rows) - done, self._room())
            own = rows[done : done + taken] if taken else rows[done : done + len(shard)]
            done += len(own)
            if taken:
                try:
                    shard.add(own)
                except StorageFailed as error:
                    failed = failed or error
                self._save_if_full(shard)
        if failed is not None:
            raise failed

    def _room(self) -> int:
        """Rows that the growing shard still takes."""
        return self._capacity(len(self._shards) - 1) - len(self._shards[-1])

    def _capacity(self, shard: int) -> int:
        return self.kind.first_rows * int(self.kind.growth**shard)

    def _next(self, rows: Int16Array) -> Shard:
        """The next shard, empty, or read back full if its file was made of the rows that follow."""
        first = sum(len(shard) for shard in self._shards)
        size = self._capacity(len(self._shards))
        if self.kind.load is not None and self._folder is not None and len(rows) >= size:
            loaded = self.kind.load(self._folder, first, rows[:size])
            if loaded is not None:
                return loaded
        return self.kind.make(self._dims, first, self._folder)

    def _save_if_full(self, shard: Shard) -> None:
        if self._room() == 0 and self._folder is not None and isinstance(shard, SavableShard):
            self._saving.append(self._saver.submit(shard.save, self._folder))
