"""Errors leave here: whatever a handler raises becomes one google.rpc.Status.

Invariants:
    A MemsvcError is answered with its own status, a method that its servicer lacks with UNIMPLEMENTED, anything else
        with INTERNAL and a log id.
    What gRPC raises itself (an abort, a cancelled call) passes untouched.
"""

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from grpc_status import rpc_status

from memsvc.rpc.errors import known, status_of

Context = grpc.aio.ServicerContext[Any, Any]
# Generic in the stubs, not at run time.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Any]
Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]

# What a generated servicer sets before it raises, as a status and as gRPC's core keeps it.
_UNIMPLEMENTED = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED.value[0])


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps every handler, of one request or many, of one answer or many."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """The handler of the method, guarded; None where there is no such method."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            # gRPC answers UNIMPLEMENTED.
            return cast("Handler", None)
        method = handler_call_details.method
        return rewritten(handler, lambda behaviour: _guarded(behaviour, method), handler.response_serializer)


def rewritten(
    handler: Any,
    change: Callable[[Behaviour], Behaviour],
    serialize: Serializer | None,
    deserialize: Deserializer | None = None,
) -> Handler:
    """The same handler with another behaviour and serializer, and another deserializer if one is given."""
    kind = f"{_cardinality(handler.request_streaming)}_{_cardinality(handler.response_streaming)}"
    made = getattr(grpc, f"{kind}_rpc_method_handler")(
        change(getattr(handler, kind)),
        request_deserializer=deserialize or handler.request_deserializer,
        response_serializer=serialize,
    )
    return cast("Handler", made)


def _cardinality(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _guarded(behaviour: Behaviour, method: str) -> Behaviour:
    """The behaviour with its errors turned into statuses; a generator stays one, a coroutine too."""

    async def generator(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            # A stream that the client left is closed here and now, not when the collector comes by.
            async with contextlib.aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:
            await _abort(error, method, context)

    async def coroutine(request: Any, context: Context) -> Any:
        try:
            return await behaviour(request, context)
        except Exception as error:
            await _abort(error, method, context)

    return generator if inspect.isasyncgenfunction(behaviour) else coroutine


async def _abort(error: Exception, method: str, context: Context) -> NoReturn:
    if isinstance(error, grpc.aio.BaseError):
        raise error
    if isinstance(error, NotImplementedError) and context.code() in _UNIMPLEMENTED:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"expected a method that this server has, got {method}")
    status = rpc_status.to_status(status_of(known(error, method)))
    await context.abort(status.code, status.details, status.trailing_metadata)
