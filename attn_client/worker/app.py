"""The HTTP face: OpenAI's paths over an engine. Every error has OpenAI's shape; a stream is server-sent events.

    POST /v1/completions        GET /v1/models         GET /health
    POST /v1/chat/completions   GET /v1/models/{id}    GET /openapi.json

Invariant: a caller that leaves ends its request; nothing is generated for nobody.
Must not know: readers, sessions' insides, the memory server.
"""

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from attn_client import __version__
from attn_client.settings import RecallSettings
from attn_client.worker.asks import Ask, Event, Failed, Finished, Opened, Piece
from attn_client.worker.bodies import ChatBody, CompletionBody
from attn_client.worker.body_limit import BodyLimit
from attn_client.worker.engine import Engine
from attn_client.worker.failures import Failure, Refused
from attn_client.worker.generation import Generation
from attn_client.worker.replies import Json, Replies, error_json, model_json
from attn_client.worker.settings import WorkerSettings

INPUT_CHARACTERS_SHOWN = 80

_EVENTS = "text/event-stream"


def _now() -> int:
    return int(time.time())


@dataclass(frozen=True)
class Served:
    """What an app answers for: one model under one name, and the key that callers must have, if any."""

    engine: Engine
    model: str
    settings: WorkerSettings
    recall: RecallSettings
    api_key: str | None = None
    since: int = field(default_factory=_now)

    def require_model(self, name: str) -> None:
        """Raises Refused (404) for another model than the one that is served."""
        if name != self.model:
            shown = name[:INPUT_CHARACTERS_SHOWN]
            message = f"model: expected {self.model!r}, the one that is served here, got {shown!r}"
            raise Refused(Failure(404, "model_not_found", message, "model"))


class Conversation:
    """One request at the engine, as events on the loop that made it."""

    def __init__(self, engine: Engine, ask: Ask) -> None:
        self._loop, self._engine = asyncio.get_running_loop(), engine
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._generation: Generation = engine.submit(ask, self._emit)

    def _emit(self, event: Event) -> None:
        # A loop that has ended has no callers any more to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def opened(self) -> None:
        """Wait until the request has its place. Raises Refused."""
        event = await self._events.get()
        if isinstance(event, Failed):
            raise Refused(event.failure)

    async def events(self) -> AsyncIterator[Piece | Finished]:
        """The pieces, and at last what finishes them. Raises Refused."""
        while True:
            event = await self._events.get()
            if isinstance(event, Failed):
                raise Refused(event.failure)
            if isinstance(event, Opened):
                continue
            yield event
            if isinstance(event, Finished):
                return

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._engine.cancel(self._generation)


@contextlib.asynccontextmanager
async def _until_gone(request: Request, conversation: Conversation) -> AsyncIterator[None]:
    """Cancels the conversation when the caller leaves, or when the block is left."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        conversation.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        conversation.cancel()
        watching.cancel()


async def _answered(request: Request, served: Served, ask: Ask, replies: Replies) -> Response:
    conversation = Conversation(served.engine, ask)
    texts: list[str] = []
    async with _until_gone(request, conversation):
        async for event in conversation.events():
            if isinstance(event, Finished):
                return JSONResponse(replies.whole("".join(texts), event))
            texts.append(event.text)
    raise AssertionError("the events ended without a last one")


async def _streamed(request: Request, served: Served, ask: Ask, replies: Replies, *, usage: bool) -> Response:
    conversation = Conversation(served.engine, ask)
    async with contextlib.AsyncExitStack() as opening:
        await opening.enter_async_context(_until_gone(request, conversation))
        await conversation.opened()
        # Watched on, also by a response that is never begun.
        watched = opening.pop_all()

    async def events() -> AsyncIterator[str]:
        async with watched:
            if (first := replies.first()) is not None:
                yield _event(first)
            try:
                async for event in conversation.events():
                    if isinstance(event, Piece):
                        yield _event(replies.piece(event))
                        continue
                    yield _event(replies.last(event))
                    if usage:
                        yield _event(replies.usage(event))
                    yield "data: [DONE]\n\n"
            except Refused as refused:
                # The status has been sent: what went wrong can only be said in the stream.
                yield _event(error_json(refused.failure))

    return StreamingResponse(events(), media_type=_EVENTS, headers={"Cache-Control": "no-store"})


def _event(content: Json) -> str:
    return f"data: {json.dumps(content)}\n\n"


def make_app(served: Served) -> FastAPI:
    """The app of one model."""
    # Its pages of documentation load scripts from elsewhere; /openapi.json says the same.
    app = FastAPI(title="attn-client worker", version=__version__, docs_url=None, redoc_url=None)
    bearer = HTTPBearer(auto_error=False)

    async def admitted(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        given = credentials.credentials.encode() if credentials is not None else b""
        if served.api_key is not None and not hmac.compare_digest(given, served.api_key.encode()):
            came = "another one" if given else "none"
            message = f"Authorization: expected the API key of this worker as a bearer token, got {came}"
            raise Refused(Failure(401, "invalid_api_key", message))

    guarded: Any = {"dependencies": [Depends(admitted)]}

    @app.post("/v1/completions", responses=_answers(), **guarded)
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Continue a text."""
        return await _respond(request, body, Replies("text", served.model))

    @app.post("/v1/chat/completions", responses=_answers(), **guarded)
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """Answer a conversation."""
        return await _respond(request, body, Replies("chat", served.model))

    async def _respond(request: Request, body: CompletionBody | ChatBody, replies: Replies) -> Response:
        served.require_model(body.model)
        ask = body.ask(served.recall, served.settings)
        if body.streams:
            return await _streamed(request, served, ask, replies, usage=body.tells_usage)
        return await _answered(request, served, ask, replies)

    @app.get("/v1/models", responses=_errors(401), **guarded)
    async def models() -> Json:
        """The one model that is served."""
        return {"object": "list", "data": [model_json(served.model, served.since)]}

    @app.get("/v1/models/{model:path}", responses=_errors(401, 404), **guarded)
    async def model(model: str) -> Json:
        """It, by its name."""
        served.require_model(model)
        return model_json(served.model, served.since)

    @app.get("/health")
    async def health() -> Json:
        """Whether requests are taken, and whether memory is there; without it answers are degraded, not refused."""
        under_way, waiting = served.engine.load
        up = served.engine.rows.memory_is_up
        memory = "none" if up is None else "up" if up else "down"
        return {
            "status": "ok",
            "model": served.model,
            "memory": memory,
            "requests": under_way,
            "waiting": waiting,
        }

    _handle_errors(app)
    app.add_middleware(BodyLimit, bytes_max=served.settings.body_bytes_max)
    return app


def _answers() -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI says of a call that generates: one answer, or its pieces as they come."""
    event = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
    content = {"application/json": {"schema": {"type": "object"}}, _EVENTS: {"schema": event}}
    good: dict[int | str, dict[str, Any]] = {
        200: {"description": "The answer; with `stream`, as events", "content": content}
    }
    return good | _errors(400, 401, 403, 404, 409, 413, 429, 502, 503)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI says of errors."""
    schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "object"}}}
    content = {"application/json": {"schema": schema}}
    return {status: {"description": "An error in OpenAI's shape", "content": content} for status in statuses}


def response_of(failure: Failure) -> JSONResponse:
    """The response that tells a failure."""
    headers = {"Retry-After": str(max(1, round(failure.retry_s)))} if failure.retry_s else {}
    if failure.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_json(failure), failure.status, headers)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return response_of(error.failure)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return response_of(_failure_of_body(error))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        response = response_of(_failure_of_http(error))
        response.headers.update(error.headers or {})
        return response


def _failure_of_http(error: HTTPException) -> Failure:
    """What was refused before it came to a call of ours."""
    if error.status_code == 400:
        return Failure(400, "invalid_json", "body: expected JSON, got what cannot be read as such")
    expected = {404: "a path of this worker", 405: "a method that this path has"}.get(error.status_code)
    # Other details are messages of our own.
    message = error.detail if expected is None else f"expected {expected}, got another"
    return Failure(error.status_code, f"http_{error.status_code}", message)


def _failure_of_body(error: RequestValidationError) -> Failure:
    """The first thing that is wrong with a body; others would only repeat it."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Failure(400, "invalid_json", f"body: expected JSON, got an error at {first['loc'][-1]}")
    # Deeper parts name pydantic's own choices beside the fields.
    param = str(first["loc"][1]) if len(first["loc"]) > 1 else "body"
    if first["type"] == "extra_forbidden":
        return Failure(400, "unknown_field", f"{param}: expected only fields that this worker carries out", param)
    came = repr(first.get("input"))[:INPUT_CHARACTERS_SHOWN]
    return Failure(400, "invalid_value", f"{param}: {first['msg']}, got {came}", param)
