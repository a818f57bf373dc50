"""What a node tells of itself while it works.

Must not know: Prometheus, gRPC.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# How a block's bytes travelled: through a worker's shared memory, or in messages.
BlockPath = Literal["arena", "grpc"]
# Late: its blocks did not come in time. Refused: too many were waiting. Abandoned: its worker left.
RecallOutcome = Literal["answered", "late", "refused", "abandoned", "failed"]


@dataclass(frozen=True)
class Figures:
    """What is looked up when the numbers are fetched.

    Args:
        sessions: In memory, by state: `writing`, `reading`, `idle`, `failed`.
        unsynced_bytes: Of logs and blocks, that a power loss now would take.
        workers: Attach streams that are up.
        ready: Whether the node takes work.
    """

    sessions: Mapping[str, int]
    unsynced_bytes: int
    workers: int
    ready: bool


class Metrics:
    """Takes note of nothing: what a node has that nobody asked for numbers.

    Attributes:
        content_type: Of what `render` gives.

    Concurrency: any thread may call anything.
    """

    content_type = "text/plain; charset=utf-8"

    def render(self, figures: Figures) -> bytes:
        """All numbers, for whoever fetches them; here there are none."""
        raise NotImplementedError

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """A call or stream ended; `method` is one that the node has, or `other`."""

    def refused(self, reason: str, code: str) -> None:
        """A call, a step or a block was answered with an error."""

    def corruption_detected(self) -> None:
        """Bytes failed their checksum or their format."""

    def step_applied(self, seconds: float, tokens: int, bookmarks: int) -> None:
        """A step was taken; tokens and bookmarks that a writer added by it."""

    def search_ended(self, finder: str, seconds: float) -> None:
        """The newest tokens' votes for a recall were searched for."""

    def recall_ended(self, outcome: RecallOutcome, seconds: float) -> None:
        """A recall was answered or given up, so long after its step was taken."""

    def bytes_fetched(self, path: BlockPath, size_bytes: int) -> None:
        """A block was sent."""

    def bytes_put(self, path: BlockPath, size_bytes: int) -> None:
        """A block was stored."""

    def log_synced(self, seconds: float) -> None:
        """A log was fsynced."""

    def close(self) -> None:
        """The node has stopped: what was noted and not passed on is passed on now."""
