"""One node at a Redis that others share: what its own file has, what it holds under lease, and what it told Redis.

    DIR/manifest.sqlite    the sessions of this node and their epochs; as with the embedded manifest, the truth
    Redis                  for every name of all nodes: session, node, newest epoch, lease; made again from the files

    a node                 is a folder on a host: a copy of it elsewhere is another node

Invariants:
    An epoch is in the file before it is returned: what Redis says later cannot lower it.
    Redis is asked nothing before it was told of every session of this node; one that was emptied, restarted or replaced
    is told again, of the leases that are held first.
"""

import hashlib
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from memsvc.errors import ManifestUnavailable, SessionExists, SessionNotFound, WrongState
from memsvc.lease import Clock, Leases
from memsvc.manifest.address import RedisAddress
from memsvc.manifest.base import SessionEntry
from memsvc.manifest.redis_names import RedisNames
from memsvc.manifest.redis_state import RedisLost, RedisState
from memsvc.manifest.sqlite import SqliteManifest

T = TypeVar("T")

# How often in one call a Redis is told that turns out to be another again.
_TELLINGS_MAX = 5
_PAGE = 1000

_LOGGER = logging.getLogger(__name__)


def node_of(data: Path) -> str:
    """Names the node that a data folder is on this host, 32 hex digits; a copy of it, or on another host, differs."""
    found = data.stat()
    return hashlib.sha256(f"{socket.gethostname()} {found.st_dev} {found.st_ino}".encode()).hexdigest()[:32]


class RedisNode:
    """A node's file, leases and connection, kept in step. One call at a time, but for `leases` and `state`.

    Args:
        owner: Names this process in its leases; made up if it is "".

    Attributes:
        node: Its own name among the nodes.
        owner: As given or made up.
        local: The file.
        leases: What it holds.
        state: The connection.
        names: What it may change there.
    """

    def __init__(self, data: Path, address: RedisAddress, owner: str, clock: Clock) -> None:
        self.node = node_of(data)
        self.owner = owner or uuid.uuid4().hex
        self.leases = Leases(address.lease_ms / 1000, clock)
        self.local = SqliteManifest(data / "manifest.sqlite")
        self.state = RedisState(address)
        self.names = RedisNames(self.state, self.node, self.owner)
        self._clock = clock
        self._listens_at = ""
        # Whether the Redis that is there was told of every session of this node.
        self._told = False

    def close(self) -> None:
        """Gives the leases back, and closes connection and file; a second call does nothing."""
        held = self.leases.wanted()
        for name in held:
            self.leases.drop(name)
        try:
            self.state.release(held, self.owner)
        except ManifestUnavailable as error:
            _LOGGER.warning("leases: expected to give %d back, they run out instead: %s", len(held), error)
        self.state.close()
        self.local.close()

    def announce(self, address: str) -> None:
        """Tells where this node listens, now and whenever Redis is told again."""
        self._listens_at = address
        self.joined(lambda: self.state.announce(self.node, address))

    def require_free(self, name: str) -> None:
        """Raises SessionExists if this node has a session of that name."""
        if self.local.get(name) is not None:
            raise SessionExists(f"expected a name that is free, got {name!r}")

    def require_here(self, name: str) -> SessionEntry:
        """The session of that name that this node has. Raises WrongState (SESSION_ELSEWHERE), SessionNotFound."""
        if (local := self.local.get(name)) is None:
            self.joined(lambda: self.names.require_not_elsewhere(name))
            raise SessionNotFound(f"expected the name of a session, got {name!r}")
        return local

    def reserve(self, entry: SessionEntry) -> float:
        """Takes a free name in Redis with its lease; returns when that was asked for. Raises SessionExists."""
        asked_s = self._clock()
        self.joined(lambda: self.names.reserve(entry))
        return asked_s

    def claim(self, local: SessionEntry, at_least: int = 0) -> SessionEntry:
        """Takes or renews the lease of a session that this node has; above 0, `at_least` asks for a new epoch.

        Raises:
            WrongState: Another node has the session, or has more of it (SESSION_ELSEWHERE).
        """
        return self.joined(lambda: self._claim(local, at_least))

    def reclaim(self, names: list[str]) -> None:
        """Takes leases back, and notes those that another node has; tells Redis, if it has to be told.

        Raises:
            ManifestUnavailable: At the first of which it is not known.
        """
        self.joined(lambda: None)
        for name in names:
            self.joined(partial(self._reclaim, name))

    def lost(self) -> None:
        """Redis has to be told again, before it is asked anything."""
        self._told = False

    def joined(self, call: Callable[[], T]) -> T:
        """Does a call once Redis was told of this node's sessions, again if Redis turns out to be another."""
        for _ in range(_TELLINGS_MAX):
            try:
                if not self._told:
                    self._tell()
                return call()
            except RedisLost:
                self._told = False
        raise ManifestUnavailable("expected a Redis that stays, got one that was emptied or replaced again and again")

    def wait_until_settled(self, longest_s: float) -> None:
        """Tells Redis, and waits until leases of an earlier Redis or process of this node have run out."""
        end_s = self._clock() + longest_s
        while self._clock() < end_s:
            try:
                wait_ms = self._tell()
            except RedisLost:
                continue
            if not wait_ms:
                return
            time.sleep(wait_ms / 1000)

    def _claim(self, local: SessionEntry, at_least: int) -> SessionEntry:
        name, asked_s = local.name, self._clock()
        entry = self.names.claim(local, at_least, self.leases.holds(name))
        self.local.raise_epoch(name, entry.epoch)
        self.leases.grant(name, asked_s, entry.epoch)
        return entry

    def _reclaim(self, name: str) -> None:
        if (local := self.local.get(name)) is None:
            # Deleted or renamed since it was asked for.
            return
        try:
            self._claim(local, 0)
        except WrongState as error:
            # Without its name, which a client chose: the writer is told it.
            _LOGGER.warning("leases: expected to keep that of every session, lost one to another node")
            self.leases.lose(name, str(error))

    def _tell(self) -> int:
        """Makes Redis whole as far as this node goes; returns for how many ms leases of before may stand in its way."""
        wait_ms = self.state.join()
        if self._listens_at:
            self.state.announce(self.node, self._listens_at)
        held = [name for name in self.leases.wanted() if self.leases.holds(name)]
        for name in held:
            self._reclaim(name)
        for local in self._all_local():
            wait_ms = max(wait_ms, self.names.register(local))
        for name in set(self.state.names(self.node)):
            if self.local.get(name) is None:
                self.names.clear(name)
        self._told = True
        _LOGGER.info("manifest: told Redis of this node's sessions, %d of them in use", len(held))
        return wait_ms

    def _all_local(self) -> Iterator[SessionEntry]:
        after = ""
        while page := self.local.list(after, _PAGE):
            yield from page
            after = page[-1].name
