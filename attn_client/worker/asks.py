"""What a request asks for once it is checked, and what it is told while it is answered.

Invariant: an Ask can be carried out by any worker with the same model; nothing in it names a connection.
Must not know: HTTP, JSON.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from attn_client.memory import RecallAnswer
from attn_client.settings import RecallSettings
from attn_client.worker.failures import Failure

FinishReason = Literal["stop", "length"]


class Mode(StrEnum):
    """What a request does to the session that it names."""

    # Go on in it, making it if it is not there.
    WRITE = "write"
    # The same, and it must hold nothing yet.
    CREATE = "create"
    # Go on from its newest tail, or a snapshot, and change nothing.
    READ = "read"
    # Go on in a fork of another session, making the fork if it is not there.
    FORK = "fork"


@dataclass(frozen=True)
class SessionAsk:
    """A session by name. `parent` is what a fork begins as; `snapshot` where a fork or a view begins, else the tail."""

    name: str
    mode: Mode = Mode.WRITE
    parent: str = ""
    snapshot: str = ""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest one at temperature 0. Without a seed a fresh one is drawn."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


# Text or token ids to continue, or a conversation to answer.
Prompt = str | tuple[int, ...] | tuple[Message, ...]


@dataclass(frozen=True)
class Ask:
    """One request.

    Args:
        session: None: the prompt is all there is.
        recall: How to recall; `remember` False: not at all, sinks and window only.
        tokens: Of the answer at most.
        stop: Texts that end the answer and are not part of it.
    """

    prompt: Prompt
    recall: RecallSettings
    tokens: int
    session: SessionAsk | None = None
    remember: bool = True
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation's new turns; none if the prompt is to be continued."""
        return () if isinstance(self.prompt, str) else tuple(one for one in self.prompt if isinstance(one, Message))


@dataclass(frozen=True)
class MemoryReport:
    """What memory did for an answer.

    Args:
        session: Name of the session that was used, if any was.
        mode: What was done to it: a Mode's value; "temporary"; "window" where sinks and window were all there was.
        position: Tokens read, those of the session included.
        saved: Whether the session now holds prompt and answer, durably.
        recalled: What the prompt's last pass attended to.
        degraded: What memory failed to do, in words.
    """

    session: str | None
    mode: str
    position: int
    resident_tokens_max: int
    saved: bool
    recalled: RecallAnswer | None
    degraded: tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    """The request has its place at its session; nothing has been read."""


@dataclass(frozen=True)
class Piece:
    """More of the answer's text, and a recall that came into force with it."""

    text: str
    recalled: RecallAnswer | None


@dataclass(frozen=True)
class Finished:
    """The answer is complete."""

    reason: FinishReason
    prompt_tokens: int
    answer_tokens: int
    memory: MemoryReport


@dataclass(frozen=True)
class Failed:
    """There will be no more of the answer."""

    failure: Failure


Event = Opened | Piece | Finished | Failed
Emit = Callable[[Event], None]
