"""A node's numbers, and a span for each thing that took time, sent to an OpenTelemetry collector by OTLP over gRPC. The
one door to opentelemetry, which is the extra `telemetry`.

    counters, histograms    those of the catalogue, every `_EVERY_MS`
    spans                   one for each call, step, search, recall and fsync of a log, made when that has ended

Invariants:
    Nothing outside the catalogue is sent: attributes are the labels there, so no session, tenant, worker or id is.
    A collector that does not answer costs what was to be sent to it, and nothing else: threads of its own send.
"""

import time

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import memsvc
from memsvc.metrics.catalogue import METRICS
from memsvc.metrics.noting import NotingMetrics

# Between two times that numbers are sent, and how long a sending or the last one may take.
_EVERY_MS, _TIMEOUT_S = 10_000, 2


class TelemetryMetrics(NotingMetrics):
    """Sends while it is open.

    Args:
        endpoint: Of the collector: http://HOST:PORT, or https:// for TLS.
    """

    def __init__(self, endpoint: str) -> None:
        resource = Resource.create({"service.name": "memsvc", "service.version": memsvc.__version__})
        numbers = OTLPMetricExporter(endpoint=endpoint, timeout=_TIMEOUT_S)
        self._meters = MeterProvider(
            [PeriodicExportingMetricReader(numbers, export_interval_millis=_EVERY_MS)], resource, shutdown_on_exit=False
        )
        self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_TIMEOUT_S)))
        self._tracer, meter = self._spans.get_tracer("memsvc"), self._meters.get_meter("memsvc")
        self._labels = {own.name: own.labels for own in METRICS}
        self._counters = {
            own.name: meter.create_counter(own.name, description=own.help) for own in METRICS if own.kind == "counter"
        }
        self._histograms = {
            own.name: meter.create_histogram(
                own.name, "s", own.help, explicit_bucket_boundaries_advisory=list(own.buckets)
            )
            for own in METRICS
            if own.kind == "histogram"
        }

    def count(self, name: str, amount: float, *labels: str) -> None:
        """Adds to a counter."""
        self._counters[name].add(amount, dict(zip(self._labels[name], labels, strict=True)))

    def time(self, name: str, seconds: float, *labels: str) -> None:
        """Notes a duration, and a span that ends now."""
        attributes = dict(zip(self._labels[name], labels, strict=True))
        self._histograms[name].record(seconds, attributes)
        ended_ns = time.time_ns()
        began_ns = ended_ns - round(seconds * 1e9)
        self._tracer.start_span(_span_name(name), attributes=attributes, start_time=began_ns).end(ended_ns)

    def close(self) -> None:
        """Sends what is left, as far as the collector takes it in time."""
        self._spans.shutdown()
        self._meters.shutdown(timeout_millis=1000 * _TIMEOUT_S)


def _span_name(histogram: str) -> str:
    return histogram.removesuffix("_seconds").replace("_", ".", 1)
