"""A server that works on and on: what it holds in the end is what it held in the beginning.

SOAK_OPERATIONS     how many; a sample in an ordinary run
SOAK_CLIENTS        how many side by side
SOAK_REPORT         a file that the samples are written to, as JSON
"""

import asyncio
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.process_reading import descriptors, resident_bytes, shared_segments, threads, until
from tests.integration.server_process import TIMEOUT_S, served
from tests.soak.flatness import SMALLEST_OBJECT_BYTES, Sample, rise_allowed_bytes, rise_bytes
from tests.soak.soak_client import OPERATIONS, connected

WHOLE = int(os.environ.get("SOAK_OPERATIONS", "3000"))
CLIENTS = int(os.environ.get("SOAK_CLIENTS", "2"))
REPORT = os.environ.get("SOAK_REPORT", "")
# Of the whole run; of these the first part is not looked at: pools, caches and arenas fill.
SAMPLES, WARM_PART = 40, 0.4
# Fewer say nothing of memory: what waits for the collector of cycles, and pools that fill, are as much as a leak is.
MEMORY_FROM = 100_000
# As slow as nobody measured it; a run that takes longer hangs.
OPERATIONS_PER_S = 100


def _round(address: str, lives: int) -> int:
    """Lives of each client, side by side; how many operations they were. Every connection is gone afterwards."""

    async def one(client: int) -> int:
        async with connected(address, client) as soaking:
            return sum([await soaking.live() for _ in range(lives)])

    async def whole() -> int:
        return sum(await asyncio.gather(*(one(client) for client in range(CLIENTS))))

    return asyncio.run(whole())


@pytest.mark.timeout(300 + WHOLE // OPERATIONS_PER_S)
def test_a_server_that_works_on_and_on_holds_no_more(tmp_path: Path) -> None:
    """Proves that descriptors, threads and shared memory are after each round what they were after the first, and, of a
    run that is long enough, that memory does not rise by as much as the smallest object an operation."""
    samples: list[Sample] = []
    lives = max(1, WHOLE // (SAMPLES * CLIENTS * OPERATIONS))
    with served(tmp_path) as server:
        pid, done, begun = server.process.pid, 0, time.monotonic()
        done += _round(server.address, lives)
        idle = descriptors(pid)
        while done < WHOLE:
            done += _round(server.address, lives)
            # Connections are closed a moment after their clients have left.
            until(lambda: descriptors(pid) <= idle, TIMEOUT_S)
            samples.append(Sample(done, resident_bytes(pid), threads(pid), shared_segments(pid)))
        _report(samples, done / (time.monotonic() - begun))
    assert {one.shared for one in samples} == {0}
    warm = samples[int(WARM_PART * len(samples)) :]
    assert len({one.threads for one in warm}) == 1
    rise, allowed = rise_bytes(warm), rise_allowed_bytes(warm)
    told = f"expected memory to rise by at most {allowed:.0f} bytes, got {rise:.0f}: {warm}"
    assert done < MEMORY_FROM or rise <= allowed, told


def _report(samples: Sequence[Sample], operations_per_s: float) -> None:
    if REPORT:
        told = {"operations_per_s": operations_per_s, "samples": [dataclasses.asdict(one) for one in samples]}
        Path(REPORT).write_text(json.dumps(told) + "\n")


def test_a_leak_of_the_smallest_object_an_operation_is_seen() -> None:
    """Proves the measure: a rise of so much, on top of noise as large as arenas make, is more than is allowed, and the
    noise alone is not."""
    noise = [0, 200_000, -150_000, 90_000, 300_000, -300_000, 10_000, 0, 120_000, -80_000] * 4
    flat = [Sample(25_000 * (at + 1), 60_000_000 + own, 20, 0) for at, own in enumerate(noise)]
    assert rise_bytes(flat) <= rise_allowed_bytes(flat)
    leak = 2 * SMALLEST_OBJECT_BYTES
    leaking = [dataclasses.replace(one, memory_bytes=one.memory_bytes + leak * one.operations) for one in flat]
    assert rise_bytes(leaking) > rise_allowed_bytes(leaking)
