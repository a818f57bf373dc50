"""Settings of the connection to a memory server; checked when the record is made."""

from dataclasses import dataclass
from pathlib import Path

from attn_client.errors import InvalidSettings


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise InvalidSettings(f"client.{name}: expected {expected}, got {came!r}")


@dataclass(frozen=True)
class ClientSettings:
    """How long to wait, and how much to hold, on the way to a memory server.

    Args:
        connect_timeout_s: Until a server must have welcomed us, at the start.
        call_timeout_s: For one call, e.g. opening a session, which may make the server replay a long log.
        stall_timeout_s: A caller that waits for room gives up once nothing was acknowledged for so long.
        outbox_bytes_max: Steps and blocks that are not acknowledged yet, over all sessions.
        arena_bytes: Shared memory for blocks, half for each direction; 0: blocks always travel in messages.
        reconnect_first_s, reconnect_max_s: Pause before the first and the later attempts to connect again; doubles.
        token_file: File that holds the bearer token to call with; None: calls name no tenant.
        ca: Authority of the server's certificate, PEM: calls go by TLS; None: without.
        cert, key: Certificate to call with, and its key, PEM.
        faults: Rules by which the memory fails on purpose (format: `protos.faults`); None: off.
    """

    connect_timeout_s: float = 5.0
    call_timeout_s: float = 30.0
    stall_timeout_s: float = 30.0
    outbox_bytes_max: int = 64 << 20
    arena_bytes: int = 64 << 20
    reconnect_first_s: float = 0.05
    reconnect_max_s: float = 2.0
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    faults: Path | None = None

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "call_timeout_s", "stall_timeout_s", "reconnect_first_s", "reconnect_max_s"):
            value = getattr(self, name)
            _require(0.0 < value <= 3600.0, name, "above 0, at most 3600", value)
        _require(self.outbox_bytes_max >= 1 << 16, "outbox_bytes_max", "65536 or more", self.outbox_bytes_max)
        whole = self.arena_bytes == 0 or 1 << 16 <= self.arena_bytes <= 1 << 40
        _require(whole, "arena_bytes", "0, or 65536 to 2**40", self.arena_bytes)
        for name, other in (("cert", "key"), ("key", "cert"), ("cert", "ca")):
            missing = getattr(self, name) is not None and getattr(self, other) is None
            _require(not missing, name, f"client.{other} beside it", None)
