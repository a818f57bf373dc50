"""Settings of a worker, checked when the record is made; what each means to a caller is in docs/WORKER.md."""

from dataclasses import dataclass

from attn_client.errors import InvalidSettings


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise InvalidSettings(f"worker.{name}: expected {expected}, got {came!r}")


@dataclass(frozen=True)
class WorkerSettings:
    """How much one worker takes on.

    Args:
        rows_max: Requests that are answered at the same time; each holds sinks, window and recalled blocks on the
            device.
        queue_max: Requests that wait for a row; one more is refused.
        tokens_max: Tokens of one answer at most.
        tokens_default: Tokens of an answer whose request names no number.
        prompt_tokens_max: Tokens of one request's prompt.
        body_bytes_max: Bytes of one request's body.
        writer_wait_s: How long a request waits for another writer of its session to leave.
        memory_wait_s: How long a request waits for a memory server that is away.
        save_wait_s: How long memory may acknowledge nothing of what was read before the turn goes on unsaved.
    """

    rows_max: int = 8
    queue_max: int = 32
    tokens_max: int = 4096
    tokens_default: int = 128
    prompt_tokens_max: int = 131_072
    body_bytes_max: int = 8 << 20
    writer_wait_s: float = 10.0
    memory_wait_s: float = 3.0
    save_wait_s: float = 10.0

    def __post_init__(self) -> None:
        _require(1 <= self.rows_max <= 256, "rows_max", "1 to 256", self.rows_max)
        _require(0 <= self.queue_max <= 65536, "queue_max", "0 to 65536", self.queue_max)
        _require(1 <= self.tokens_max <= 1 << 20, "tokens_max", "1 to 1048576", self.tokens_max)
        within = 1 <= self.tokens_default <= self.tokens_max
        _require(within, "tokens_default", f"1 to {self.tokens_max} (tokens_max)", self.tokens_default)
        _require(self.prompt_tokens_max >= 1, "prompt_tokens_max", "1 or more", self.prompt_tokens_max)
        _require(1024 <= self.body_bytes_max <= 1 << 30, "body_bytes_max", "1024 to 2**30", self.body_bytes_max)
        _require(0.0 <= self.writer_wait_s <= 600.0, "writer_wait_s", "0 to 600", self.writer_wait_s)
        for name in ("memory_wait_s", "save_wait_s"):
            _require(0.0 < getattr(self, name) <= 600.0, name, "above 0, at most 600", getattr(self, name))
