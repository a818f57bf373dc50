"""Every call noted once it ends: in the numbers, and as a log line.

What a line says of a request is the tag of the session that it names, its epoch, and the id that the caller gave the
call (metadata `x-request-id`, of letters, digits and . _ -) or one made here. Nothing else of a request is looked at.

Invariants:
    This is the outermost interceptor: it sees what the others refuse.
    A method that the node does not have is noted as `other`: a caller makes no label.
"""

import contextlib
import inspect
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2, status_pb2

from memsvc.errors import AttachmentNotFound, MemsvcError
from memsvc.lines import Value, emit, session_tag
from memsvc.metrics import Metrics
from memsvc.rpc.errors import code_of
from memsvc.rpc.interceptor import Behaviour, Context, Continuation, Handler, rewritten
from memsvc.rpc.node import Node
from memsvc.session import Attachment, PendingRecall
from protos.memsvc.v1 import memory_pb2, types_pb2

REQUEST_ID = "x-request-id"

_STATUS_DETAILS = "grpc-status-details-bin"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# A person should look; whatever else a call ends with is its caller's business.
_OURS = frozenset(("INTERNAL", "UNKNOWN", "DATA_LOSS"))

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One call under way.

    Args:
        method: Service and method, as `SessionService/GetSession`.
        request: Id of the call.
        started_s: Of `time.perf_counter()`.
    """

    method: str
    request: str
    started_s: float


class ObservingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Notes how each call ended, and how long it took."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """The handler of the method, observed; None where there is no such method."""
        started_s = time.perf_counter()
        handler: Any = await continuation(handler_call_details)
        request = _request_id(handler_call_details.invocation_metadata)
        if handler is None:
            self._note(Call("other", request, started_s), "UNIMPLEMENTED", "", {})
            # gRPC answers UNIMPLEMENTED.
            return cast("Handler", None)
        call = Call(handler_call_details.method.rpartition(".")[2], request, started_s)
        return rewritten(handler, lambda behaviour: self._observed(behaviour, call), handler.response_serializer)

    def _observed(self, behaviour: Behaviour, call: Call) -> Behaviour:
        """The behaviour, noted when it ends; a generator stays one, a coroutine too."""

        async def generator(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._noting(call, request, context):
                async with contextlib.aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response

        async def coroutine(request: Any, context: Context) -> Any:
            with self._noting(call, request, context):
                return await behaviour(request, context)

        return generator if inspect.isasyncgenfunction(behaviour) else coroutine

    @contextlib.contextmanager
    def _noting(self, call: Call, request: Any, context: Context) -> Iterator[None]:
        code = "CANCELLED"
        try:
            yield
            code = _code(context, "OK")
        except grpc.aio.InternalError:
            # What is written to a call that its caller has left.
            raise
        except Exception:
            code = _code(context, "UNKNOWN")
            raise
        finally:
            self._note(call, code, _reason(context), _told_of(request))

    def _note(self, call: Call, code: str, reason: str, told: dict[str, Value]) -> None:
        seconds = time.perf_counter() - call.started_s
        self._metrics.call_ended(call.method, code, seconds)
        if reason:
            self._metrics.refused(reason, code)
            told = {"reason": reason, **told}
        level = logging.ERROR if code in _OURS else logging.INFO
        fields: dict[str, Value] = {
            "method": call.method,
            "code": code,
            "request": call.request,
            "seconds": round(seconds, 6),
        }
        emit(_LOGGER, level, "call", **fields, **told)


def apply_noted(
    metrics: Metrics, attachment: Attachment, step: memory_pb2.Step
) -> tuple[memory_pb2.Ack, PendingRecall | None]:
    """Applies a step, as `Session.apply`, and notes it unless it was applied before."""
    session, repeated = attachment.session, step.seq <= attachment.applied_seq
    before, started_s = session.bookmarks, time.perf_counter()
    ack, pending = session.apply(attachment, step)
    if repeated:
        return ack, pending
    seconds, written = time.perf_counter() - started_s, not attachment.is_view
    # Another writer's bookmarks may come between the two looks only where this step is refused.
    entered = max(0, ack.bookmarks - before) if written else 0
    metrics.step_applied(seconds, step.count if written else 0, entered)
    if pending is not None:
        finder = types_pb2.FinderKind.Name(session.spec.search.finder).removeprefix("FINDER_KIND_").lower()
        metrics.search_ended(finder, pending.search_s)
    return ack, pending


def note_refusal(node: Node, error: MemsvcError, attachment: str, **fields: Value) -> None:
    """Notes an error that a stream tells and survives: a step's or a block's of an attachment, if there is one."""
    code = code_of(error).name
    node.metrics.refused(error.reason, code)
    with contextlib.suppress(AttachmentNotFound):
        fields["session"] = session_tag(node.sessions.attachment(attachment).session.name)
    level = logging.ERROR if code in _OURS else logging.INFO
    emit(_LOGGER, level, "refused", code=code, reason=error.reason, **fields)


def _request_id(metadata: Any) -> str:
    given = next((value for key, value in metadata or () if key == REQUEST_ID), "")
    return given if isinstance(given, str) and _ID.fullmatch(given) else uuid.uuid4().hex[:16]


def _code(context: Context, otherwise: str) -> str:
    """The code that was set or aborted with."""
    code: Any = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else otherwise


def _reason(context: Context) -> str:
    """Reason of the error that the call was aborted with; empty if it was not, or not by us."""
    packed = dict(context.trailing_metadata() or ()).get(_STATUS_DETAILS)
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(packed).details if isinstance(packed, bytes) else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def _told_of(request: Any) -> dict[str, Value]:
    """Session tag and epoch of a single request; nothing of a stream's."""
    told: dict[str, Value] = {}
    name = getattr(request, "session", None) or getattr(request, "name", None)
    if isinstance(name, str):
        told["session"] = session_tag(name)
    epoch = getattr(request, "epoch", 0) or getattr(request, "resume_epoch", 0)
    if isinstance(epoch, int) and epoch:
        told["epoch"] = epoch
    return told
