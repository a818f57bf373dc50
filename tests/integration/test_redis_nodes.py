"""Nodes that share one Redis: who has a session, who takes it over, and what each may still do."""

import shutil
import time
import uuid
from pathlib import Path

import pytest

from memsvc.errors import ManifestUnavailable, SessionExists, SessionNotFound, StaleEpoch, WrongState
from memsvc.manifest import SessionEntry, SqliteManifest
from memsvc.manifest.redis import RedisManifest
from memsvc.manifest.redis_node import node_of
from memsvc.manifest.redis_state import Put, RedisState
from tests.integration.redis_nodes import LEASE_MS, Starter, entry, hang, taken_over
from tests.redis_process import PREFIX, RedisProcess, needs_redis

# Of the heartbeat.
_BEATS_PER_LEASE = 3

pytestmark = needs_redis


def test_a_session_lives_at_one_node(start: Starter) -> None:
    """Proves that every call at another node names the owner's address, and that each node lists its own alone."""
    owner, other = start("a"), start("b")
    owner.create(entry("s"))
    for call in (
        lambda: other.get("s"),
        lambda: other.next_epoch("s", 1),
        lambda: other.rename("s", "t"),
        lambda: other.delete("s"),
    ):
        with pytest.raises(WrongState, match=r"got 's', which lives at a:1 in epoch 0") as raised:
            call()
        assert raised.value.reason == "SESSION_ELSEWHERE"
    other.create(entry("t"))
    for call in (lambda: other.create(entry("s")), lambda: other.rename("t", "s")):
        with pytest.raises(SessionExists, match="got 's', held at a:1"):
            call()
    assert [[one.name for one in node.list("", 9)] for node in (owner, other)] == [["s"], ["t"]]
    owner.delete("s")
    assert other.get("s") is None
    other.create(entry("s"))
    with pytest.raises(WrongState, match="lives at b:1"):
        owner.get("s")


def test_a_copy_takes_over_once_the_lease_ran_out(start: Starter, redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that a node that hangs loses its session to a copy, no sooner than its lease ends, and for good."""
    former = start("a")
    former.create(entry("s"))
    hang(former)
    former.renew()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    taker = start("b")
    with pytest.raises(WrongState, match="lives at a:1"):
        taker.get("s")
    former.require_held("s", 0)
    redis.lease_ended("s")
    # By its own clock, before it asked anybody.
    with pytest.raises(ManifestUnavailable, match="ran out"):
        former.require_held("s", 0)
    taken = taker.get("s")
    assert taken is not None
    assert taken.epoch == 1
    taker.require_held("s", 1)
    with pytest.raises(StaleEpoch):
        taker.require_held("s", 0)
    former.renew()
    with pytest.raises(StaleEpoch, match="lives at b:1 in epoch 1"):
        former.require_held("s", 0)
    with pytest.raises(WrongState, match="lives at b:1"):
        former.next_epoch("s", 9)


def test_a_former_node_never_gets_the_session_back(start: Starter, redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that even without any lease a node that lacks an epoch is refused: it lacks what was written there."""
    former, taker = taken_over(start, redis, tmp_path)
    taker.close()
    assert redis.client.exists(f"{PREFIX}lease:s") == 0
    with pytest.raises(WrongState, match="lives at b:1 in epoch 2"):
        former.get("s")
    with pytest.raises(WrongState):
        former.delete("s")
    former.renew()
    with pytest.raises(StaleEpoch):
        former.require_held("s", 1)


def test_a_copy_that_is_behind_takes_nothing(start: Starter, redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that a copy made before the newest epoch was given is refused, however long the owner is gone."""
    owner = start("a")
    owner.create(entry("s"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    owner.next_epoch("s", 1)
    owner.close()
    with pytest.raises(WrongState, match="lives at a:1 in epoch 1"):
        start("b").get("s")
    again = start("a").get("s")
    assert again is not None
    assert again.epoch == 1


def test_a_new_process_of_a_node_waits_for_the_former_ones_leases(start: Starter, redis: RedisProcess) -> None:
    """Proves that a node that died gets its session back in the same epoch, after the lease of its earlier process."""
    former = start("a")
    former.create(entry("s"))
    former.next_epoch("s", 5)
    hang(former)
    former.renew()
    again = start("a")
    with pytest.raises(ManifestUnavailable):
        former.require_held("s", 5)
    taken = again.get("s")
    assert taken is not None
    assert taken.epoch == 5
    again.require_held("s", 5)
    # The same node, another process: its answer is not that somebody else has the session.
    with pytest.raises(ManifestUnavailable, match="an earlier process of this node"):
        former.next_epoch("s", 1)


def test_a_name_that_was_only_reserved_is_free_again(start: Starter, redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that what a crash left between Redis and the file is cleared at the next start, for every node."""
    start("a").close()
    state = RedisState(redis.address(LEASE_MS))
    state.join()
    half = Put(entry("half"), node_of(tmp_path / "a"), "crashed", settled=True)
    assert state.put(state.look("half"), half)
    state.close()
    other = start("b")
    with pytest.raises(WrongState, match="lives at a:1"):
        other.get("half")
    redis.lease_ended("half")
    start("a")
    assert other.get("half") is None
    other.create(entry("half"))


def test_sessions_of_an_embedded_manifest_are_taken_along(start: Starter, tmp_path: Path) -> None:
    """Proves that a node's file is the same with and without Redis: a folder changes from one to the other as it is."""
    (tmp_path / "a").mkdir()
    embedded = SqliteManifest(tmp_path / "a" / "manifest.sqlite")
    embedded.create(entry("s"))
    assert embedded.next_epoch("s", 1) == 1
    embedded.close()
    node = start("a")
    assert node.next_epoch("s", 1) == 2
    with pytest.raises(WrongState, match="lives at a:1"):
        start("b").get("s")
    node.close()
    embedded = SqliteManifest(tmp_path / "a" / "manifest.sqlite")
    assert embedded.next_epoch("s", 1) == 3
    embedded.close()


def test_a_node_that_closes_gives_its_leases_back(start: Starter, redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that after an orderly end a folder can be used elsewhere at once."""
    node = start("a")
    node.create(entry("s"))
    node.close()
    assert redis.client.exists(f"{PREFIX}lease:s") == 0
    (tmp_path / "a").rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "b")
    assert start("b").next_epoch("s", 1) == 1


def test_two_sessions_of_one_name_are_kept_apart(start: Starter, redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that where two nodes made a name unknown to each other, the first to tell has it and no file is lost."""
    owner = start("a")
    owner.create(entry("s"))
    (tmp_path / "b").mkdir()
    embedded = SqliteManifest(tmp_path / "b" / "manifest.sqlite")
    embedded.create(SessionEntry("s", uuid.uuid4().hex, b"other", 1, 99))
    embedded.close()
    other = start("b")
    with pytest.raises(WrongState, match="lives at a:1"):
        other.get("s")
    assert [one.epoch for one in other.list("", 9)] == [99]
    assert owner.next_epoch("s", 1) == 1


def test_nodes_must_agree_how_long_a_lease_is(start: Starter, redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that a node with another lease_ms is refused: what it takes for run out others might hold."""
    start("a")
    (tmp_path / "b").mkdir()
    with pytest.raises(ManifestUnavailable, match=f"expected lease_ms {LEASE_MS}, as the other nodes have, got 3000"):
        RedisManifest(tmp_path / "b", redis.address(3_000))


def test_the_heartbeat_keeps_leases_without_being_asked(start: Starter, redis: RedisProcess) -> None:
    """Proves that a lease outlasts several times its length while its process runs, in Redis and for its writer."""
    node = start("a")
    node.create(entry("s"))
    # Each round waits for the lease to be renewed once more: what is left of it has grown.
    for _ in range(2 * _BEATS_PER_LEASE):
        left = redis.client.pttl(f"{PREFIX}lease:s")
        while (now := redis.client.pttl(f"{PREFIX}lease:s")) <= left:
            left = now
            assert left > 0
            time.sleep(LEASE_MS / 1000 / _BEATS_PER_LEASE / 10)
        node.require_held("s", 0)


def test_an_unknown_session_stays_unknown(start: Starter) -> None:
    """Proves that a name that no node has is not found, by each call that needs one."""
    node = start("a")
    assert node.get("none") is None
    for call in (lambda: node.next_epoch("none", 1), lambda: node.delete("none"), lambda: node.rename("none", "t")):
        with pytest.raises(SessionNotFound):
            call()
