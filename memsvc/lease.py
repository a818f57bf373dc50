"""The leases that this node holds, by its own clock: which sessions it may write, whatever anybody else says.

    asked ------------- others may take it: asked + ttl, at the earliest ->
    asked --- held until: asked + 0.9 ttl ->| nothing is written any more, until it is granted again

Invariants:
    A lease counts from before it was asked for, and ends here before it ends for others: clocks of two machines may
    run apart by a tenth.
    One that another node took is lost for good, and so is an epoch below the newest that was granted.
Must not know: who grants leases, sessions, logs.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from memsvc.errors import ManifestUnavailable, StaleEpoch

# Seconds that only ever rise, whether the process runs or not.
Clock = Callable[[], float]

# Of the time that a lease is granted for, the part that its holder uses.
_USED = 0.9


def boot_clock() -> float:
    """Seconds since the machine started; unlike time.monotonic, those that it slept are among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class _Lease:
    """Held until `until_s`, for writers of `epoch` and later ones.

    Args:
        lost: Who has it, if another node took it.
        former: Whether it is left to run out, because its session has another name now.
    """

    until_s: float
    epoch: int
    lost: str = ""
    former: bool = False


class Leases:
    """Leases of this node, by name.

    Args:
        ttl_s: What a lease is granted for.

    Concurrency: any calls may overlap.
    """

    def __init__(self, ttl_s: float, clock: Clock) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[str, _Lease] = {}

    def grant(self, name: str, asked_s: float, epoch: int) -> None:
        """It was granted; `asked_s` is when it was asked for, `epoch` the newest of the session."""
        with self._lock:
            self._leases[name] = _Lease(self._until(asked_s), epoch)

    def renew(self, name: str, asked_s: float) -> None:
        """It was granted for longer; what was dropped or lost meanwhile stays so."""
        with self._lock:
            lease = self._leases.get(name)
            if lease is not None and not lease.lost and not lease.former:
                self._leases[name] = replace(lease, until_s=max(lease.until_s, self._until(asked_s)))

    def lose(self, name: str, why: str) -> None:
        """Another node has it."""
        with self._lock:
            if (lease := self._leases.get(name)) is not None:
                self._leases[name] = replace(lease, lost=why)

    def rename(self, name: str, to: str) -> None:
        """The session has another name; whoever still asks by the former one is answered until that lease runs out."""
        with self._lock:
            if (lease := self._leases.get(name)) is not None:
                self._leases[to] = lease
                self._leases[name] = replace(lease, former=True)

    def drop(self, name: str) -> None:
        """Nobody here writes the session any more."""
        with self._lock:
            self._leases.pop(name, None)

    def wanted(self) -> list[str]:
        """Names of those that are to be renewed: held, or run out without another node having them."""
        with self._lock:
            return [name for name, lease in self._leases.items() if not lease.lost and not lease.former]

    def holds(self, name: str) -> bool:
        """Whether the session may be written now."""
        with self._lock:
            lease = self._leases.get(name)
        return lease is not None and not lease.lost and self._clock() < lease.until_s

    def require(self, name: str, epoch: int) -> None:
        """Passes whoever may write the session now.

        Raises:
            StaleEpoch: Another node has the lease, it was never held, or a newer writer's epoch was granted.
            ManifestUnavailable: It ran out, and nobody said yet who has it now.
        """
        with self._lock:
            lease = self._leases.get(name)
        if lease is None or lease.lost:
            came = lease.lost if lease else "none"
            raise StaleEpoch(f"expected the lease of session {name!r} at this node, got {came}")
        if epoch < lease.epoch:
            raise StaleEpoch(f"expected a writer of session {name!r} in epoch {lease.epoch} or later, got {epoch}")
        late_s = self._clock() - lease.until_s
        if late_s >= 0:
            raise ManifestUnavailable(
                f"expected the lease of session {name!r} renewed in time, got one that ran out {late_s:.1f} s ago"
            )

    def _until(self, asked_s: float) -> float:
        return asked_s + _USED * self._ttl_s
