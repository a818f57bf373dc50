"""Faults on purpose in calls and in the messages of streams, as rules say; nothing of it is there without rules.

    caller --> requests --> [rules] --> handler --> responses --> [rules] --> caller

Invariants:
    Only the calls of memsvc's own services are touched: health goes on telling how the node is.
    A message that is held up holds up what is behind it in its stream, and no other stream.
    An error made here is a plain status without a reason, as a broken connection or a proxy would give.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
from google.protobuf.message import Message

from memsvc.lines import emit
from memsvc.rpc.interceptor import Behaviour, Context, Continuation, Handler, rewritten
from protos.corruption import corrupted
from protos.faults import ANY_CALL, PLACES, Fate, Faults, Kind, place_of

_OWN = "/protos.memsvc."

_LOGGER = logging.getLogger(__name__)


class InjectingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Does to calls what the rules say. The innermost one: what it does is seen by all others."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """The handler of the method under the rules; None where there is no such method."""
        handler: Any = await continuation(handler_call_details)
        name = handler_call_details.method.rpartition("/")[2]
        if handler is None or not handler_call_details.method.startswith(_OWN) or name not in PLACES:
            return cast("Handler", handler)
        streaming = handler.request_streaming
        return rewritten(
            handler, lambda behaviour: self._ruled(behaviour, name, streaming), handler.response_serializer
        )

    def _ruled(self, behaviour: Behaviour, name: str, streaming: bool) -> Behaviour:
        """The behaviour under the rules; a generator stays one, a coroutine too."""

        async def generator(request: Any, context: Context) -> AsyncIterator[Any]:
            call = _Call(self._faults, context)
            await call.begin(name)
            requests = call.requests(request) if streaming else request
            async with contextlib.aclosing(behaviour(requests, context)) as responses:
                async for response in responses:
                    passed = await call.passed(response)
                    if passed is not None:
                        yield passed

        async def coroutine(request: Any, context: Context) -> Any:
            call = _Call(self._faults, context)
            await call.begin(name)
            requests = call.requests(request) if streaming else request
            return await behaviour(requests, cast("Context", call))

        return generator if inspect.isasyncgenfunction(behaviour) else coroutine


class _Call:
    """One call; to a handler that writes its responses, the call's context."""

    def __init__(self, faults: Faults, context: Context) -> None:
        self._faults, self._context = faults, context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def begin(self, name: str) -> None:
        """Let the call begin; it may end here."""
        fate = await self._met(name, ANY_CALL)
        if fate.kind is Kind.DROP:
            # Until the caller leaves, its deadline passes or the server stops.
            await asyncio.Event().wait()

    async def write(self, response: Any) -> None:
        """Send a response, unless it is lost."""
        passed = await self.passed(response)
        if passed is not None:
            await self._context.write(passed)

    async def requests(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The requests that come through."""
        async for request in requests:
            passed = await self.passed(request)
            if passed is not None:
                yield passed

    async def passed(self, message: Any) -> Any:
        """What is left of a message; None if nothing is."""
        place = place_of(message) if isinstance(message, Message) else None
        if place is None:
            return message
        fate = await self._met(place)
        if fate.kind is Kind.CORRUPT:
            return corrupted(message, fate.draw, fate.field)
        return None if fate.kind is Kind.DROP else message

    async def _met(self, *places: str) -> Fate:
        """What becomes of what is at these places, once it has waited; an error ends the call."""
        fate = self._faults.fate(*places)
        if fate.wait_s:
            await asyncio.sleep(fate.wait_s)
        if fate.kind is not None:
            emit(_LOGGER, logging.INFO, "fault", method=places[0], problem=fate.kind.value)
        if fate.kind is Kind.ERROR:
            await self._context.abort(
                getattr(grpc.StatusCode, fate.code), f"expected an answer, got a fault on purpose at {places[0]}"
            )
        return fate
