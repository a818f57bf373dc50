"""What a node shows over HTTP.

    /metrics    numbers, as Prometheus reads them
    /livez      200 while the event loop turns
    /readyz     200 while the node takes work, else 503 and what is wrong, one line each

Must not know: sockets.
"""

from memsvc.metrics import Figures
from memsvc.metrics.http import Page, Pages
from memsvc.rpc.health import Health
from memsvc.rpc.node import Node
from memsvc.session.figures import figures_of


def status_pages(node: Node, health: Health) -> Pages:
    """The pages of a node; those that look at sessions do so on a thread."""

    async def numbers() -> Page:
        body = await node.threads.calls.run(lambda: node.metrics.render(_figures(node, health)))
        return Page(200, body, node.metrics.content_type)

    async def live() -> Page:
        return Page(200, b"ok\n")

    async def ready() -> Page:
        problems = health.condition.problems()
        return Page(503, "".join(f"{one}\n" for one in problems).encode()) if problems else Page(200, b"ok\n")

    return {"/metrics": numbers, "/livez": live, "/readyz": ready}


def _figures(node: Node, health: Health) -> Figures:
    found = figures_of(node.sessions.open_now)
    return Figures(
        sessions=found.states,
        unsynced_bytes=found.unsynced_bytes,
        workers=len(node.workers),
        ready=not health.condition.problems(),
    )
