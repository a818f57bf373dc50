"""The application: routes of pages and their JSON twins, over the views.

    /sessions, /compare                                        each, and with .json at the end of its path
    /sessions/NAME/timeline, graph, why, search, live          the same
    /sessions/NAME/bookmarks/INDEX                             the same
    /login, /logout                                            see `memsvc.inspector.login`
    /metrics, /livez, /readyz                                  as without the inspector: they ask for no credential

Must not know: sessions, protocol buffers.
"""

import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from memsvc.errors import InvalidRequest, MemsvcError
from memsvc.inspector import assets, shapes
from memsvc.inspector.door import Door, Reader
from memsvc.inspector.entrance import Application, GuardedAnswers
from memsvc.inspector.finding import compare_view, search_view
from memsvc.inspector.graph_view import graph_view
from memsvc.inspector.login import add_login
from memsvc.inspector.site import JSON, Problem, Site
from memsvc.inspector.views import bookmark_view, live_view, sessions_view, timeline_view
from memsvc.inspector.why_view import why_view
from memsvc.lines import emit
from memsvc.metrics.http import Page, Pages
from memsvc.rpc.errors import known

HOPS_MAX = 8
SEEDS_MAX = 64
SESSIONS_PAGE_MAX = 200
POSITION_MAX = 2**62

_STATIC = Path(__file__).parent / "static"
_PROBLEMS = (400, 401, 403, 404, 409, 429, 500, 503)

_LOGGER = logging.getLogger(__name__)

View = Callable[..., Awaitable[Any]]
Position = Annotated[int, Query(ge=0, le=POSITION_MAX)]
Name = Annotated[str, Query(max_length=200)]


def make_app(door: Door, pages: Pages, listening: str) -> Application:
    """The application of a node that listens on HOST:PORT; `pages` are what it serves besides."""
    app = FastAPI(title="memsvc inspector", version="1", docs_url=None, redoc_url=None)
    site = Site(door, listening)
    _add_views(app, site)
    add_login(app, site)
    for path, make in pages.items():
        app.add_api_route(path, _status_page(make), methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.mount("/vendor", StaticFiles(directory=assets.VENDOR, check_dir=False))
    for kind in (MemsvcError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, site.told)
    return GuardedAnswers(cast("Application", app))


def _status_page(make: Callable[[], Awaitable[Page]]) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        try:
            page = await make()
        except Exception as error:
            emit(_LOGGER, logging.ERROR, "http_failed", error)
            page = Page(500, b"the page could not be made; the log says why\n")
        return Response(page.body, page.status, headers={"content-type": page.content_type})

    return answer


def _add_views(app: FastAPI, site: Site) -> None:
    session = "/sessions/{name:path}"
    _add(app, site, "/sessions", "sessions.html", _sessions, shapes.SessionsView)
    _add(app, site, "/compare", "compare.html", _compare, shapes.CompareView)
    _add(app, site, f"{session}/timeline", "timeline.html", _timeline, shapes.TimelineView)
    _add(app, site, f"{session}/bookmarks/{{index}}", "bookmark.html", _bookmark, shapes.BookmarkView)
    _add(app, site, f"{session}/graph", "graph.html", _graph, shapes.GraphView)
    _add(app, site, f"{session}/search", "search.html", _search, shapes.SearchView)
    _add(app, site, f"{session}/why", "why.html", _why, shapes.WhyView)
    _add(app, site, f"{session}/live", "live.html", _live, shapes.LiveView)

    def home() -> Response:
        return RedirectResponse("/sessions", 303)

    app.add_api_route("/", home, include_in_schema=False)


def _add(app: FastAPI, site: Site, path: str, template: str, view: View, record: type) -> None:
    """One view, as a page and as its JSON twin."""
    entered = Depends(site.entered)

    async def looked(arguments: dict[str, Any]) -> Any:
        try:
            return await view(**arguments)
        except Exception as error:
            raise known(error, path) from error

    async def twin(**arguments: Any) -> Response:
        found = await looked(arguments)
        body = await site.door.run(lambda: json.dumps(asdict(found)).encode())
        return Response(body, media_type=JSON)

    async def page(request: Request, **arguments: Any) -> Response:
        found = await looked(arguments)
        return site.templates.page(template, request.url.path, found)

    own = inspect.signature(view, eval_str=True)
    parameters = [
        one.replace(default=entered if one.annotation is Reader else one.default, kind=one.KEYWORD_ONLY)
        for one in own.parameters.values()
    ]
    asked = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)
    # What FastAPI reads the parameters from: the view's own, and the request for a page.
    twin.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    page.__signature__ = own.replace(parameters=[asked, *parameters])  # type: ignore[attr-defined]
    told: dict[int | str, dict[str, Any]] = {200: {"model": record}, **{code: {"model": Problem} for code in _PROBLEMS}}
    name = template.removesuffix(".html")
    app.add_api_route(f"{path}.json", twin, response_model=None, responses=told, operation_id=name)
    app.add_api_route(path, page, response_model=None, include_in_schema=False)


async def _sessions(
    reader: Reader, after: Name = "", count: Annotated[int, Query(ge=1, le=SESSIONS_PAGE_MAX)] = 50
) -> shapes.SessionsView:
    return await sessions_view(reader, after, count)


async def _compare(reader: Reader, left: Name = "", right: Name = "") -> shapes.CompareView:
    return await compare_view(reader, left, right)


async def _timeline(reader: Reader, name: str, first: Position = 0, count: Position = 0) -> shapes.TimelineView:
    return await timeline_view(reader, name, first, count)


async def _bookmark(reader: Reader, name: str, index: int) -> shapes.BookmarkView:
    if not 0 <= index <= POSITION_MAX:
        raise InvalidRequest(f"expected a bookmark index of 0 or more, got {index}")
    return await bookmark_view(reader, name, index)


async def _graph(
    reader: Reader,
    name: str,
    seeds: Annotated[str, Query(max_length=1000, pattern=r"^(\d{1,18}(,\d{1,18})*)?$")] = "",
    hops: Annotated[int, Query(ge=0, le=HOPS_MAX)] = 2,
    weight_min: Annotated[float, Query(ge=-1, le=1)] = 0.0,
    most: Annotated[int, Query(ge=1, le=shapes.NODES_MAX)] = 600,
) -> shapes.GraphView:
    chosen = [int(one) for one in seeds.split(",") if one]
    if len(chosen) > SEEDS_MAX:
        raise InvalidRequest(f"expected at most {SEEDS_MAX} seeds, got {len(chosen)}")
    return await graph_view(reader, name, chosen, hops, weight_min, most)


async def _search(reader: Reader, name: str, q: Name = "") -> shapes.SearchView:
    return await search_view(reader, name, q)


async def _why(reader: Reader, name: str, at: Position | None = None) -> shapes.WhyView:
    return await why_view(reader, name, at)


async def _live(reader: Reader, name: str) -> shapes.LiveView:
    return await live_view(reader, name)
