"""Which node may have which name: the rules by which one node changes what all share in Redis.

Invariants:
    An epoch is above every one that Redis or this node ever held for the session, if a new one is asked for or the
    session comes from another node; else it is the highest of them.
    A node whose epoch of a session is behind another's never gets the session: it lacks what was written there.
    Nothing that was free is given away while leases of an earlier Redis may still run.
Must not know: this node's file, its clock.
"""

import logging
from dataclasses import replace

from memsvc.errors import ManifestUnavailable, SessionExists, WrongState
from memsvc.manifest.base import SessionEntry
from memsvc.manifest.redis_state import Put, RedisState, Seen

# How often a change is tried that others come between.
_TRIES = 20

_LOGGER = logging.getLogger(__name__)


class RedisNames:
    """Names of sessions, as one node takes, keeps and gives them up.

    Every method raises what RedisState raises, and ManifestUnavailable where others come between again and again.

    Args:
        node: Who holds the sessions.
        owner: Who holds the leases: one process of the node.
    """

    def __init__(self, state: RedisState, node: str, owner: str) -> None:
        self._state = state
        self._node = node
        self._owner = owner

    def reserve(self, entry: SessionEntry) -> None:
        """Takes a free name for a session that this node is about to have, with its lease.

        Raises:
            SessionExists: It is not free.
            ManifestUnavailable: It may not be.
        """
        for _ in range(_TRIES):
            seen = self._state.look(entry.name)
            # One of this node, which does not have it, was reserved by a call that never returned.
            if seen.id and not self._is_own(seen):
                raise SessionExists(f"expected a name that is free, got {entry.name!r}, held at {_place(seen)}")
            _require_settled(entry.name, seen)
            if self._state.put(seen, Put(entry, self._node, self._owner, settled=True)):
                return
        raise _contended(entry.name)

    def claim(self, local: SessionEntry, at_least: int, held: bool) -> SessionEntry:
        """Takes or renews the lease of a session that this node has; returns it with its epoch.

        Args:
            at_least: Above 0, asks for a new epoch, this one or a higher.
            held: Whether this node has the lease by its own clock.

        Raises:
            WrongState: Another node has the session, or has more of it (SESSION_ELSEWHERE).
            ManifestUnavailable: Another may have its lease.
        """
        for _ in range(_TRIES):
            seen = self._state.look(local.name)
            self._require_claimable(local, seen, held)
            # Another node had it as far as this one; if less far, Redis was told of it by a node that lost it.
            moved = bool(seen.id) and seen.node != self._node and seen.epoch >= local.epoch
            epoch = max(max(local.epoch, seen.epoch) + (moved or at_least > 0), at_least)
            entry = replace(local, epoch=epoch)
            if self._state.put(seen, Put(entry, self._node, self._owner, settled=not held)):
                return entry
        raise _contended(local.name)

    def remove(self, local: SessionEntry, held: bool) -> None:
        """Gives up a session that this node has. Raises as `claim`."""
        for _ in range(_TRIES):
            seen = self._state.look(local.name)
            self._require_claimable(local, seen, held)
            if self._state.remove(local.name, self._node, seen):
                return
        raise _contended(local.name)

    def require_not_elsewhere(self, name: str) -> None:
        """Passes a name that no node has. Raises WrongState (SESSION_ELSEWHERE), ManifestUnavailable if one may."""
        seen = self._state.look(name)
        if seen.id and seen.node != self._node:
            raise _elsewhere(name, seen)
        if not seen.id:
            _require_settled(name, seen)

    def register(self, local: SessionEntry) -> int:
        """Writes a session of this node that Redis lacks or has as it was before; its lease stays as it is.

        Returns:
            For how many ms an earlier process of this node may still have its lease.
        """
        for _ in range(_TRIES):
            seen = self._state.look(local.name)
            other = seen.id not in ("", local.id)
            if other:
                _LOGGER.error("manifest: expected every name here free, session %s has another node's", local.id)
            known = bool(seen.id) and seen.epoch >= local.epoch
            if other or known or self._state.put(seen, Put(local, self._node, "", settled=False)):
                return seen.lease_ms if seen.node == self._node and seen.owner != self._owner else 0
        raise _contended(local.name)

    def clear(self, name: str) -> None:
        """Removes a name that this node is said to have and does not."""
        for _ in range(_TRIES):
            seen = self._state.look(name)
            if not self._is_own(seen) or self._state.remove(name, self._node, seen):
                return
        raise _contended(name)

    def _is_own(self, seen: Seen) -> bool:
        return seen.node == self._node and seen.owner in ("", self._owner)

    def _require_claimable(self, local: SessionEntry, seen: Seen, held: bool) -> None:
        if seen.id and seen.id != local.id:
            raise _elsewhere(local.name, seen)
        if held and local.epoch > seen.epoch:
            # An older Redis: what it lost while the lease runs was this node's.
            return
        if seen.owner not in ("", self._owner):
            if seen.node == self._node:
                raise ManifestUnavailable(
                    f"expected the lease of session {local.name!r} free, got one that an earlier process of this node "
                    f"has for {seen.lease_ms} ms more",
                    retry_s=seen.lease_ms / 1000,
                )
            raise _elsewhere(local.name, seen)
        if seen.id and seen.node != self._node and seen.epoch > local.epoch:
            raise _elsewhere(local.name, seen)
        if not held:
            _require_settled(local.name, seen)


def _place(seen: Seen) -> str:
    return seen.address or "a node that did not say where it listens"


def _elsewhere(name: str, seen: Seen) -> WrongState:
    message = f"expected a session of this node, got {name!r}, which lives at {_place(seen)} in epoch {seen.epoch}"
    return WrongState(message, reason="SESSION_ELSEWHERE")


def _require_settled(name: str, seen: Seen) -> None:
    if seen.settling_ms:
        raise ManifestUnavailable(
            f"expected a Redis that every node told of its sessions, to ask for {name!r}, got one that is new, was "
            f"emptied or restarted, for {seen.settling_ms} ms more",
            retry_s=seen.settling_ms / 1000,
        )


def _contended(name: str) -> ManifestUnavailable:
    return ManifestUnavailable(f"expected to change session {name!r} within {_TRIES} tries, got others between each")
