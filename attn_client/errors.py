"""What can go wrong on the model side, as one tree.

    AttnClientError
    |-- InvalidSettings             a setting is out of range or contradicts another
    |-- UnsupportedModel            the model lacks something that attaching needs
    |-- UnsupportedCall             the model is fine, this use of it is not
    |-- InvalidText                 a text file that is missing, empty or not text
    `-- MemoryFailure               the memory server did not do its part
        |-- MemoryUnavailable       no server, a lost connection, or no answer in time: trying again may help
        |-- MemoryRefused           the server said no; `reason` is its own word
        `-- MemoryProtocol          the server speaks another version

Invariant: a message is one line that says what was expected, what came, and where.
Must not know: gRPC; the error of each status is decided in `attn_client.memory.statuses`.
"""


class AttnClientError(Exception):
    """Root of the tree."""


class InvalidSettings(AttnClientError):
    """A setting is out of range; the message names it, its range and the value."""


class UnsupportedModel(AttnClientError):
    """The model cannot be attached; the message names what it lacks."""


class UnsupportedCall(AttnClientError):
    """The model is attached, but cannot be called in this way."""


class InvalidText(AttnClientError):
    """A text file that cannot be read as text."""


class MemoryFailure(AttnClientError):
    """The memory server did not do its part; its subclasses say why."""


class MemoryUnavailable(MemoryFailure):
    """No server at the address, the connection is lost, or an answer did not come in time."""


class MemoryRefused(MemoryFailure):
    """The server answered with an error of its own.

    Args:
        reason: The server's UPPER_SNAKE word for it, e.g. SESSION_HAS_WRITER; never changes.
        message: One line for a person; may change.
        retry_s: After how many seconds the server says that it is worth trying again; 0 if it says nothing.
    """

    def __init__(self, reason: str, message: str, retry_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_s = retry_s


class MemoryProtocol(MemoryFailure):
    """The server at the address speaks another version of the protocol, or another protocol."""
