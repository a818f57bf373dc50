"""A limit on the bytes of a request's body, held while they come: what is too much is refused before it is kept."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Passes requests on to an app; reading a body that is longer than `bytes_max` raises HTTPException 413 there.

    Starlette's own limit answers in plain text, which no OpenAI client understands.
    """

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app, self._bytes_max = app, bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._bytes_max:
                raise HTTPException(413, f"body: expected at most {self._bytes_max} bytes, got more")
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)
