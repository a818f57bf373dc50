"""A node's numbers, noted for Prometheus. The one door to prometheus-client, which is the extra `observe`.

Invariants:
    Nothing outside the catalogue is noted.
    Two nodes of one process do not share numbers.
"""

import threading
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

import memsvc
from memsvc.metrics.base import BlockPath, Figures, Metrics, RecallOutcome
from memsvc.metrics.catalogue import METRICS, MetricSpec

M = TypeVar("M", Counter, Gauge, Histogram)


class PrometheusMetrics(Metrics):
    """Counts and times, until the numbers are fetched.

    Attributes:
        content_type: Of what `render` gives.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        # Times of a counter's making would double the lines. The library has one switch for the whole process.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._rendering = threading.Lock()
        counters, gauges, histograms = (_of(kind) for kind in ("counter", "gauge", "histogram"))
        self._counters = {
            own.name: _shown(own, Counter(own.name, own.help, own.labels, registry=self._registry)) for own in counters
        }
        self._gauges = {
            own.name: _shown(own, Gauge(own.name, own.help, own.labels, registry=self._registry)) for own in gauges
        }
        self._histograms = {
            own.name: Histogram(own.name, own.help, own.labels, buckets=own.buckets, registry=self._registry)
            for own in histograms
        }
        (self._states,) = (own.values for own in gauges if own.name == "memsvc_sessions")
        self._gauges["memsvc_build_info"].labels(memsvc.__version__).set(1)
        ProcessCollector("memsvc", registry=self._registry)

    def render(self, figures: Figures) -> bytes:
        """All numbers in the text format of Prometheus."""
        # One at a time: a gauge is set for the fetch that it is set by.
        with self._rendering:
            for state in self._states:
                self._gauges["memsvc_sessions"].labels(state).set(figures.sessions.get(state, 0))
            self._gauges["memsvc_log_unsynced_bytes"].set(figures.unsynced_bytes)
            self._gauges["memsvc_workers"].set(figures.workers)
            self._gauges["memsvc_ready"].set(figures.ready)
            return generate_latest(self._registry)

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """A call or stream ended."""
        self._histograms["memsvc_rpc_seconds"].labels(method, code).observe(seconds)

    def refused(self, reason: str, code: str) -> None:
        """A call, a step or a block was answered with an error."""
        self._counters["memsvc_errors_total"].labels(reason).inc()
        if reason == "STALE_EPOCH":
            self._counters["memsvc_epoch_rejects_total"].inc()
        if code == "DATA_LOSS":
            self.corruption_detected()

    def corruption_detected(self) -> None:
        """Bytes failed their checksum or their format."""
        self._counters["memsvc_corruption_detected_total"].inc()

    def step_applied(self, seconds: float, tokens: int, bookmarks: int) -> None:
        """A step was taken."""
        self._histograms["memsvc_step_seconds"].observe(seconds)
        self._counters["memsvc_tokens_total"].inc(tokens)
        self._counters["memsvc_bookmarks_total"].inc(bookmarks)

    def search_ended(self, finder: str, seconds: float) -> None:
        """The newest tokens' votes for a recall were searched for."""
        self._histograms["memsvc_search_seconds"].labels(finder).observe(seconds)

    def recall_ended(self, outcome: RecallOutcome, seconds: float) -> None:
        """A recall was answered or given up."""
        self._counters["memsvc_recalls_total"].labels(outcome).inc()
        self._histograms["memsvc_recall_seconds"].observe(seconds)

    def bytes_fetched(self, path: BlockPath, size_bytes: int) -> None:
        """A block was sent."""
        self._counters["memsvc_fetch_bytes_total"].labels(path).inc(size_bytes)

    def bytes_put(self, path: BlockPath, size_bytes: int) -> None:
        """A block was stored."""
        self._counters["memsvc_put_bytes_total"].labels(path).inc(size_bytes)

    def log_synced(self, seconds: float) -> None:
        """A log was fsynced."""
        self._histograms["memsvc_log_fsync_seconds"].observe(seconds)


def _of(kind: str) -> tuple[MetricSpec, ...]:
    return tuple(own for own in METRICS if own.kind == kind)


def _shown(spec: MetricSpec, metric: M) -> M:
    """The metric, with the values of its label that are known beforehand."""
    for value in spec.values:
        metric.labels(value)
    return metric
