"""Whether what a process holds stays the same while it works on.

Memory is read at moments when nobody uses the server, and a line over the operations so far is fitted to it. What that
may rise by is derived, not chosen: a leak of the smallest object of Python, once an operation, is caught, and one step
of each thread's arena, which the C library takes from the system at a time and keeps, is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# `sys.getsizeof(object())`.
SMALLEST_OBJECT_BYTES = 16
# mallopt(3): M_TOP_PAD, and a page.
ARENA_STEP_BYTES = 132 * 1024


@dataclass(frozen=True)
class Sample:
    """What a server held when nobody used it.

    Args:
        operations: Done until then.
        memory_bytes: Its anonymous pages.
        threads, shared: Its threads, and its open files of shared memory.
    """

    operations: int
    memory_bytes: int
    threads: int
    shared: int


def rise_bytes(samples: Sequence[Sample]) -> float:
    """What the line through the memory of these samples rises by, from the first to the last: least squares."""
    count = len(samples)
    mean_x = sum(one.operations for one in samples) / count
    mean_y = sum(one.memory_bytes for one in samples) / count
    above = sum((one.operations - mean_x) * (one.memory_bytes - mean_y) for one in samples)
    slope = above / sum((one.operations - mean_x) ** 2 for one in samples)
    return slope * (samples[-1].operations - samples[0].operations)


def rise_allowed_bytes(samples: Sequence[Sample]) -> float:
    """What it may rise by."""
    operations = samples[-1].operations - samples[0].operations
    return SMALLEST_OBJECT_BYTES * operations + samples[-1].threads * ARENA_STEP_BYTES
