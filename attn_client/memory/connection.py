"""One streaming call and the two threads at it: ours receives, gRPC's own draws the requests and so is the sender.

Invariant: once ended, the sender's generator returns at its next look, and the receiver's iteration ends by the
cancel.
"""

import threading
from dataclasses import dataclass, field
from typing import Protocol

from attn_client.errors import MemoryUnavailable


class Cancellable(Protocol):
    """What a gRPC call is to us here."""

    def cancel(self) -> bool:
        """End the call from this side."""


@dataclass(eq=False)
class Connection:
    """A call that is being made, is open, or has ended. Change it only while holding the link's condition."""

    ended: bool = False
    call: Cancellable | None = None
    sender_left: threading.Event = field(default_factory=threading.Event)

    def end(self) -> None:
        """Stop both threads; wake the sender yourself."""
        self.ended = True
        if self.call is not None:
            self.call.cancel()

    def join(self, receiver: threading.Thread, timeout_s: float) -> None:
        """Wait for both threads, outside the lock.

        Raises:
            MemoryUnavailable: One of them is still there after `timeout_s`.
        """
        receiver.join(timeout_s)
        left = self.call is None or self.sender_left.wait(timeout_s)
        if receiver.is_alive() or not left:
            who = receiver.name if receiver.is_alive() else f"the sender of {receiver.name}"
            raise MemoryUnavailable(f"expected thread {who} to end within {timeout_s} s, got one that goes on")
