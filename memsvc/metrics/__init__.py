"""What a node counts and times, for Prometheus to fetch or an OpenTelemetry collector to take.

    catalogue     every metric: name, kind, labels, meaning
    base          what a node tells; noted by nobody as it stands
    noting        from that to the metrics of the catalogue
    prometheus    kept to be fetched; needs prometheus-client, the extra `observe`
    telemetry     sent to a collector, with spans; needs opentelemetry, the extra `telemetry`
    storage       the disk, with the fsyncs of logs timed
    http          the small HTTP server that the numbers are fetched from

Invariants:
    Names begin with `memsvc_`; units are seconds and bytes.
    A label has few values, all of them ours: no session, tenant, worker or id is ever one.
"""

from memsvc.metrics.base import Figures, Metrics
from memsvc.metrics.noting import EachMetrics, NotingMetrics
from memsvc.metrics.storage import TimedStorage

__all__ = ["EachMetrics", "Figures", "Metrics", "NotingMetrics", "TimedStorage"]
