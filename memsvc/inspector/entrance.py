"""Who is let in to the pages: by an authorization header, or by a visit that began at the login page.

    POST /login (a bearer token) --> checked --> a visit: a random id in a cookie --> the same authorization each time

The cookie never holds the token: ports of one host share their cookies, and other services would be sent it.

Invariants:
    Each request is judged anew by the credential: a token that is taken out of the file ends its visits.
    On a node without credentials a request must name an address, this machine, or the host that it listens on: no name
        that someone else can point here.
    Answers forbid what pages do not need: scripts and styles from elsewhere or inline, frames, sniffing, caching.
Must not know: sessions, templates.
"""

import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from memsvc.clock import Clock

VISITS_MAX = 1024
# After so long without a request a visit is over.
VISIT_IDLE_S = 12 * 3600.0
_ID_BYTES = 32

CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass
class _Visit:
    authorization: str
    over_at_s: float


class Visits:
    """Visits that have begun, the least recent first; when there are too many, that one ends.

    Concurrency: the event loop's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._visits: OrderedDict[str, _Visit] = OrderedDict()

    def begin(self, authorization: str) -> str:
        """The id of a new visit."""
        visit = secrets.token_urlsafe(_ID_BYTES)
        self._visits[visit] = _Visit(authorization, self._clock.monotonic_s() + VISIT_IDLE_S)
        while len(self._visits) > VISITS_MAX:
            self._visits.popitem(last=False)
        return visit

    def authorization(self, visit: str) -> str | None:
        """What a visit began with; None if there is no such visit, or none any more."""
        known = self._visits.get(visit)
        now = self._clock.monotonic_s()
        if known is None or now >= known.over_at_s:
            self._visits.pop(visit, None)
            return None
        known.over_at_s = now + VISIT_IDLE_S
        self._visits.move_to_end(visit)
        return known.authorization

    def end(self, visit: str) -> None:
        """Ends a visit; an unknown one is fine."""
        self._visits.pop(visit, None)


class GuardedAnswers:
    """An application whose answers carry the headers that keep its pages to themselves."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serves one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                if not any(name.lower() == b"cache-control" for name, _ in own):
                    own.append((b"cache-control", b"no-store"))
                message["headers"] = [*own, *_HEADERS]
            await send(message)

        await self._application(scope, receive, guarded)


def names_this_host(host: str, listening: str) -> bool:
    """Whether a Host header names an address, the machine itself, or the host that is listened on.

    A name may be anybody's, and lead here from one moment to the next; an address cannot.

    Args:
        listening: HOST:PORT.
    """
    name = host_of(host)
    if name in ("localhost", host_of(listening)):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def host_of(address: str) -> str:
    """The host of HOST:PORT or HOST, in small letters, without the brackets of an IPv6 address."""
    if address.startswith("["):
        return address[1:].partition("]")[0].lower()
    return address.partition(":")[0].lower()


def same_origin(origin: str | None, host: str) -> bool:
    """Whether a form was sent by a page of this host; a client that tells no origin is no page."""
    return origin is None or origin.partition("://")[2] == host


def local_target(target: str) -> str:
    """Where to go after the login: a path of this host, whatever was asked for."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if plain else "/sessions"
