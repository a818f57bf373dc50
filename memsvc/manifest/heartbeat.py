"""A thread that does one thing again and again until it is stopped: leases end where nobody renews them.

Must not know: what a beat does.
"""

import logging
import threading
from collections.abc import Callable

from memsvc.errors import MemsvcError

_LOGGER = logging.getLogger(__name__)


class Heartbeat:
    """Calls `beat` every `every_s` seconds, and every `again_s` while it fails; begins when it is made.

    A failure is logged when the one before it did not fail. One that is no MemsvcError is a bug: it is logged with its
    trace, and the beats go on.
    """

    def __init__(self, beat: Callable[[], None], every_s: float, again_s: float) -> None:
        self._beat = beat
        self._every_s = every_s
        self._again_s = again_s
        self._stopped = threading.Event()
        # A daemon: a process that ends in another way than by `stop` is not kept by it.
        self._thread = threading.Thread(target=self._run, name="memsvc-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for a beat that has begun. A second call does nothing."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        failing = False
        while not self._stopped.wait(self._again_s if failing else self._every_s):
            failing = not self._beats(failing)

    def _beats(self, failing: bool) -> bool:
        try:
            self._beat()
        except MemsvcError as error:
            if not failing:
                _LOGGER.warning("leases: expected to renew them, got: %s", error)
            return False
        except Exception as error:
            _LOGGER.error("leases: expected to renew them, got a bug", exc_info=error)
            return False
        return True
