"""Who waits for a session to get further: recalls that wait for blocks.

Invariants:
    A change after `next_change` was called is never missed.
Must not know: what changed.
"""

import asyncio
from weakref import WeakValueDictionary


class Progress:
    """Wakes everyone who waits on a session; lives on the event loop."""

    def __init__(self) -> None:
        # Only as long as somebody waits: sessions come and go.
        self._changes: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def next_change(self, session: str) -> asyncio.Event:
        """Set at the session's next change. Take it before looking, so that no change falls between."""
        return self._changes.setdefault(session, asyncio.Event())

    def changed(self, session: str) -> None:
        """Blocks were put, or a step was applied."""
        change = self._changes.pop(session, None)
        if change is not None:
            change.set()
