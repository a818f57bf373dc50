"""Where a Redis manifest lives, as it is written on a command line.

    redis://HOST:PORT[/DB][?lease_ms=N]

Must not know: Redis, argparse.
"""

import re
from dataclasses import dataclass

from memsvc.errors import InvalidRequest

LEASE_MS_DEFAULT = 10_000
_LEASE_MS_MIN, _LEASE_MS_MAX = 500, 600_000
_ADDRESS = re.compile(
    r"redis://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})"
    r"(?:/(?P<database>\d{1,5})?)?(?:\?lease_ms=(?P<lease_ms>\d{1,6}))?"
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A database of a Redis server, and what its leases are granted for.

    Args:
        host: Without the brackets of an IPv6 address.
        lease_ms: The same for every node of one database; within it after a node is gone another may take its sessions.
    """

    host: str
    port: int
    database: int = 0
    lease_ms: int = LEASE_MS_DEFAULT

    @classmethod
    def parse(cls, text: str) -> "RedisAddress":
        """The address that a text names. Raises InvalidRequest (INVALID_SETTING) for what is none."""
        parts = _ADDRESS.fullmatch(text)
        if parts is not None and int(parts["port"]) < 65536:
            address = cls(
                parts["host"].strip("[]"),
                int(parts["port"]),
                int(parts["database"] or 0),
                int(parts["lease_ms"] or LEASE_MS_DEFAULT),
            )
            if _LEASE_MS_MIN <= address.lease_ms <= _LEASE_MS_MAX:
                return address
        raise InvalidRequest(
            "manifest: expected 'sqlite' or redis://HOST:PORT/DB, perhaps with "
            f"?lease_ms={_LEASE_MS_MIN} to {_LEASE_MS_MAX}, got {text!r}",
            reason="INVALID_SETTING",
        )

    def __str__(self) -> str:
        return f"redis://{self.host}:{self.port}/{self.database}"
