"""Settings of the memory server, checked against their ranges when the record is made.

Invariants:
    A default of a field stands here and nowhere else. Limits that are no settings are constants where they are kept to,
    or further fields of `memsvc.session.limits`.
    A value out of range is an InvalidRequest with the reason INVALID_SETTING that names field, range and value.
Must not know: gRPC, argparse, the environment.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from memsvc.errors import InvalidRequest
from memsvc.manifest import check_manifest

MIB = 1024 * 1024

# Highest that `message_bytes_max` may be set to: a reader that takes so much can read any server.
MESSAGE_BYTES_HIGHEST = 64 * MIB

# Longest path of a Unix socket: sun_path is 108 bytes with its closing zero (unix(7)).
SOCKET_PATH_BYTES_MAX = 107
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise InvalidRequest(f"{name}: expected {expected}, got {came!r}", reason="INVALID_SETTING")


def _within(record: object, name: str, low: int, high: int) -> None:
    value = getattr(record, name)
    _require(low <= value <= high, name, f"{low} to {high}", value)


def check_address(name: str, address: str) -> None:
    """Refuse what is neither `unix:///PATH` nor `HOST:PORT`; `name` is the field or option that holds it."""
    path = address.removeprefix("unix://")
    if path != address:
        _require(path.startswith("/"), name, "unix:///PATH or HOST:PORT", address)
        expected = f"a socket path of at most {SOCKET_PATH_BYTES_MAX} bytes"
        _require(len(path.encode()) <= SOCKET_PATH_BYTES_MAX, name, expected, path)
        return
    parts = _HOST_PORT.fullmatch(address)
    _require(parts is not None and int(parts[1]) < 65536, name, "unix:///PATH or HOST:PORT", address)


def is_local(address: str) -> bool:
    """Whether only this machine reaches an address: a Unix socket, or a loopback."""
    if address.startswith("unix://"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class LimitSettings:
    """How much the server takes on. One past any of these is refused, if nothing else is said.

    gRPC itself refuses a message past `message_bytes_max` and a call past `calls_max`. The oldest remembered recall
    gives way to a new one. One batch above the credit is refused; over several batches the client keeps to it.

    Args:
        message_bytes_max: Largest gRPC message, both ways.
        step_tokens_max: Tokens of one step.
        credit_tokens: Tokens a worker may have sent and not yet seen acknowledged.
        sessions_max: Sessions of the node.
        recalls_remembered: Newest recalls of a session that `explain` can still answer for.
        recalls_waiting_max: Recalls of one worker that wait for blocks.
        block_bytes_max: Bytes of one block; larger ones are refused when the session is made.
        stream_dims_max: Dimensions of one embedding.
        fetch_blocks_max: Blocks of one GetBlocks call.
        calls_max: Calls and streams that are open at once.
    """

    message_bytes_max: int = 8 * MIB
    step_tokens_max: int = 4096
    credit_tokens: int = 16384
    sessions_max: int = 4096
    recalls_remembered: int = 64
    recalls_waiting_max: int = 256
    block_bytes_max: int = 64 * MIB
    stream_dims_max: int = 16384
    fetch_blocks_max: int = 4096
    calls_max: int = 1024

    def __post_init__(self) -> None:
        _within(self, "message_bytes_max", 4 * MIB, MESSAGE_BYTES_HIGHEST)
        _within(self, "step_tokens_max", 1, 65536)
        _within(self, "credit_tokens", self.step_tokens_max, 2**24)
        _within(self, "sessions_max", 1, 1_000_000)
        _within(self, "recalls_remembered", 1, 65536)
        _within(self, "recalls_waiting_max", 1, 65536)
        _within(self, "block_bytes_max", 1, 1024 * MIB)
        _within(self, "stream_dims_max", 1, 16384)
        _within(self, "fetch_blocks_max", 1, 65536)
        _within(self, "calls_max", 2, 65536)


@dataclass(frozen=True)
class TimingSettings:
    """When the server does what by itself, in milliseconds.

    Args:
        sync_interval_ms: Between two fsyncs; what a power loss may take of BUFFERED acknowledgements.
        drain_grace_ms: What open streams get to finish after SIGTERM.
        ping_interval_min_ms: Client pings may come this often.
        ping_interval_ms: The server pings a silent connection this often, so that a dead worker is noticed.
        ping_timeout_ms: A ping not answered by then ends the connection.
    """

    sync_interval_ms: int = 200
    drain_grace_ms: int = 5_000
    ping_interval_min_ms: int = 30_000
    ping_interval_ms: int = 60_000
    ping_timeout_ms: int = 20_000

    def __post_init__(self) -> None:
        _within(self, "sync_interval_ms", 1, 60_000)
        _within(self, "drain_grace_ms", 0, 600_000)
        _within(self, "ping_interval_min_ms", 1_000, 600_000)
        _within(self, "ping_interval_ms", 1_000, 600_000)
        _within(self, "ping_timeout_ms", 1_000, 600_000)


@dataclass(frozen=True)
class ThreadSettings:
    """Threads by kind of work: a slow one never takes the threads of another kind.

    Args:
        steps: Apply steps and answer recalls.
        blocks: Store and read blocks.
        calls: Everything else, a session's replay included.
    """

    steps: int = 4
    blocks: int = 4
    calls: int = 4

    def __post_init__(self) -> None:
        _within(self, "steps", 1, 256)
        _within(self, "blocks", 1, 256)
        _within(self, "calls", 1, 256)


@dataclass(frozen=True)
class ObserveSettings:
    """How the server shows how it is.

    Args:
        http: HOST:PORT of /metrics, /livez and /readyz, which ask for no credential; port 0 is a free one. None: off.
        otlp: http://HOST:PORT (or https://) of an OpenTelemetry collector that takes OTLP over gRPC: numbers and spans
            are sent there. None: off.
        health_interval_ms: Between two looks at what the node needs: manifest, writes.
    """

    http: str | None = None
    otlp: str | None = None
    health_interval_ms: int = 1_000

    def __post_init__(self) -> None:
        if self.http is not None:
            _require(not self.http.startswith("unix:"), "http", "HOST:PORT", self.http)
            check_address("http", self.http)
        if self.otlp is not None:
            scheme, _, address = self.otlp.partition("://")
            _require(scheme in ("http", "https"), "otlp", "http://HOST:PORT or https://HOST:PORT", self.otlp)
            check_address("otlp", address)
        _within(self, "health_interval_ms", 10, 600_000)

    @property
    def on(self) -> bool:
        """Whether anybody is to see the numbers."""
        return self.http is not None or self.otlp is not None


@dataclass(frozen=True)
class AccessSettings:
    """Who may call. Without a token file everybody who reaches the server may do everything, and there are no tenants.

    Args:
        token_file: Credentials by tenant (format: `memsvc.auth.credentials`); read again when it changes.
        cert, key: The server's certificate chain and key, PEM: calls come by TLS.
        client_ca: Clients must have a certificate of this authority, PEM; the token file says whose it is.
        insecure: Take an address that other machines reach without a token file, or without TLS.
        reflection: Tell whoever may inspect which services there are.
    """

    token_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    insecure: bool = False
    reflection: bool = False

    def __post_init__(self) -> None:
        for name, other in (("cert", "key"), ("key", "cert"), ("client_ca", "cert"), ("client_ca", "token_file")):
            missing = getattr(self, name) is not None and getattr(self, other) is None
            _require(not missing, name, f"{other} beside it", None)


@dataclass(frozen=True)
class UpkeepSettings:
    """How the server looks after what is stored.

    Args:
        interval_s: Between two rounds over all sessions.
        scrub_bytes_per_s: Blocks are read again, and compared with their checksums, at most so fast; 0: never.
        keep_session_bytes: Bytes of blocks of one session, past which the oldest leave; 0: all stay.
        keep_block_s: Age past which blocks leave; 0: all stay.
    """

    interval_s: int = 600
    scrub_bytes_per_s: int = 4 * MIB
    keep_session_bytes: int = 0
    keep_block_s: int = 0

    def __post_init__(self) -> None:
        _within(self, "interval_s", 1, 86_400)
        _within(self, "scrub_bytes_per_s", 0, 1024 * MIB)
        _within(self, "keep_session_bytes", 0, 2**62)
        _within(self, "keep_block_s", 0, 2**40)


@dataclass(frozen=True)
class ServerSettings:
    """All of the above, and where the server lives.

    Args:
        data: Folder of this node's sessions; made if it is not there.
        listen: `unix:///PATH` or `HOST:PORT`; port 0 takes a free one.
        manifest: `sqlite`, a file in the data folder; `redis://HOST:PORT/DB`, shared with other nodes, beside it.
        faults: Rules by which calls and disk fail on purpose (format: `protos.faults`); None: off.
    """

    data: Path
    listen: str
    manifest: str = "sqlite"
    limits: LimitSettings = field(default_factory=LimitSettings)
    timing: TimingSettings = field(default_factory=TimingSettings)
    threads: ThreadSettings = field(default_factory=ThreadSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    observe: ObserveSettings = field(default_factory=ObserveSettings)
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)
    faults: Path | None = None

    def __post_init__(self) -> None:
        check_address("listen", self.listen)
        closed = self.access.token_file is not None and self.access.cert is not None
        expected = "a Unix socket or a loopback address, or token_file, cert and key, or insecure"
        _require(is_local(self.listen) or closed or self.access.insecure, "listen", expected, self.listen)
        check_manifest(self.manifest)
