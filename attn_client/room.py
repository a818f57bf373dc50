"""Who waits for room in memory: a text that is read, always; a prompt, until it waited in vain; decoding, never."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from attn_client.errors import MemoryUnavailable

T = TypeVar("T")


class Room:
    """The way of one reader into memory. What a prompt finds no room for is dropped: a recorded gap."""

    def __init__(self) -> None:
        self._prompting = False
        self._gave_up = False

    @contextlib.contextmanager
    def for_a_prompt(self) -> Iterator[None]:
        """Around a prompt: an answer never fails because memory does."""
        self._prompting = True
        try:
            yield
        finally:
            self._prompting = self._gave_up = False

    def hand_over(self, take: Callable[..., T], *, wait: bool) -> T:
        """Let memory take something.

        Raises:
            MemoryUnavailable: There was no room for a text, for as long as memory waits.
        """
        try:
            return take(wait=wait and not self._gave_up)
        except MemoryUnavailable:
            if not self._prompting:
                raise
            self._gave_up = True
            return take(wait=False)
