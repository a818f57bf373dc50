"""What the system says that a process holds."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1024 * 1024
SHARED = Path("/dev/shm")


def resident_bytes(pid: int) -> int:
    """Memory of a process, without what is on the disk anyway: its anonymous pages."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [one for one in lines if one.startswith("RssAnon:")]
    return 1024 * int(line.split()[1])


def descriptors(pid: int) -> int:
    """Descriptors that a process has open."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def threads(pid: int) -> int:
    """Threads of a process."""
    return len([*Path(f"/proc/{pid}/task").iterdir()])


def shared_segments(pid: int) -> int:
    """Files of shared memory that a process has open."""
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += Path(os.readlink(descriptor)).parent == SHARED
    return found


def until(holds: Callable[[], bool], within_s: float) -> None:
    """Looks again and again. Raises AssertionError once the time is over."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"expected it to hold within {within_s} s"
        time.sleep(0.05)
