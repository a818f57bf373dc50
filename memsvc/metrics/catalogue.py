"""Every metric of a node, in one table; docs/OPERATIONS.md shows the same, and a test compares the two.

Must not know: who counts.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from memsvc.metrics.base import BlockPath, RecallOutcome

Kind = Literal["counter", "gauge", "histogram"]

# Seconds, from a call that looks something up to a replay of a long log.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Args:
        labels: Names of its labels.
        values: Of its one label, where all are known beforehand: they are shown from the start, at 0.
        buckets: Upper ends, of a histogram.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, help: str, label: str = "", values: tuple[str, ...] = ()) -> MetricSpec:
    return MetricSpec(name, "counter", help, (label,) if label else (), values)


def _seconds(name: str, help: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, "histogram", help, labels, buckets=_SECONDS)


METRICS = (
    _seconds("memsvc_rpc_seconds", "Duration of calls, and of streams from end to end", "method", "code"),
    _seconds("memsvc_step_seconds", "Taking one step: its search, its record in the log, and a wait for SYNC"),
    _seconds("memsvc_search_seconds", "Searching for the votes of one recall's tokens", "finder"),
    _seconds("memsvc_recall_seconds", "From a step that was taken to the end of the recall it asked for"),
    _seconds("memsvc_log_fsync_seconds", "One fsync of a session's log"),
    _counter("memsvc_recalls_total", "Recalls that ended", "outcome", get_args(RecallOutcome)),
    _counter("memsvc_tokens_total", "Tokens that writers added"),
    _counter("memsvc_bookmarks_total", "Bookmarks that entered a graph as writers added tokens"),
    _counter("memsvc_fetch_bytes_total", "Bytes of blocks sent to workers", "path", get_args(BlockPath)),
    _counter("memsvc_put_bytes_total", "Bytes of blocks stored for workers", "path", get_args(BlockPath)),
    _counter("memsvc_errors_total", "Calls, steps and blocks answered with an error", "reason"),
    _counter("memsvc_epoch_rejects_total", "Of these, requests of a writer whose epoch was stale"),
    _counter("memsvc_corruption_detected_total", "Times that bytes failed their checksum or their format"),
    MetricSpec("memsvc_sessions", "gauge", "Sessions in memory", ("state",), ("writing", "reading", "idle", "failed")),
    MetricSpec("memsvc_log_unsynced_bytes", "gauge", "Bytes of logs and blocks that a power loss now would take"),
    MetricSpec("memsvc_workers", "gauge", "Attach streams that are up"),
    MetricSpec("memsvc_ready", "gauge", "1 while the node takes work, else 0"),
    MetricSpec("memsvc_build_info", "gauge", "Always 1; says which version runs", ("version",)),
)

# What prometheus-client reads of the process by itself.
PROCESS_METRICS = (
    MetricSpec("memsvc_process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    MetricSpec("memsvc_process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    MetricSpec("memsvc_process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    MetricSpec("memsvc_process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    MetricSpec("memsvc_process_max_fds", "gauge", "Maximum number of open file descriptors."),
    MetricSpec("memsvc_process_open_fds", "gauge", "Number of open file descriptors."),
)
