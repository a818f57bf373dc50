"""What each tenant may have: sessions, stored bytes, tokens and calls a second.

    calls       one past the rate is refused at once                             } buckets that fill at the rate
    tokens      paced: the stream waits; refused once it would wait too long     } and hold one second's worth
    sessions    counted anew for each one that is made
    bytes       counted on the disk every few seconds, and what was admitted since is added to that

Invariants:
    What is refused takes nothing.
    A refusal says after how many seconds it is worth trying again.

Concurrency: any calls may overlap.

Must not know: where sessions are kept, gRPC.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from memsvc.clock import Clock, SystemClock
from memsvc.errors import QuotaExceeded

# How long a count of stored bytes is believed, and what a refusal for want of room says to wait.
RECOUNT_S = 5.0
# Longest that a step is held back to keep to the rate.
PACE_MAX_S = 5.0


@dataclass(frozen=True, slots=True)
class Quota:
    """Of one tenant; None: no limit but the node's.

    Args:
        sessions_max: Sessions that it has.
        stored_bytes_max: Bytes of their files.
        tokens_per_s: Tokens of its steps, over all its workers.
        calls_per_s: Calls that begin.
    """

    sessions_max: int | None = None
    stored_bytes_max: int | None = None
    tokens_per_s: int | None = None
    calls_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one tenant has: the full names of its sessions, and the bytes of their files."""

    names: frozenset[str]
    stored_bytes: int


class Bucket:
    """Fills at a rate, holds one second's worth, and may be drawn below empty: the next draw waits for that.

    Args:
        per_s: Units a second.
    """

    def __init__(self, per_s: float, clock: Clock) -> None:
        self.per_s = per_s
        self._clock = clock
        self._level = self._most = max(per_s, 1.0)
        self._seen_s = clock.monotonic_s()

    def draw(self, units: float, wait_max_s: float) -> float:
        """Takes units; returns the seconds after which they are there. Raises QuotaExceeded past `wait_max_s`."""
        now = self._clock.monotonic_s()
        self._level = min(self._most, self._level + (now - self._seen_s) * self.per_s)
        self._seen_s = now
        # More at once than it ever holds goes when it is full, and leaves it below empty.
        wait_s = max(0.0, min(units, self._most) - self._level) / self.per_s
        if wait_s > wait_max_s:
            raise QuotaExceeded(
                f"expected at most {self.per_s:g} a second, got more", reason="RATE_EXCEEDED", retry_s=wait_s
            )
        self._level -= units
        return wait_s


class Quotas:
    """Keeps every tenant to its quota.

    Args:
        quota_of: What a tenant may have now.
        usage_of: What it has now; reads the disk.
    """

    def __init__(self, quota_of: Callable[[str], Quota], usage_of: Callable[[str], Usage], clock: Clock) -> None:
        self._quota_of = quota_of
        self._usage_of = usage_of
        self._clock = clock
        # Guards the two that follow: of tenants in the credentials' file, and so no more than it names over time.
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._stored: dict[str, _Stored] = {}

    def admit_call(self, tenant: str) -> None:
        """A call begins. Raises QuotaExceeded (RATE_EXCEEDED)."""
        self._draw(tenant, "calls", self._quota_of(tenant).calls_per_s, 1, 0.0)

    def pace(self, tenant: str, tokens: int) -> float:
        """Seconds to wait before these tokens are taken. Raises QuotaExceeded (RATE_EXCEEDED) past `PACE_MAX_S`."""
        return self._draw(tenant, "tokens", self._quota_of(tenant).tokens_per_s, tokens, PACE_MAX_S)

    def admit_bytes(self, tenant: str, size_bytes: int) -> None:
        """So many bytes are about to be stored. Reads the disk now and then. Raises QuotaExceeded."""
        most = self._quota_of(tenant).stored_bytes_max
        if most is None:
            return
        with self._lock:
            stored = self._stored.setdefault(tenant, _Stored())
        with stored.lock:
            now = self._clock.monotonic_s()
            if now >= stored.recount_at_s:
                # What is written while it counts may be missed by this count, and is seen by the next.
                stored.size_bytes = self._usage_of(tenant).stored_bytes
                stored.recount_at_s = now + RECOUNT_S
            if stored.size_bytes + size_bytes > most:
                raise _full(f"at most {most} stored bytes", f"{stored.size_bytes} and {size_bytes} more")
            stored.size_bytes += size_bytes

    def sessions_limited(self, tenant: str) -> bool:
        """Whether `admit_session` has to be asked."""
        return self._quota_of(tenant).sessions_max is not None

    def admit_session(self, tenant: str, name: str) -> None:
        """A session of this full name is about to be made; one that is there is fine. Raises QuotaExceeded.

        Concurrency: the caller makes one session of a tenant at a time.
        """
        most = self._quota_of(tenant).sessions_max
        if most is None:
            return
        names = self._usage_of(tenant).names
        if len(names) >= most and name not in names:
            raise _full(f"at most {most} sessions", "one more")

    def _draw(self, tenant: str, kind: str, per_s: int | None, units: float, wait_max_s: float) -> float:
        if per_s is None:
            return 0.0
        with self._lock:
            bucket = self._buckets.get((tenant, kind))
            if bucket is None or bucket.per_s != per_s:
                bucket = self._buckets[tenant, kind] = Bucket(per_s, self._clock)
            return bucket.draw(units, wait_max_s)


class _Stored:
    """Bytes of a tenant: counted at some time, and admitted since."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size_bytes = 0
        self.recount_at_s = float("-inf")


def no_quotas() -> Quotas:
    """Of a server without credentials: only the node's limits hold."""
    return Quotas(lambda _: Quota(), lambda _: Usage(frozenset(), 0), SystemClock())


def _full(expected: str, came: str) -> QuotaExceeded:
    return QuotaExceeded(f"quota: expected {expected}, got {came}", retry_s=RECOUNT_S)
