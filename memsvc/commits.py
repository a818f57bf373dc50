"""Group commit: callers that each want an fsync share one.

    call     call call       call               a call waits for the first round that begins after it came
    |        |    |          |
    [ round 1 ]   [  round 2  ][  round 3  ]     one round at a time; what a round makes durable was written before it

The first caller of a round leads it. If the round before was shared, it waits for others first: 2 ms at most, or until
256 KiB are to be made durable. Whoever is alone does not wait.

Invariants:
    A call returns only once a round that began after it has succeeded.
    After a round failed none is begun: whoever waits, and whoever comes later, is told the failure.
Must not know: files.
"""

import threading
from collections.abc import Callable

from memsvc.clock import Clock
from memsvc.errors import StorageFailed

WINDOW_S = 0.002
WINDOW_BYTES = 256 * 1024


class GroupCommit:
    """The fsyncs of one session.

    Args:
        sync: Makes durable whatever was written before it is called. Raises StorageFailed.
        unsynced_bytes: How much there is to be made durable.

    Concurrency: any calls may overlap.
    """

    def __init__(self, sync: Callable[[], None], unsynced_bytes: Callable[[], int], clock: Clock) -> None:
        self._sync = sync
        self._unsynced_bytes = unsynced_bytes
        self._clock = clock
        self._changed = threading.Condition()
        # Rounds that began, and that ended; one is led while somebody gathers for it or it runs.
        self._begun = self._ended = 0
        self._led = False
        # Callers of the round that is gathering, and of the one before.
        self._callers = self._callers_before = 0
        self._failure = ""

    @property
    def rounds(self) -> int:
        """Rounds that ended so far."""
        return self._ended

    def wait(self) -> None:
        """Waits until all that was written before the call is durable.

        Raises:
            StorageFailed: A round failed, now or earlier.
        """
        with self._changed:
            own = self._begun + 1
            self._callers += 1
            self._changed.notify_all()
            while self._led and self._ended < own and not self._failure:
                self._changed.wait()
            if self._failure:
                raise StorageFailed(self._failure)
            if self._ended >= own:
                return
            self._led = True
            self._gather()
            self._begun = own
            self._callers_before, self._callers = self._callers, 0
        self._lead()

    def _gather(self) -> None:
        """Waits for others to join, where there may be any."""
        end_s = self._clock.monotonic_s() + WINDOW_S
        while self._callers_before > 1 and self._unsynced_bytes() < WINDOW_BYTES:
            left_s = end_s - self._clock.monotonic_s()
            if left_s <= 0:
                break
            self._clock.wait(self._changed, left_s)

    def _lead(self) -> None:
        """Runs the round that began."""
        failure = "an fsync that did not end"
        try:
            self._sync()
            failure = ""
        except BaseException as error:
            failure = str(error) or type(error).__name__
            raise
        finally:
            with self._changed:
                self._failure = failure
                self._ended = self._begun
                self._led = False
                self._changed.notify_all()
