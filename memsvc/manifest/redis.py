"""The manifest of one node among several that share a Redis.

    get        takes the session's lease, and the session with it if the node it was last at let the lease run out
    renewed    every third of lease_ms; a writer is stopped before its lease ends for others (`require_held`)

Invariants:
    A session is at one node: another gets it once its lease ran out, and only if it has all that was written.
    A Redis that was emptied, restarted or replaced grants no new lease for lease_ms; meanwhile every node that runs
    tells it what it has, and those that hold leases keep them.
Must not know: what a spec means, logs, blocks.
"""

import logging
import threading
from dataclasses import replace
from pathlib import Path

from memsvc.errors import ManifestUnavailable
from memsvc.lease import Clock, boot_clock
from memsvc.manifest.address import RedisAddress
from memsvc.manifest.base import SessionEntries, SessionEntry
from memsvc.manifest.heartbeat import Heartbeat
from memsvc.manifest.redis_node import RedisNode
from memsvc.manifest.redis_state import RedisLost

_BEATS_PER_LEASE, _BEATS_PER_LEASE_FAILING = 3, 10

_LOGGER = logging.getLogger(__name__)


class RedisManifest:
    """The sessions of the node at `data`, whose folder lock the caller holds.

    Waits, up to twice lease_ms, until leases of an earlier process of this node and of an earlier Redis have run out.

    Args:
        owner: Names this process in its leases; made up if nothing is said.
        clock: Seconds that rise even while the process does not run.

    Raises:
        ManifestUnavailable: Redis does not answer, nodes disagree about lease_ms, or the file cannot be opened.
    """

    def __init__(self, data: Path, address: RedisAddress, owner: str = "", clock: Clock = boot_clock) -> None:
        self._clock = clock
        # Around everything that changes Redis but a renewal, so that what is deleted is not told to Redis again.
        self._lock = threading.Lock()
        self._node = RedisNode(data, address, owner, clock)
        self._leases, self._local = self._node.leases, self._node.local
        lease_s = address.lease_ms / 1000
        try:
            self._node.wait_until_settled(2 * lease_s)
        except BaseException:
            self._node.state.close()
            self._local.close()
            raise
        self._heartbeat = Heartbeat(self.renew, lease_s / _BEATS_PER_LEASE, lease_s / _BEATS_PER_LEASE_FAILING)

    def create(self, entry: SessionEntry) -> None:
        """Adds a session of this node. Raises SessionExists if any node has the name; then nothing changed."""
        with self._lock:
            self._node.require_free(entry.name)
            asked_s = self._node.reserve(entry)
            self._local.create(entry)
            self._leases.grant(entry.name, asked_s, entry.epoch)

    def get(self, name: str) -> SessionEntry | None:
        """The session of that name, and its lease with it, if there is one.

        Raises:
            WrongState: It lives at another node, which the message names (SESSION_ELSEWHERE).
        """
        with self._lock:
            if (local := self._local.get(name)) is None:
                self._node.joined(lambda: self._node.names.require_not_elsewhere(name))
                return None
            return local if self._leases.holds(name) else self._node.claim(local)

    def list(self, after: str, count: int) -> SessionEntries:
        """The first `count` sessions of this node whose names come after `after`; "" comes before all."""
        return self._local.list(after, count)

    def next_epoch(self, name: str, at_least: int) -> int:
        """Raises a session's epoch by one, or to `at_least` if that is more; returns it.

        Raises:
            SessionNotFound: No session of that name.
            WrongState: It lives at another node (SESSION_ELSEWHERE).
        """
        with self._lock:
            return self._node.claim(self._node.require_here(name), max(1, at_least)).epoch

    def rename(self, name: str, to: str) -> None:
        """Gives a session of this node another name; id, spec, time, epoch and lease stay.

        Raises:
            SessionNotFound, WrongState: As `next_epoch`.
            SessionExists: Any node has the other name, perhaps this one; then nothing changed.
        """
        with self._lock:
            local = self._node.require_here(name)
            self._node.require_free(to)
            self._node.reserve(replace(self._node.claim(local), name=to))
            self._local.rename(name, to)
            self._leases.rename(name, to)
            try:
                self._node.joined(lambda: self._node.names.clear(name))
            except ManifestUnavailable as error:
                # It is done; what is left in Redis goes when it is told again.
                self._node.lost()
                _LOGGER.warning("manifest: expected to free a session's former name now, it will be later: %s", error)

    def delete(self, name: str) -> None:
        """Removes a session of this node. Raises SessionNotFound, WrongState (SESSION_ELSEWHERE)."""
        with self._lock:
            local = self._node.require_here(name)
            self._node.joined(lambda: self._node.names.remove(local, self._leases.holds(name)))
            self._local.delete(name)
            self._leases.drop(name)

    def require_held(self, name: str, epoch: int) -> None:
        """Passes a writer of this epoch while this node holds the session's lease, by its own clock.

        Raises:
            StaleEpoch: Another node has the session, or a later epoch was given.
            ManifestUnavailable: The lease ran out because Redis did not answer.
        """
        self._leases.require(name, epoch)

    def check(self) -> None:
        """Passes if the file can be read and Redis answers."""
        self._local.check()
        self._node.state.ping()

    def announce(self, address: str) -> None:
        """Tells the other nodes where this one listens."""
        with self._lock:
            self._node.announce(address)

    def renew(self) -> None:
        """Makes every lease last from now on, and takes back those that ran out and nobody else took.

        Raises:
            ManifestUnavailable: Not all could be renewed.
        """
        names, asked_s = self._leases.wanted(), self._clock()
        try:
            renewed = self._node.state.renew(names, self._node.owner)
        except RedisLost:
            self._node.lost()
            renewed = [False] * len(names)
        for name, own in zip(names, renewed, strict=True):
            if own:
                self._leases.renew(name, asked_s)
        with self._lock:
            self._node.reclaim([name for name, own in zip(names, renewed, strict=True) if not own])

    def close(self) -> None:
        """Gives the leases back and lets go of Redis and the file; no call may follow. A second call does nothing."""
        self._heartbeat.stop()
        with self._lock:
            self._node.close()
