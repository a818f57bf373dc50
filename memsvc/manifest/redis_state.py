"""What all nodes share in Redis, and the few steps by which any of them changes it. Every step is one Lua script.

    {memsvc:1}:server           hash    run_id of the Redis process that nodes told these keys; lease_ms; generation,
                                        another one each time that they were found gone or of another process
    {memsvc:1}:settling         string  there for lease_ms from then on: leases of before may still run
    {memsvc:1}:addresses        hash    node -> where it listens
    {memsvc:1}:names:NODE       set     sessions that a node holds, for clearing up after it
    {memsvc:1}:entry:NAME       hash    id, node, epoch, spec, created_unix_ms
    {memsvc:1}:lease:NAME       string  owner, with a time to live of lease_ms

The 1 is the version of this layout. The braces keep all keys in one slot of a cluster, so that a script may touch any.

Invariants:
    A script does nothing unless the process that runs it is the one under `server`, and the node that calls joined
    that generation: one that was emptied, restarted or put in another's place holds nothing, or what was true once,
    and answers LOST until the node has joined it.
    A change happens only if nothing it rests on has changed since it was looked at (compare and set).
Must not know: which changes are right.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from memsvc.errors import ManifestUnavailable
from memsvc.manifest.address import RedisAddress
from memsvc.manifest.base import SessionEntry

_PREFIX = "{memsvc:1}:"
_SERVER, _SETTLING, _ADDRESSES = (_PREFIX + name for name in ("server", "settling", "addresses"))
# How long one answer may take; a lease must outlast several.
_TIMEOUT_S_MAX = 1.0
_TIMEOUTS_PER_LEASE = 5
# Leases that one script renews.
_RENEWED_AT_ONCE = 500

_RUN_ID = "local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')\n"
_GUARD = (
    _RUN_ID
    + """
local known = redis.call('HMGET', KEYS[1], 'run_id', 'generation')
if known[1] ~= run or known[2] ~= ARGV[2] then return {'LOST'} end
"""
)
_JOIN = (
    _RUN_ID
    + """
if redis.call('HGET', KEYS[1], 'run_id') ~= run then
  redis.call('HSET', KEYS[1], 'run_id', run, 'lease_ms', ARGV[1], 'generation', ARGV[2])
  redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
end
local known = redis.call('HMGET', KEYS[1], 'generation', 'lease_ms')
return {known[1], known[2], redis.call('PTTL', KEYS[2])}
"""
)
_LOOK = (
    _GUARD
    + """
local entry = redis.call('HMGET', KEYS[4], 'id', 'node', 'epoch')
local address = entry[2] and redis.call('HGET', KEYS[3], entry[2])
return {'SEEN', entry[1] or '', entry[2] or '', entry[3] or '0', redis.call('GET', KEYS[5]) or '',
  redis.call('PTTL', KEYS[5]), redis.call('PTTL', KEYS[2]), address or ''}
"""
)
# Arguments 3 to 7 say what was looked at, and whether nothing may be settling.
_COMPARE = (
    _GUARD
    + """
local entry = redis.call('HMGET', KEYS[3], 'id', 'node', 'epoch')
if (entry[1] or '') ~= ARGV[3] or (entry[2] or '') ~= ARGV[4] or (entry[3] or '0') ~= ARGV[5]
  or (redis.call('GET', KEYS[4]) or '') ~= ARGV[6]
  or (ARGV[7] == '1' and redis.call('EXISTS', KEYS[2]) == 1) then return {'CHANGED'} end
"""
)
_PUT = (
    _COMPARE
    + """
redis.call('HSET', KEYS[3], 'id', ARGV[9], 'node', ARGV[10], 'epoch', ARGV[11], 'spec', ARGV[12],
  'created_unix_ms', ARGV[13])
redis.call('SADD', KEYS[5], ARGV[14])
if ARGV[8] ~= '' then redis.call('SET', KEYS[4], ARGV[8], 'PX', ARGV[1]) end
return {'DONE'}
"""
)
_REMOVE = (
    _COMPARE
    + """
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('SREM', KEYS[5], ARGV[8])
return {'DONE'}
"""
)
_RENEW = (
    _GUARD
    + """
local renewed = {'RENEWED'}
for at = 2, #KEYS do
  local own = redis.call('GET', KEYS[at]) == ARGV[3]
  renewed[at] = own and redis.call('PEXPIRE', KEYS[at], ARGV[1]) or 0
end
return renewed
"""
)
_RELEASE = """
for at = 1, #KEYS do
  if redis.call('GET', KEYS[at]) == ARGV[1] then redis.call('DEL', KEYS[at]) end
end
return {'DONE'}
"""


class RedisLost(Exception):
    """The Redis process holds nothing, or what was true once: it has to be joined first."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What Redis held of one name at one moment.

    Args:
        id: Of the session; "" if there is none.
        node: Which node holds it.
        epoch: The newest that was given.
        owner: Of the lease; "" if nobody has it.
        lease_ms: What is left of the lease, 0 without one.
        settling_ms: How long leases of an earlier Redis may still run, 0 if none can.
        address: Where the node listens; "" if it did not say.
    """

    id: str
    node: str
    epoch: int
    owner: str
    lease_ms: int
    settling_ms: int
    address: str


@dataclass(frozen=True, slots=True)
class Put:
    """An entry that is to be written.

    Args:
        node: Who holds the session from now on.
        owner: Who gets its lease for lease_ms; "" leaves the lease as it is.
        settled: Whether it must wait until nothing settles any more.
    """

    entry: SessionEntry
    node: str
    owner: str
    settled: bool


class RedisState:
    """Connections to Redis, made when they are first used, and again when they broke.

    Each method raises ManifestUnavailable where Redis does not answer in time or refuses, and those that look at
    sessions or leases raise RedisLost where it has to be joined first.

    Concurrency: any calls may overlap.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._lease_ms = str(address.lease_ms)
        # The one that this node joined.
        self._generation = ""
        timeout_s = min(_TIMEOUT_S_MAX, address.lease_ms / 1000 / _TIMEOUTS_PER_LEASE)
        self._redis = redis.Redis(
            host=address.host,
            port=address.port,
            db=address.database,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Once, for a connection that broke while it was idle. An answer that is late is not asked for twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )
        self._scripts = {
            text: self._redis.register_script(text) for text in (_JOIN, _LOOK, _PUT, _REMOVE, _RENEW, _RELEASE)
        }

    def ping(self) -> None:
        """Passes if Redis answers, whatever it holds."""
        with self._errors_translated():
            self._redis.ping()

    def join(self) -> int:
        """Goes by what this Redis holds from now on; returns for how many ms it settles still.

        Raises:
            ManifestUnavailable: Other nodes have leases of another length.
        """
        joined = self._run(_JOIN, [_SERVER, _SETTLING], [self._lease_ms, uuid.uuid4().hex])
        generation, lease_ms, settling_ms = joined[0].decode(), joined[1].decode(), int(joined[2])
        if lease_ms != self._lease_ms:
            expected = f"lease_ms {lease_ms}, as the other nodes have"
            raise ManifestUnavailable(f"expected {expected}, got {self._lease_ms}, at {self._address}")
        self._generation = generation
        return max(0, settling_ms)

    def look(self, name: str) -> Seen:
        """What there is of a name now."""
        keys = [_SERVER, _SETTLING, _ADDRESSES, _entry(name), _lease(name)]
        found = self._guarded(_LOOK, keys, [])
        session, node, epoch, owner, address = (found[at].decode() for at in (0, 1, 2, 3, 6))
        return Seen(session, node, int(epoch), owner, max(0, int(found[4])), max(0, int(found[5])), address)

    def put(self, seen: Seen, put: Put) -> bool:
        """Writes an entry, and its lease if it has an owner; False if something changed since it was looked at."""
        entry = put.entry
        new = _compared(seen, put.settled)
        new += [put.owner, entry.id, put.node, str(entry.epoch), entry.spec, str(entry.created_unix_ms), entry.name]
        return self._changed(_PUT, entry.name, put.node, new)

    def remove(self, name: str, node: str, seen: Seen) -> bool:
        """Removes an entry and its lease; False if something changed since it was looked at."""
        return self._changed(_REMOVE, name, node, [*_compared(seen, settled=False), name])

    def renew(self, names: Sequence[str], owner: str) -> list[bool]:
        """Makes leases of this owner last for lease_ms from now; says which of them are its own still."""
        renewed: list[bool] = []
        # Once at least: the answer says whether the process is still the one that was joined.
        for first in range(0, max(1, len(names)), _RENEWED_AT_ONCE):
            keys = [_SERVER, *map(_lease, names[first : first + _RENEWED_AT_ONCE])]
            renewed += map(bool, self._guarded(_RENEW, keys, [owner]))
        return renewed

    def release(self, names: Sequence[str], owner: str) -> None:
        """Gives leases of this owner back."""
        for first in range(0, len(names), _RENEWED_AT_ONCE):
            self._run(_RELEASE, [*map(_lease, names[first : first + _RENEWED_AT_ONCE])], [owner])

    def announce(self, node: str, address: str) -> None:
        """Notes where a node listens."""
        with self._errors_translated():
            self._redis.hset(_ADDRESSES, node, address)

    def names(self, node: str) -> Iterator[str]:
        """Sessions that a node is noted to hold, in no order; some may be gone, or come twice."""
        with self._errors_translated():
            for name in self._redis.sscan_iter(f"{_PREFIX}names:{node}", count=_RENEWED_AT_ONCE):
                yield name.decode()

    def close(self) -> None:
        """Closes the connections; a call would open them again."""
        self._redis.close()

    def _changed(self, script: str, name: str, node: str, values: list[str | bytes]) -> bool:
        keys = [_SERVER, _SETTLING, _entry(name), _lease(name), f"{_PREFIX}names:{node}"]
        return self._guarded(script, keys, values, "CHANGED") is not None

    def _guarded(self, script: str, keys: list[str], values: Sequence[str | bytes], other: str = "") -> Any:
        """The answer of a script that begins with the guard, without its first word; None if that is `other`."""
        word, *rest = self._run(script, keys, [self._lease_ms, self._generation, *values])
        if word == b"LOST":
            raise RedisLost
        return None if word.decode() == other else rest

    def _run(self, script: str, keys: list[str], values: Sequence[str | bytes]) -> Any:
        with self._errors_translated():
            return self._scripts[script](keys=keys, args=values)

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            came = " ".join(str(error).split())
            raise ManifestUnavailable(f"expected a Redis that answers, got {came}, at {self._address}") from error


def _entry(name: str) -> str:
    return f"{_PREFIX}entry:{name}"


def _lease(name: str) -> str:
    return f"{_PREFIX}lease:{name}"


def _compared(seen: Seen, settled: bool) -> list[str | bytes]:
    return [seen.id, seen.node, str(seen.epoch), seen.owner, "1" if settled else "0"]
