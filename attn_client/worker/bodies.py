"""Bodies of requests, as JSON has them, and the Ask that each makes.

A field that OpenAI's API has and this worker does not carry out is taken at its neutral value and refused at any other;
a field that neither knows is refused, and so are fields that contradict each other. So no answer ignores what was
asked. What says nothing of the answer, `user` and a message's `name`, is taken and has no effect.
"""

import dataclasses
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from attn_client.errors import InvalidSettings
from attn_client.settings import HOPS_MAX, LINK_HALF_LIFE_TOKENS_MAX, RecallSettings
from attn_client.worker.asks import Ask, Message, Mode, Prompt, Sampling, SessionAsk
from attn_client.worker.failures import Failure, Refused
from attn_client.worker.settings import WorkerSettings

NAME = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
SNAPSHOT = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
STOPS_MAX = 4
STOP_CHARACTERS_MAX = 256
# Below this, dividing by it is the likeliest token in all but rounding.
TEMPERATURE_MIN = 0.01

SessionName = Annotated[str, StringConstraints(pattern=NAME)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=STOP_CHARACTERS_MAX)]


def _whole_number(value: object) -> object:
    """JSON has one kind of number: 2.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole_number)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SessionBody(_Body):
    """A session: `write` goes on in it (the default), `create` in a new one, `read` changes nothing, `fork` goes on in
    a fork of `parent`.
    """

    name: SessionName
    mode: Literal["write", "create", "read", "fork"] = "write"
    parent: SessionName | None = None
    snapshot: Annotated[str, StringConstraints(pattern=SNAPSHOT)] | None = None

    def ask(self) -> SessionAsk:
        """The same, checked. Raises Refused."""
        if (self.mode == "fork") != (self.parent is not None):
            message = f"session.parent: expected it with mode 'fork' and only there, got mode {self.mode!r}"
            raise Refused(Failure(400, "invalid_value", message, "session.parent"))
        if self.snapshot is not None and self.mode not in ("fork", "read"):
            message = f"session.snapshot: expected it with mode 'fork' or 'read', got mode {self.mode!r}"
            raise Refused(Failure(400, "invalid_value", message, "session.snapshot"))
        return SessionAsk(self.name, Mode(self.mode), self.parent or "", self.snapshot or "")


class MemoryBody(_Body):
    """How this request recalls; what is not named is as the worker was started. `enabled` false: not at all."""

    enabled: bool = True
    top_blocks: Whole | None = Field(default=None, ge=1, le=4096)
    neighbours: Whole | None = Field(default=None, ge=0, le=8)
    alpha: float | None = Field(default=None, ge=0, le=100)
    lift: float | None = Field(default=None, ge=0, le=100)
    lag_tokens: Whole | None = Field(default=None, ge=0, le=64)
    timeout_s: float | None = Field(default=None, gt=0, le=600)
    hops: Whole | None = Field(default=None, ge=0, le=HOPS_MAX)
    hop_blocks: Whole | None = Field(default=None, ge=1, le=4096)
    link_half_life_tokens: Whole | None = Field(default=None, ge=0, le=LINK_HALF_LIFE_TOKENS_MAX)

    def recall(self, base: RecallSettings) -> RecallSettings:
        """The worker's settings with these in place. Raises Refused."""
        changed = self.model_dump(exclude={"enabled"}, exclude_none=True)
        try:
            return dataclasses.replace(base, **changed)
        except InvalidSettings as error:
            # Each setting is in its own range, and beside the worker's others it is not.
            raise Refused(Failure(400, "invalid_value", f"memory: {error}", "memory")) from None


class StreamOptions(_Body):
    """Options of a streamed answer."""

    include_usage: bool = False
    # Neutral value of what is not carried out.
    include_obfuscation: Literal[False] = False


class _Asking(_Body):
    """What both kinds of requests share."""

    model: str
    max_tokens: Whole | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: Whole | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS_MAX)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    session: SessionName | SessionBody | None = None
    memory: MemoryBody | None = None
    # Taken and of no effect on an answer.
    user: str | None = None
    # Neutral values of what is not carried out.
    n: Literal[1] | None = None
    presence_penalty: float | None = Field(default=None, ge=0, le=0)
    frequency_penalty: float | None = Field(default=None, ge=0, le=0)
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer is told as it comes."""
        return bool(self.stream)

    @property
    def tells_usage(self) -> bool:
        """Whether a streamed answer ends with its counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def _ask(self, prompt: Prompt, tokens: int | None, base: RecallSettings, settings: WorkerSettings) -> Ask:
        tokens = settings.tokens_default if tokens is None else tokens
        if tokens > settings.tokens_max:
            message = f"max_tokens: expected 1 to {settings.tokens_max}, got {tokens}"
            raise Refused(Failure(400, "invalid_value", message, "max_tokens"))
        if self.stream_options is not None and not self.streams:
            message = "stream_options: expected it beside stream: true and only there, got it without"
            raise Refused(Failure(400, "invalid_value", message, "stream_options"))
        memory = self.memory if self.memory is not None else MemoryBody()
        session = SessionBody(name=self.session) if isinstance(self.session, str) else self.session
        if session is not None and not memory.enabled:
            message = "memory.enabled: expected it to be true beside a session, got false"
            raise Refused(Failure(400, "invalid_value", message, "memory.enabled"))
        return Ask(
            prompt=prompt,
            recall=memory.recall(base),
            tokens=tokens,
            session=session.ask() if session is not None else None,
            remember=memory.enabled,
            sampling=self._sampling(),
            stop=self._stops(),
        )

    def _sampling(self) -> Sampling:
        temperature = self.temperature or 0.0
        if 0.0 < temperature < TEMPERATURE_MIN:
            message = f"temperature: expected 0, or {TEMPERATURE_MIN} to 2, got {temperature}"
            raise Refused(Failure(400, "invalid_value", message, "temperature"))
        return Sampling(temperature, 1.0 if self.top_p is None else self.top_p, self.seed)

    def _stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionBody(_Asking):
    """Body of /v1/completions: a text, or token ids, to continue."""

    prompt: str | list[Annotated[Whole, Field(ge=0)]]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None
    suffix: None = None

    def ask(self, base: RecallSettings, settings: WorkerSettings) -> Ask:
        """What it asks for. Raises Refused."""
        prompt = _whole(self.prompt, "prompt") if isinstance(self.prompt, str) else tuple(self.prompt)
        return self._ask(prompt, self.max_tokens, base, settings)


class TextPart(_Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class MessageBody(_Body):
    """A turn of a conversation; `developer` is another word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def message(self) -> Message:
        """The same as one text. Raises Refused."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, _whole(content, "messages"))


class TextFormat(_Body):
    """The one form of answers: text."""

    type: Literal["text"]


class ChatBody(_Asking):
    """Body of /v1/chat/completions: a conversation; beside a session only its new turns."""

    messages: list[MessageBody] = Field(min_length=1)
    max_completion_tokens: Whole | None = Field(default=None, ge=1)
    logprobs: Literal[False] | None = None
    tools: Annotated[list[object], Field(max_length=0)] | None = None
    response_format: TextFormat | None = None

    def ask(self, base: RecallSettings, settings: WorkerSettings) -> Ask:
        """What it asks for. Raises Refused."""
        tokens = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        if self.max_tokens not in (None, tokens):
            message = f"max_tokens: expected {tokens} as in max_completion_tokens, or none, got {self.max_tokens}"
            raise Refused(Failure(400, "invalid_value", message, "max_tokens"))
        return self._ask(tuple(one.message() for one in self.messages), tokens, base, settings)


def _whole(text: str, param: str) -> str:
    """The text, if it can be written as UTF-8: JSON can escape halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{param}: expected whole characters, got half of one at {error.start}"
        raise Refused(Failure(400, "invalid_value", message, param)) from None
    return text
