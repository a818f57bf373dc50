"""Nodes whose shared Redis is killed, emptied, replaced or behind: what goes on, what waits, and what is told again."""

import time
from pathlib import Path

import pytest

from memsvc.errors import ManifestUnavailable, StaleEpoch
from memsvc.manifest import SqliteManifest
from memsvc.manifest.redis import RedisManifest
from memsvc.manifest.redis_node import node_of
from memsvc.manifest.redis_state import RedisLost
from tests.integration.redis_nodes import LEASE_MS, Starter, entry, renewed, taken_over
from tests.redis_process import PREFIX, RedisProcess, needs_redis

pytestmark = needs_redis


def test_an_emptied_redis_is_told_again(start: Starter, redis: RedisProcess) -> None:
    """Proves that after FLUSHALL the next beats make it the same, bit for bit, and that held leases never lapse."""
    nodes = [start("a"), start("b")]
    for node, names in zip(nodes, ("pq", "xyz"), strict=True):
        for name in names:
            node.create(entry(name))
        node.next_epoch(names[0], 7)
        # As if it had not been used since the start: no lease, which nobody renews.
        node._leases.drop(names[1])
        redis.client.delete(f"{PREFIX}lease:{names[1]}")
    before = redis.manifest()
    redis.client.flushall()
    nodes[0].require_held("p", 7)
    for node in nodes:
        node.renew()
    assert redis.manifest() == before
    nodes[0].require_held("p", 7)
    assert nodes[1].next_epoch("x", 1) == 8


def test_nothing_new_is_given_before_every_node_could_tell(start: Starter, redis: RedisProcess) -> None:
    """Proves that an emptied Redis refuses what it may have forgotten, says how long, and keeps held leases."""
    node = start("a")
    node.create(entry("held"))
    node.create(entry("idle"))
    # As if it had not been used since the start.
    node._leases.drop("idle")
    redis.client.flushall()
    for call in (lambda: node.get("idle"), lambda: node.get("unknown"), lambda: node.create(entry("new"))):
        with pytest.raises(ManifestUnavailable, match="that every node told of its sessions") as raised:
            call()
        assert raised.value.retry_s is not None
        assert 0 < raised.value.retry_s <= LEASE_MS / 1000
    assert node.next_epoch("held", 1) == 1
    node.require_held("held", 1)


@pytest.mark.parametrize("first", ["former", "taker"])
def test_the_highest_epoch_wins_when_an_emptied_redis_is_told(
    start: Starter, redis: RedisProcess, tmp_path: Path, first: str
) -> None:
    """Proves that a node that lost a session does not get it by telling first."""
    former, taker = taken_over(start, redis, tmp_path)
    redis.client.flushall()
    for node in (former, taker) if first == "former" else (taker, former):
        renewed(node)
    assert redis.client.hget(f"{PREFIX}entry:s", "node") == node_of(tmp_path / "b")
    assert redis.client.hget(f"{PREFIX}entry:s", "epoch") == "2"
    taker.require_held("s", 2)
    former.renew()
    with pytest.raises(StaleEpoch):
        former.require_held("s", 1)
    assert taker.next_epoch("s", 1) == 3


def test_leases_outlast_a_dead_redis_until_their_own_end(start: Starter, redis: RedisProcess) -> None:
    """Proves that a killed Redis stops new openings at once, writers when their lease ends, and nothing for good."""
    node = start("a")
    node.create(entry("s"))
    node.next_epoch("s", 1)
    node.renew()
    redis.kill()
    node.require_held("s", 1)
    calls = (lambda: node.next_epoch("s", 1), lambda: node.get("t"), lambda: node.create(entry("t")), node.check)
    for call in calls:
        with pytest.raises(ManifestUnavailable, match=f"expected a Redis that answers, got .* at .*:{redis.port}/0"):
            call()
    with pytest.raises(ManifestUnavailable):
        node.renew()
    time.sleep(LEASE_MS / 1000)
    with pytest.raises(ManifestUnavailable, match="ran out"):
        node.require_held("s", 1)
    redis.start()
    redis.lease_ended("s")
    while not renewed(node):
        time.sleep(redis.client.pttl(f"{PREFIX}settling") / 1000)
    node.require_held("s", 1)
    assert node.next_epoch("s", 1) == 2


def test_a_redis_that_went_back_in_time_is_corrected(start: Starter, redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that a stale replica in Redis' place is brought to what nodes know, epochs and deletions included."""
    node = start("a")
    for name in ("s", "gone"):
        node.create(entry(name))
    redis.copy_to(tmp_path / "replica")
    node.delete("gone")
    node.create(entry("new"))
    assert [node.next_epoch("s", 1) for _ in range(3)] == [1, 2, 3]
    before = redis.manifest()
    redis.fail_over_to(tmp_path / "replica")
    assert redis.client.exists(f"{PREFIX}entry:gone")
    node.renew()
    assert redis.manifest() == before
    assert node.next_epoch("s", 1) == 4


def test_an_epoch_is_the_nodes_own_whatever_redis_says(start: Starter, redis: RedisProcess) -> None:
    """Proves that a Redis with a lower epoch cannot make a node give one twice, now or after a restart."""
    node = start("a")
    node.create(entry("s"))
    assert node.next_epoch("s", 10) == 10
    redis.client.hset(f"{PREFIX}entry:s", "epoch", 0)
    assert node.next_epoch("s", 1) == 11
    with pytest.raises(StaleEpoch):
        node.require_held("s", 10)
    node.close()
    redis.client.hset(f"{PREFIX}entry:s", "epoch", 0)
    assert start("a").next_epoch("s", 1) == 12


def test_a_redis_that_does_not_answer_is_told_at_the_start(redis: RedisProcess, tmp_path: Path) -> None:
    """Proves that a node without Redis does not start, says where it looked, and leaves its file closed."""
    redis.kill()
    (tmp_path / "a").mkdir()
    with pytest.raises(ManifestUnavailable, match=f"at redis://127.0.0.1:{redis.port}/0"):
        RedisManifest(tmp_path / "a", redis.address(LEASE_MS))
    SqliteManifest(tmp_path / "a" / "manifest.sqlite").close()


def test_a_node_closes_without_redis(start: Starter, redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    """Proves that an orderly end does not need Redis: its leases run out by themselves, and that is said."""
    node = start("a")
    node.create(entry("s"))
    redis.kill()
    node.close()
    assert "expected to give 1 back, they run out instead" in caplog.text
    with pytest.raises(StaleEpoch):
        node.require_held("s", 0)


def test_a_redis_that_is_another_each_time_ends_the_call(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a call does not go on telling for ever, and that the node works once Redis stays."""
    node = start("a")
    tellings = []

    def lost(name: str) -> None:
        tellings.append(name)
        raise RedisLost

    with monkeypatch.context() as patched:
        patched.setattr(node._node.state, "look", lost)
        with pytest.raises(ManifestUnavailable, match="expected a Redis that stays"):
            node.create(entry("s"))
    assert tellings == ["s"] * 5
    node.create(entry("s"))
    node.require_held("s", 0)


def test_a_former_name_that_could_not_be_freed_is_freed_later(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a rename whose last step Redis missed is done all the same, and complete with the next beat."""
    node, other = start("a"), start("b")
    node.create(entry("s"))

    def away(name: str) -> None:
        raise ManifestUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(node._node.names, "clear", away)
        node.rename("s", "t")
    assert node.get("t") is not None
    node.renew()
    assert other.get("s") is None
    assert node.get("s") is None
