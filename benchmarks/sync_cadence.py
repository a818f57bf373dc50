"""Fsyncs beside writing, as a server makes them: after every interval, on a thread of their own.

Two ways of writing the same pieces are comparable if they make the same rounds of fsyncs: by the clock, one that takes
less time would make fewer of them, and a short one none. So the rounds of the first are noted by how many pieces were
written when each began, and the other makes each at the same place.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Sync = Callable[[], None]


class Rounds:
    """Rounds of fsyncs beside a writer, who tells of each piece.

    Attributes:
        begun_at: Pieces written when each round began.
    """

    def __init__(self) -> None:
        self.begun_at: list[int] = []
        self.pieces = 0
        self._changed = threading.Condition()
        self._ended = False

    def wrote(self, pieces: int = 1) -> None:
        """So many more pieces are written."""
        with self._changed:
            self.pieces += pieces
            self._changed.notify_all()

    @contextmanager
    def every(self, interval_s: float, sync: Sync) -> Iterator[None]:
        """Around work beside which a round begins each interval after the one before ended."""
        with self._beside(lambda: self._by_the_clock(interval_s, sync)):
            yield

    @contextmanager
    def after(self, places: Sequence[int], sync: Sync) -> Iterator[None]:
        """Around work beside which a round begins after so many pieces each, or when the one before has ended."""
        with self._beside(lambda: self._by_place(places, sync)):
            yield

    @contextmanager
    def _beside(self, work: Callable[[], None]) -> Iterator[None]:
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            thread.join()

    def _by_the_clock(self, interval_s: float, sync: Sync) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._ended, interval_s):
                    return
                self.begun_at.append(self.pieces)
            sync()

    def _by_place(self, places: Sequence[int], sync: Sync) -> None:
        for place in places:
            with self._changed:
                while self.pieces < place and not self._ended:
                    self._changed.wait()
                if self.pieces < place:
                    return
                self.begun_at.append(self.pieces)
            sync()
