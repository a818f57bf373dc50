"""What the run says: a line when a step begins, and one when it ends."""

import contextlib
import time
from collections.abc import Callable, Iterator

# Between two looks at something that is awaited.
LOOK_S = 1.0


class StepFailed(Exception):
    """A step did not hold; the message says what was expected and what came."""


class Steps:
    """Lines on standard output, with the seconds since the run began."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One step of the run."""
        self._say(f"{what} ...")
        began_s = time.monotonic()
        try:
            yield
        except BaseException:
            self._say(f"{what}: FAILED after {time.monotonic() - began_s:.1f} s")
            raise
        self._say(f"{what}: done in {time.monotonic() - began_s:.1f} s")

    def note(self, what: str) -> None:
        """Something that was found."""
        self._say(f"  {what}")

    def _say(self, what: str) -> None:
        print(f"[{time.monotonic() - self._began_s:6.1f} s] {what}", flush=True)


def expect(holds: bool, expected: str, came: object) -> None:
    """Raise StepFailed unless it holds."""
    if not holds:
        raise StepFailed(f"expected {expected}, got {came}")


def until(what: str, holds: Callable[[], bool], within_s: float) -> None:
    """Look again and again until it holds. Raises StepFailed if it does not in time."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise StepFailed(f"expected {what} within {within_s} s, it did not come")
        time.sleep(LOOK_S)
