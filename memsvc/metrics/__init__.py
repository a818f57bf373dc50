"""What a node counts and times, for Prometheus to fetch.

    catalogue     every metric: name, kind, labels, meaning
    base          what a node tells; noted by nobody as it stands
    prometheus    the same, noted; needs prometheus-client, the extra `observe`
    storage       the disk, with the fsyncs of logs timed
    http          the small HTTP server that the numbers are fetched from

Invariants:
    Names begin with `memsvc_`; units are seconds and bytes.
    A label has few values, all of them ours: no session, tenant, worker or id is ever one.
"""

from memsvc.metrics.base import Figures, Metrics
from memsvc.metrics.storage import TimedStorage

__all__ = ["Figures", "Metrics", "TimedStorage"]
