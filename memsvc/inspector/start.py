"""What a node serves over HTTP: the inspector with the pages for machines, or, where it cannot be, those alone.

The inspector shows what sessions hold, so it is served where a node without credentials would be: to this machine, or
where the settings say `insecure`. A bearer token must not travel to another machine without TLS, either.

Must not know: FastAPI, until it is served.
"""

import logging
from typing import Protocol

from memsvc.lines import emit
from memsvc.metrics.http import HttpServer, Page, Pages
from memsvc.rpc.gate import Gate
from memsvc.rpc.node import Node
from memsvc.settings import AccessSettings, is_local

_LOGGER = logging.getLogger(__name__)


class HttpService(Protocol):
    """What is served over HTTP; `address` is HOST:PORT."""

    address: str

    async def stop(self) -> None:
        """Listen no more."""


async def start_http(address: str, access: AccessSettings, pages: Pages, node: Node, gate: Gate) -> HttpService:
    """A server on HOST:PORT; says in the log, and at /, why it serves no inspector if it does not.

    Raises:
        WrongState: The address is taken (ADDRESS_UNAVAILABLE).
    """
    if problem := _problem(address, access):
        emit(_LOGGER, logging.WARNING, "inspector_off", problem=problem)

        async def why() -> Page:
            return Page(404, f"inspector: {problem}\n".encode())

        return await HttpServer.start(address, {**pages, "/": why})
    from memsvc.inspector.door import Door
    from memsvc.inspector.serving import InspectorServer

    return await InspectorServer.start(address, pages, Door(node, gate, open_to_all=access.token_file is None))


def _problem(address: str, access: AccessSettings) -> str:
    """Why there is no inspector; empty if there is one."""
    if not is_local(address) and not access.insecure:
        return f"expected a loopback address, or insecure, got {address}"
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        return f"expected fastapi, jinja2 and uvicorn to be installed (extra inspect), got no {error.name}"
    return ""
