"""Logging in and out: what turns a bearer token into a visit, and ends it.

Must not know: sessions.
"""

from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response

from memsvc.auth.token_file import SCHEME
from memsvc.errors import InvalidRequest, PermissionDenied, Unauthenticated
from memsvc.inspector.entrance import local_target, same_origin
from memsvc.inspector.site import Site

FORM_BYTES_MAX = 4096


def add_login(app: FastAPI, site: Site) -> None:
    """Adds the pages that begin and end a visit."""

    def form(next: str = "/sessions") -> Response:
        return _form(site, local_target(next))

    async def begin(request: Request) -> Response:
        fields = await _posted(request)
        target = local_target(fields.get("next", ""))
        authorization = f"{SCHEME}{fields.get('token', '').strip()}"
        try:
            site.door.admit(authorization)
        except Unauthenticated as error:
            return _form(site, target, str(error), 401)
        answer = RedirectResponse(target, 303)
        visit = site.visits.begin(authorization)
        answer.set_cookie(site.cookie, visit, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer

    async def end(request: Request) -> Response:
        await _posted(request)
        site.visits.end(request.cookies.get(site.cookie, ""))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(site.cookie)
        return answer

    app.add_api_route("/login", form, response_model=None, include_in_schema=False)
    app.add_api_route("/login", begin, methods=["POST"], response_model=None, include_in_schema=False)
    app.add_api_route("/logout", end, methods=["POST"], response_model=None, include_in_schema=False)


def _form(site: Site, target: str, problem: str = "", status: int = 200) -> Response:
    return site.templates.page("login.html", "/login", {"next": target, "problem": problem}, status)


async def _posted(request: Request) -> dict[str, str]:
    """Fields of a form that a page of this host sent. Raises PermissionDenied, InvalidRequest."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if not same_origin(origin, host):
        raise PermissionDenied(f"expected a form of {host[:80]!r}, got one of {str(origin)[:80]!r}")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_BYTES_MAX:
            raise InvalidRequest(f"expected a form of at most {FORM_BYTES_MAX} bytes, got more")
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode("ascii")).items()}
    except UnicodeDecodeError:
        raise InvalidRequest("expected a form in ASCII, got other bytes") from None
