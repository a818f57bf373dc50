"""Nodes on one Redis, each a manifest with a folder of its own; one whose heartbeat stops is a process that hangs."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from memsvc.errors import ManifestUnavailable
from memsvc.manifest import SessionEntry
from memsvc.manifest.redis import RedisManifest
from tests.redis_process import RedisProcess

# Long enough for a test's calls to a busy machine, short enough to wait for.
LEASE_MS = 1_500

Starter = Callable[[str], RedisManifest]


@contextmanager
def settled_redis(folder: Path) -> Iterator[RedisProcess]:
    """A Redis in which no lease of before can run; gone afterwards."""
    process = RedisProcess(folder)
    try:
        process.settle(LEASE_MS)
        yield process
    finally:
        process.kill()


@contextmanager
def nodes(redis: RedisProcess, folder: Path) -> Iterator[Starter]:
    """Starts processes of nodes by name, which listen at NAME:1; all closed afterwards."""
    started: list[RedisManifest] = []

    def start(name: str) -> RedisManifest:
        (folder / name).mkdir(exist_ok=True)
        manifest = RedisManifest(folder / name, redis.address(LEASE_MS))
        started.append(manifest)
        manifest.announce(f"{name}:1")
        return manifest

    try:
        yield start
    finally:
        for manifest in started:
            manifest.close()


def entry(name: str) -> SessionEntry:
    """A session that was never written."""
    return SessionEntry(name, uuid.uuid5(uuid.NAMESPACE_DNS, name).hex, b"spec", 1_700_000, 0)


def hang(manifest: RedisManifest) -> None:
    """It renews nothing any more by itself."""
    manifest._heartbeat.stop()


def renewed(node: RedisManifest) -> bool:
    """Renews what can be; while Redis settles, a lease that ran out is not among it."""
    try:
        node.renew()
    except ManifestUnavailable:
        return False
    return True


def taken_over(start: Starter, redis: RedisProcess, folder: Path) -> tuple[RedisManifest, RedisManifest]:
    """Nodes a, which made session s and hangs, and b, which has a copy of its folder and took the session over."""
    former = start("a")
    former.create(entry("s"))
    assert former.next_epoch("s", 1) == 1
    hang(former)
    shutil.copytree(folder / "a", folder / "b")
    redis.lease_ended("s")
    taker = start("b")
    taken = taker.get("s")
    assert taken is not None
    assert taken.epoch == 2
    return former, taker
