"""Faults on purpose in a client's calls and in the messages of its streams, as rules say; off unless rules are given.

    client --> requests --> [rules] --> server --> responses --> [rules] --> client

Invariants:
    Nothing waits past a call's deadline, or once the call was cancelled.
    Nothing waits while a call is being made: the client holds its lock then. What is to befall a stream as a whole
        befalls its first response.
    What the client sends and keeps to send again is never changed, only a copy on its way.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from attn_client.errors import InvalidSettings
from protos.corruption import corrupted
from protos.faults import ANY_CALL, PLACES, Fate, FaultPlan, Faults, Kind, place_of

_LOGGER = logging.getLogger(__name__)


def faults_in(path: Path | None) -> Faults | None:
    """The rules in a file, at work; None without a file. Says so in the log.

    Raises:
        InvalidSettings: It cannot be read, or a rule does not hold.
    """
    if path is None:
        return None
    try:
        plan = FaultPlan.parse(path.read_bytes(), PLACES)
    except OSError as error:
        raise InvalidSettings(
            f"client.faults: expected a file that can be read, got {error.strerror}, at {path}"
        ) from None
    except ValueError as error:
        raise InvalidSettings(f"client.faults: {path}: {error}") from None
    _LOGGER.warning("FAULTS ARE ON: the memory fails on purpose, by %d rules in %s", len(plan.rules), path)
    return Faults(plan)


def under(channel: grpc.Channel, faults: Faults | None) -> grpc.Channel:
    """The channel under rules, if there are any."""
    return channel if faults is None else grpc.intercept_channel(channel, _Injecting(faults))


class InjectedError(grpc.RpcError):
    """A call that ended on purpose, as gRPC tells it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        """Its status."""
        return self._code

    def details(self) -> str:
        """Its message."""
        return self._details

    def trailing_metadata(self) -> tuple[()]:
        """None: no server said it."""
        return ()


class _Injecting(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Does to calls what the rules say."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """The call under the rules."""
        name = client_call_details.method.rpartition("/")[2]
        fate = self._faults.fate(name, ANY_CALL)
        wait_s, timeout_s = fate.wait_s, client_call_details.timeout
        if timeout_s is not None and (wait_s >= timeout_s or fate.kind is Kind.DROP):
            time.sleep(timeout_s)
            raise InjectedError(grpc.StatusCode.DEADLINE_EXCEEDED, f"fault on purpose: {name}")
        time.sleep(wait_s)
        if fate.kind is Kind.ERROR or fate.kind is Kind.DROP:
            # Without a deadline nobody could wait for what is lost.
            code = fate.code or grpc.StatusCode.UNAVAILABLE.name
            raise InjectedError(getattr(grpc.StatusCode, code), f"fault on purpose: {name}")
        return continuation(client_call_details, request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """The call under the rules."""
        stream = _Stream(self._faults, client_call_details)
        return stream.over(continuation(client_call_details, request))

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """The call under the rules."""
        stream = _Stream(self._faults, client_call_details)
        return stream.over(continuation(client_call_details, stream.requests(request_iterator)))


class _Stream:
    """A call with a stream of responses; iterate over it, or cancel it."""

    def __init__(self, faults: Faults, details: Any) -> None:
        self._faults = faults
        self._name = details.method.rpartition("/")[2]
        self._deadline = time.monotonic() + details.timeout if details.timeout is not None else None
        self._over = threading.Event()
        self._begun = False
        self._call: Any = None

    def over(self, call: Any) -> "_Stream":
        """This, around the real call."""
        self._call = call
        return self

    def cancel(self) -> bool:
        """End the call from this side."""
        self._over.set()
        return bool(self._call.cancel())

    def requests(self, requests: Iterator[Any]) -> Iterator[Any]:
        """The requests that come through."""
        try:
            for request in requests:
                try:
                    passed = self._passed(request)
                except InjectedError:
                    # The responses end with it too: the call is no more.
                    return
                if passed is not None:
                    yield passed
        finally:
            # Its end tells the client that nobody sends any more.
            requests.close()  # type: ignore[attr-defined]

    def __iter__(self) -> "_Stream":
        return self

    def __next__(self) -> Any:
        if not self._begun:
            self._begun = True
            if self._met(self._name, ANY_CALL).kind is Kind.DROP:
                self._wait(None)
        while True:
            passed = self._passed(next(self._call))
            if passed is not None:
                return passed

    def _passed(self, message: Any) -> Any:
        """What is left of a message; None if nothing is. Raises InjectedError."""
        place = place_of(message) if isinstance(message, Message) else None
        if place is None:
            return message
        fate = self._met(place)
        if fate.kind is Kind.CORRUPT:
            return corrupted(message, fate.draw, fate.field)
        return None if fate.kind is Kind.DROP else message

    def _met(self, *places: str) -> Fate:
        """What becomes of what is at these places, once it has waited. Raises InjectedError."""
        fate = self._faults.fate(*places)
        if fate.wait_s:
            self._wait(fate.wait_s)
        if fate.kind is Kind.ERROR:
            self._end(fate.code)
        return fate

    def _wait(self, wait_s: float | None) -> None:
        """So long, for ever if None; until the deadline or a cancel at most, which end the call."""
        left_s = self._deadline - time.monotonic() if self._deadline is not None else None
        late = left_s is not None and (wait_s is None or left_s <= wait_s)
        if self._over.wait(left_s if late else wait_s):
            self._end("CANCELLED")
        if late:
            self._end("DEADLINE_EXCEEDED")

    def _end(self, code: str) -> None:
        self._call.cancel()
        raise InjectedError(getattr(grpc.StatusCode, code), f"fault on purpose: {self._name}")
