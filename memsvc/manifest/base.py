"""What every manifest is: entries by name, an epoch that only rises, and who may write now.

Invariants:
    A name has at most one entry. An entry's id, spec and time never change; its name may.
    An epoch that `next_epoch` returned is never returned again for that entry.

Durability: what a call did survives power loss once it returns.

Concurrency: any calls may overlap.

Must not know: what a spec means, logs, blocks.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """One session of a node.

    Args:
        id: UUID, hex; names its folder.
        spec: A serialised SessionSpec.
        epoch: Fencing number of its newest writer; 0 if it never had one.
    """

    name: str
    id: str
    spec: bytes
    created_unix_ms: int
    epoch: int


# The protocol's own `list` hides the type from the annotations that follow it.
SessionEntries = list[SessionEntry]


class Manifest(Protocol):
    """The sessions of a node. Each method raises ManifestUnavailable where the manifest cannot be read or written.

    Where nodes share one, a session lives at one of them; a method that is given the name of another node's session
    raises WrongState with the reason SESSION_ELSEWHERE and the node's address.
    """

    def create(self, entry: SessionEntry) -> None:
        """Adds a session. Raises SessionExists if the name is taken; then nothing changed."""

    def get(self, name: str) -> SessionEntry | None:
        """The session of that name, if there is one."""

    def list(self, after: str, count: int) -> SessionEntries:
        """The first `count` sessions whose names come after `after`, by name; "" comes before all."""
        ...

    def next_epoch(self, name: str, at_least: int) -> int:
        """Raises a session's epoch by one, or to `at_least` if that is more; returns it.

        Raises:
            SessionNotFound: No session of that name.
        """
        ...

    def require_held(self, name: str, epoch: int) -> None:
        """Passes whoever may write a session that `get` or `create` returned, in an epoch that `next_epoch` returned.

        Answered from memory: asked before each write, and again before it is acknowledged.

        Raises:
            StaleEpoch: Another node has the session now, or a later epoch was given.
            ManifestUnavailable: It is not known whether this node still has it.
        """

    def check(self) -> None:
        """Passes if the manifest answers now: a new session can be made, a writer opened."""

    def announce(self, address: str) -> None:
        """Notes where this node listens, for clients that ask other nodes for its sessions."""

    def rename(self, name: str, to: str) -> None:
        """Gives a session another name; its id, spec, time and epoch stay.

        Raises:
            SessionNotFound: No session of that name.
            SessionExists: The other name is taken, perhaps by itself; then nothing changed.
        """

    def delete(self, name: str) -> None:
        """Removes a session, and every trace of it. Raises SessionNotFound if there is none of that name."""

    def close(self) -> None:
        """Lets go of the manifest; no call may follow. A second call does nothing."""
