"""The process ends at a named point, 20 seeds each: what was acknowledged is there, and nothing that was not asked.

Does not show: what power loss does, since the page cache survives the end of a process (see test_power_loss.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from memsvc.blocks import BlockStore
from memsvc.session import files
from memsvc.shards import files as shard_files
from memsvc.shards import hnsw, projection
from protos.memsvc.v1 import types_pb2
from tests.crash.promises import check
from tests.crash.script import Run, operations
from tests.crash.storages import Call, CrashingStorage, Killed
from tests.crash.volume import volume
from tests.property.small_parts import make_parts_small

OPERATIONS = 120
SEEDS = 20


@dataclass(frozen=True)
class Point:
    """Calls at one of which the process ends.

    Args:
        hit: Whether a call is one of them.
        moment: "before", "within" or "after" it.
        often: Occurrences to choose from, by seed; at least half of the seeds reach theirs.
    """

    name: str
    hit: Callable[[Call], bool]
    moment: str
    often: int


def _of(kind: str, role: str) -> Callable[[Call], bool]:
    return lambda call: (call.kind, call.role) == (kind, role)


POINTS = (
    Point("before a log is made", _of("create", "log"), "before", 2),
    Point("with a part of a log's head", _of("write", "log"), "within", 1),
    Point("before a record is appended", _of("write", "log"), "before", 60),
    Point("with a part of a record appended", _of("write", "log"), "within", 60),
    Point("after a record is appended", _of("write", "log"), "after", 60),
    Point("before a log is synced", _of("sync", "log"), "before", 12),
    Point("after a log is synced", _of("sync", "log"), "after", 12),
    Point("before a segment is made", _of("create", "blocks"), "before", 4),
    Point("after a segment is made", _of("create", "blocks"), "after", 4),
    Point("with a part of a block stored", _of("write", "blocks"), "within", 12),
    Point("after a block is stored, before its record", _of("write", "blocks"), "after", 12),
    Point("before blocks are synced", _of("sync", "blocks"), "before", 12),
    Point("after blocks are synced, before the log is", _of("sync", "blocks"), "after", 12),
    Point("before a folder's names are synced", _of("sync", "folder"), "before", 6),
    Point("after a folder's names are synced", _of("sync", "folder"), "after", 6),
    Point("before a session's files go", lambda call: call.kind == "remove_tree", "before", 1),
    Point("after a session's files went", lambda call: call.kind == "remove_tree", "after", 1),
    Point("while a log is read", _of("read", "log"), "before", 3),
    Point("before a shard is synced", _of("sync", "shard"), "before", 2),
    Point("before a shard has its name", _of("rename", "shard"), "before", 2),
    Point("after a shard has its name", _of("rename", "shard"), "after", 2),
)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name.replace(" ", "-"))
def test_the_end_at_a_crash_point_loses_nothing(point: Point, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a restart finds what was acknowledged, whole, takes more, and that the point was really reached."""
    make_parts_small(monkeypatch)
    monkeypatch.setattr(files, "BlockStore", partial(BlockStore, segment_bytes_max=8000))
    seeds = volume(3, SEEDS)
    reached = sum(_reached(point, seed, tmp_path / str(seed), monkeypatch) for seed in range(seeds))
    assert 2 * reached >= seeds


def _reached(point: Point, seed: int, data: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    storage = CrashingStorage(point.hit, 1 + seed * 7 % point.often, point.moment, share=(1 + seed % 9) / 10)
    with monkeypatch.context() as patch:
        for module in (hnsw, projection):
            patch.setattr(module, "store", partial(shard_files.store, storage=storage))
        run = Run(data, storage, finder=types_pb2.FINDER_KIND_HNSW)
        try:
            run.play(operations(seed, OPERATIONS))
            # Shards are saved on a thread of their own, whose death the writer learns of by waiting.
            run.settle()
        except Killed:
            pass
        run.end()
        storage.close_all()
    check(data, run.book, run.book.acked)
    return storage.dead
