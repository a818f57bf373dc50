"""What the services of one node share."""

from dataclasses import dataclass, field

from memsvc.auth.quotas import Quotas, no_quotas
from memsvc.metrics import Metrics
from memsvc.rpc.progress import Progress
from memsvc.rpc.threads import Threads
from memsvc.rpc.workers import Workers
from memsvc.session import Sessions
from memsvc.settings import LimitSettings


@dataclass(frozen=True)
class Node:
    """One node's sessions, who is attached to them, and what runs, limits and counts the work."""

    sessions: Sessions
    workers: Workers
    threads: Threads
    progress: Progress
    limits: LimitSettings
    quotas: Quotas = field(default_factory=no_quotas)
    metrics: Metrics = field(default_factory=Metrics)
