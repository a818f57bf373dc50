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
from memsvc.metrics.base import Figures
from memsvc.metrics.catalogue import METRICS, MetricSpec
from memsvc.metrics.noting import NotingMetrics

M = TypeVar("M", Counter, Gauge, Histogram)


class PrometheusMetrics(NotingMetrics):
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

    def count(self, name: str, amount: float, *labels: str) -> None:
        """Adds to a counter."""
        counter = self._counters[name]
        (counter.labels(*labels) if labels else counter).inc(amount)

    def time(self, name: str, seconds: float, *labels: str) -> None:
        """Notes a duration."""
        histogram = self._histograms[name]
        (histogram.labels(*labels) if labels else histogram).observe(seconds)


def _of(kind: str) -> tuple[MetricSpec, ...]:
    return tuple(own for own in METRICS if own.kind == kind)


def _shown(spec: MetricSpec, metric: M) -> M:
    """The metric, with the values of its label that are known beforehand."""
    for value in spec.values:
        metric.labels(value)
    return metric
