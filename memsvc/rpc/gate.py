"""Every call passes here before its handler: whose is it, may it, has its tenant room, which names does it mean.

    credential --> scope --> rate --> names inward --> handler --> names outward

Invariants:
    A handler runs only for a caller whose credential holds and has the scope; a stream, only as long as that is so: its
        next request after that ends it.
    Requests reach handlers, and responses callers, with names of the caller's own space.
Must not know: what a method does.
"""

import asyncio
import contextlib
import inspect
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Protocol, cast

import grpc

from memsvc.auth.caller import Caller
from memsvc.auth.names import Namespace, new_session
from memsvc.auth.quotas import Quotas
from memsvc.auth.rules import scopes_of, scopes_of_request
from memsvc.errors import Unauthenticated
from memsvc.rpc.interceptor import Behaviour, Context, Continuation, Handler, rewritten
from memsvc.rpc.parsing import each_parsed, parsed, tolerant
from memsvc.rpc.threads import Pool

# Names in a certificate, in the order in which they are looked up.
_IDENTITIES = ("x509_subject_alternative_name", "x509_common_name")


class Callers(Protocol):
    """Whose call it is, by the values of its `authorization` and the names in its certificate."""

    def __call__(self, authorization: Sequence[str], identities: Sequence[str]) -> Caller:
        """The caller. Raises Unauthenticated."""


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Lets calls in.

    Args:
        calls: Where what reads the disk runs.
    """

    def __init__(self, callers: Callers, quotas: Quotas, calls: Pool) -> None:
        self.callers, self.quotas, self.calls = callers, quotas, calls
        # By tenant: one session at a time is made, so that two do not both find room for one.
        self.making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """The handler of the method behind this gate; None where there is no such method."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return cast("Handler", None)
        call = _Call(self, handler_call_details.method)
        serialize = handler.response_serializer

        def outward(response: Any) -> bytes:
            # The one place that every response passes, whether returned, yielded or written.
            call.outward(response)
            return cast("bytes", serialize(response))

        deserialize = tolerant(handler.request_deserializer)
        return rewritten(
            handler, lambda behaviour: call.gated(behaviour, handler.request_streaming), outward, deserialize
        )


class _Call:
    """One call on its way through the gate."""

    def __init__(self, gate: Gate, method: str) -> None:
        self._gate, self._method = gate, method
        self._caller: Caller | None = None
        self._namespace: Namespace | None = None

    def outward(self, response: Any) -> None:
        """Names in a response as the caller knows them."""
        if self._namespace is not None:
            self._namespace.outward(response)

    def gated(self, behaviour: Behaviour, streaming: bool) -> Behaviour:
        """The behaviour for those who may; a generator stays one, a coroutine too."""

        async def generator(request: Any, context: Context) -> AsyncIterator[Any]:
            passed = self._enter(request, streaming, context)
            async with self._room_for(passed, streaming), contextlib.aclosing(behaviour(passed, context)) as responses:
                async for response in responses:
                    yield response

        async def coroutine(request: Any, context: Context) -> Any:
            passed = self._enter(request, streaming, context)
            async with self._room_for(passed, streaming):
                return await behaviour(passed, context)

        return generator if inspect.isasyncgenfunction(behaviour) else coroutine

    def _enter(self, request: Any, streaming: bool, context: Context) -> Any:
        """What the handler gets of the request, or of the requests. Raises what a call is refused with."""
        scopes = scopes_of(self._method)
        if not scopes:
            return each_parsed(request) if streaming else parsed(request)
        # Taken now: of a call that ended, nothing more can be asked.
        seen = _authorization(context), _identities(context)
        self._caller = caller = self._gate.callers(*seen)
        caller.require(scopes)
        self._gate.quotas.admit_call(caller.tenant)
        self._namespace = Namespace(caller)
        if streaming:
            return self._passing(request, lambda: self._gate.callers(*seen))
        return self._inward(request)

    async def _passing(self, requests: AsyncIterator[Any], again: Callable[[], Caller]) -> AsyncIterator[Any]:
        async for request in requests:
            if again() != self._caller:
                message = "expected a credential that allows what it did, got one that was changed: call again"
                raise Unauthenticated(message, reason="CREDENTIAL_CHANGED")
            yield self._inward(request)

    def _inward(self, request: Any) -> Any:
        assert self._caller is not None
        assert self._namespace is not None
        parsed(request)
        if scopes := scopes_of_request(request):
            self._caller.require(scopes)
        self._namespace.inward(request)
        return request

    @contextlib.asynccontextmanager
    async def _room_for(self, request: Any, streaming: bool) -> AsyncIterator[None]:
        """Around a call that makes a session: its tenant has room for one."""
        name = "" if streaming or self._caller is None else new_session(request)
        tenant, gate = self._caller.tenant if self._caller is not None else "", self._gate
        if not name or not gate.quotas.sessions_limited(tenant):
            yield
            return
        async with gate.making[tenant]:
            await gate.calls.run(gate.quotas.admit_session, tenant, name)
            yield


def _authorization(context: Context) -> list[str]:
    metadata: Iterable[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return [str(value) for key, value in metadata if key == "authorization"]


def _identities(context: Context) -> list[str]:
    names = context.auth_context()
    return [one.decode(errors="replace") for key in _IDENTITIES for one in names.get(key, ())]
