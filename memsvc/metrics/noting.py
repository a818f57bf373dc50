"""From what a node tells to the metrics of the catalogue: the same names, whoever keeps them.

Must not know: Prometheus, OpenTelemetry.
"""

from collections.abc import Sequence

from memsvc.metrics.base import BlockPath, Figures, Metrics, RecallOutcome


class NotingMetrics(Metrics):
    """Notes everything by `count` and `time`, which whoever keeps the numbers brings along."""

    def count(self, name: str, amount: float, *labels: str) -> None:
        """Adds to a counter of the catalogue; `labels` are the values of its labels, in order."""
        raise NotImplementedError

    def time(self, name: str, seconds: float, *labels: str) -> None:
        """Notes a duration, that ends now, in a histogram of the catalogue."""
        raise NotImplementedError

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """A call or stream ended."""
        self.time("memsvc_rpc_seconds", seconds, method, code)

    def refused(self, reason: str, code: str) -> None:
        """A call, a step or a block was answered with an error."""
        self.count("memsvc_errors_total", 1, reason)
        if reason == "STALE_EPOCH":
            self.count("memsvc_epoch_rejects_total", 1)
        if code == "DATA_LOSS":
            self.corruption_detected()

    def corruption_detected(self) -> None:
        """Bytes failed their checksum or their format."""
        self.count("memsvc_corruption_detected_total", 1)

    def step_applied(self, seconds: float, tokens: int, bookmarks: int) -> None:
        """A step was taken."""
        self.time("memsvc_step_seconds", seconds)
        self.count("memsvc_tokens_total", tokens)
        self.count("memsvc_bookmarks_total", bookmarks)

    def search_ended(self, finder: str, seconds: float) -> None:
        """The newest tokens' votes for a recall were searched for."""
        self.time("memsvc_search_seconds", seconds, finder)

    def recall_ended(self, outcome: RecallOutcome, seconds: float) -> None:
        """A recall was answered or given up."""
        self.count("memsvc_recalls_total", 1, outcome)
        self.time("memsvc_recall_seconds", seconds)

    def bytes_fetched(self, path: BlockPath, size_bytes: int) -> None:
        """A block was sent."""
        self.count("memsvc_fetch_bytes_total", size_bytes, path)

    def bytes_put(self, path: BlockPath, size_bytes: int) -> None:
        """A block was stored."""
        self.count("memsvc_put_bytes_total", size_bytes, path)

    def log_synced(self, seconds: float) -> None:
        """A log was fsynced."""
        self.time("memsvc_log_fsync_seconds", seconds)


class EachMetrics(NotingMetrics):
    """Several that keep the same numbers; what is fetched comes from the first."""

    def __init__(self, own: Sequence[NotingMetrics]) -> None:
        self._own = tuple(own)
        self.content_type = self._own[0].content_type

    def render(self, figures: Figures) -> bytes:
        """All numbers, as the first shows them."""
        return self._own[0].render(figures)

    def count(self, name: str, amount: float, *labels: str) -> None:
        """Adds to a counter of each."""
        for one in self._own:
            one.count(name, amount, *labels)

    def time(self, name: str, seconds: float, *labels: str) -> None:
        """Notes a duration in each."""
        for one in self._own:
            one.time(name, seconds, *labels)

    def close(self) -> None:
        """Closes each."""
        for one in self._own:
            one.close()
