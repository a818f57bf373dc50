"""Time, as the server reads it: one door, so that a test can hold the hands.

Must not know: what anyone waits for.
"""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the time is, and waiting for it to pass."""

    def monotonic_s(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    def unix_ms(self) -> int:
        """Milliseconds since 1970, as people's clocks say."""
        ...

    def wait(self, condition: threading.Condition, timeout_s: float) -> None:
        """Waits until the condition, whose lock is held, is notified or so many seconds have passed."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic_s(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def unix_ms(self) -> int:
        """Milliseconds since 1970, as people's clocks say."""
        return time.time_ns() // 1_000_000

    def wait(self, condition: threading.Condition, timeout_s: float) -> None:
        """Waits until the condition, whose lock is held, is notified or so many seconds have passed."""
        condition.wait(timeout_s)
