"""What all requests to the inspector share: who is let in, how pages are made, how errors are told.

Must not know: views, sessions.
"""

import json
from dataclasses import asdict, dataclass
from http import HTTPStatus
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from memsvc.clock import SystemClock
from memsvc.errors import MemsvcError, PermissionDenied, Unauthenticated
from memsvc.inspector import assets
from memsvc.inspector.door import Door, Reader
from memsvc.inspector.entrance import Visits, names_this_host
from memsvc.inspector.problems import status_of
from memsvc.inspector.rendering import Templates

JSON = "application/json"
_TWIN = ".json"


@dataclass(frozen=True)
class Problem:
    """What was wrong with a request: a line for people, a reason for programs."""

    problem: str
    reason: str


class Site:
    """One node's inspector.

    Args:
        listening: HOST:PORT.

    Attributes:
        cookie: Name of the cookie that a visit's id is in.
    """

    def __init__(self, door: Door, listening: str) -> None:
        self.door = door
        self.visits = Visits(SystemClock())
        self.templates = Templates(assets.missing(), with_login=not door.open_to_all)
        # Ports of a host share their cookies: each has a name of its own.
        self.cookie = f"memsvc-{listening.rpartition(':')[2]}"
        self._listening = listening

    def entered(self, request: Request) -> Reader:
        """What this request may read. Raises Unauthenticated, PermissionDenied, QuotaExceeded."""
        self.require_host(request)
        authorization = request.headers.get("authorization")
        if authorization is None:
            authorization = self.visits.authorization(request.cookies.get(self.cookie, ""))
        return self.door.admit(authorization)

    def require_host(self, request: Request) -> None:
        """Raises PermissionDenied for a name that somebody else may have pointed here."""
        host = request.headers.get("host", "")
        if self.door.open_to_all and not names_this_host(host, self._listening):
            message = f"expected a request to {self._listening} or localhost, got one to {host[:80]!r}"
            raise PermissionDenied(message, reason="HOST_UNKNOWN")

    def told(self, request: Request, error: Exception) -> Response:
        """An error as an answer: a page, or JSON where a twin or a program asked."""
        status, problem = _problem_of(error)
        path = request.url.path
        if path.endswith(_TWIN):
            return Response(json.dumps(asdict(problem)), status, media_type=JSON)
        if isinstance(error, Unauthenticated):
            target = f"{path}?{request.url.query}" if request.url.query else path
            return RedirectResponse(f"/login?next={quote(target)}", 303)
        return self.templates.page("problem.html", path, {"status": status, **asdict(problem)}, status)


def _problem_of(error: Exception) -> tuple[int, Problem]:
    if isinstance(error, MemsvcError):
        return status_of(error), Problem(str(error), error.reason)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return 400, Problem(f"{place}: {first['msg']}, got {str(first.get('input'))[:80]!r}", "INVALID_REQUEST")
    assert isinstance(error, HTTPException)
    reason = HTTPStatus(error.status_code).phrase
    return error.status_code, Problem(
        f"expected a page that there is, got {reason.lower()}", reason.upper().replace(" ", "_")
    )
