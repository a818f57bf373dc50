"""Who sees what in the inspector: logins, visits, tenants, scopes and rates, at a real server with credentials."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from memsvc.auth.caller import Scope
from tests.credential_book import CredentialBook
from tests.e2e.inspector_book import Book, Reading, watched
from tests.integration.inspector_site import Answer, ask
from tests.integration.tenants import calling

VIEWS = ("timeline", "graph", "why", "live", "search", "bookmarks/5")


@dataclass(frozen=True)
class Guarded:
    """A server with credentials, and secrets of its tenants."""

    address: str
    book: CredentialBook
    owner: str

    def get(self, path: str, secret: str = "", **headers: str) -> Answer:
        """The answer to a GET with a bearer token."""
        own = {"Authorization": f"Bearer {secret}"} if secret else {}
        return ask(self.address, path, {**own, **headers})

    def log_in(self, secret: str, **fields: str) -> Answer:
        """The answer to a login."""
        data = urlencode({"token": secret, **fields}).encode()
        return ask(self.address, "/login", {}, data)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server where tenant `acme` has a session `ledger`."""
    folder = tmp_path_factory.mktemp("guarded")
    book = CredentialBook(folder / "tokens.toml")
    owner = book.bearer("acme")
    with (
        watched(folder, "--token-file", str(book.path)) as (server, http),
        calling(server.address, owner, folder) as stubs,
    ):
        Reading(stubs, "ledger", Book(1280)).read(1280, ask_every=8)
        yield Guarded(http, book, owner)


def _reload(guarded: Guarded, secret: str) -> None:
    """Waits until the server has read a secret that was just written; it looks once a second."""
    while guarded.get("/sessions.json", secret).status == 401:
        pass


def test_without_a_credential_there_is_only_the_login(guarded: Guarded) -> None:
    """Proves that pages lead to the login and twins are refused, while health is not."""
    page = guarded.get("/sessions/ledger/why?at=5")
    assert (page.status, page.headers["location"]) == (303, "/login?next=/sessions/ledger/why%3Fat%3D5")
    assert (guarded.get("/sessions.json").status, guarded.get("/sessions.json", "ms1_x_y").status) == (401, 401)
    assert (guarded.get("/login").status, guarded.get("/livez").status) == (200, 200)


def test_another_tenant_sees_nothing_of_this_one(guarded: Guarded) -> None:
    """Proves that a foreign credential lists nothing and finds no view, under the plain and the full name."""
    other = guarded.book.bearer("rival")
    _reload(guarded, other)
    assert guarded.get("/sessions.json", other).json()["sessions"] == []
    for name in ("ledger", "acme/ledger"):
        for view in VIEWS:
            answer = guarded.get(f"/sessions/{name}/{view}.json", other)
            assert answer.status in (400, 404), (name, view)
    assert guarded.get("/compare.json?left=ledger&right=ledger", other).status == 404


def test_each_scope_sees_what_it_sees_over_the_api(guarded: Guarded) -> None:
    """Proves that `read` alone lists sessions and opens no view of what they hold, and `write` alone does neither."""
    read = guarded.book.bearer("acme", Scope.READ)
    write = guarded.book.bearer("acme", Scope.WRITE)
    both = guarded.book.bearer("acme", Scope.READ, Scope.INSPECT)
    _reload(guarded, both)
    assert [own["name"] for own in guarded.get("/sessions.json", read).json()["sessions"]] == ["ledger"]
    assert guarded.get("/sessions.json", write).status == 403
    for view in VIEWS:
        path = f"/sessions/ledger/{view}.json"
        statuses = [guarded.get(path, secret).status for secret in (read, write, both)]
        assert statuses == [403, 403, 200], view


def test_a_visit_ends_with_its_token_or_its_logout(guarded: Guarded) -> None:
    """Proves that the cookie holds no secret, is no script's, opens pages, and is worth nothing afterwards."""
    secret = guarded.book.bearer("acme", Scope.READ, Scope.INSPECT)
    _reload(guarded, secret)
    begun = guarded.log_in(secret, next="/sessions/ledger/why")
    cookie = begun.headers["set-cookie"]
    assert (begun.status, begun.headers["location"]) == (303, "/sessions/ledger/why")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert secret not in cookie
    visit = cookie.partition(";")[0]
    assert guarded.get("/sessions/ledger/why.json", Cookie=visit).status == 200
    assert ask(guarded.address, "/logout", {"Cookie": visit}, b"").status == 303
    assert guarded.get("/sessions/ledger/why.json", Cookie=visit).status == 401
    again = guarded.log_in(secret).headers["set-cookie"].partition(";")[0]
    assert guarded.get("/sessions.json", Cookie=again).status == 200
    guarded.book.forget(secret)
    while guarded.get("/sessions.json", Cookie=again).status == 200:
        pass
    assert guarded.get("/sessions.json", Cookie=again).status == 401


def test_a_login_that_fails_says_so_and_leads_nowhere(guarded: Guarded) -> None:
    """Proves wrong tokens, forms of other pages, long forms, and targets elsewhere."""
    wrong = guarded.log_in("ms1_none_none")
    assert (wrong.status, wrong.headers["set-cookie"]) == (401, None)
    assert guarded.log_in(guarded.owner, next="https://evil.example").headers["location"] == "/sessions"
    foreign = ask(guarded.address, "/login", {"Origin": "https://evil.example"}, b"token=x")
    assert foreign.status == 403
    assert ask(guarded.address, "/login", {}, b"token=" + b"x" * 5000).status == 400
    assert ask(guarded.address, "/login", {}, b"token=\xff").status == 400


def test_a_tenant_past_its_rate_is_told_so(guarded: Guarded, tmp_path: Path) -> None:
    """Proves that pages count as calls of their tenant."""
    secret = guarded.book.bearer("busy", Scope.READ)
    guarded.book.write("[quota.busy]\ncalls_per_s = 2\n")
    _reload(guarded, secret)
    answers = [guarded.get("/sessions.json", secret) for _ in range(20)]
    assert 429 in {answer.status for answer in answers}
    assert json.loads(next(answer.text for answer in answers if answer.status == 429))["reason"] == "RATE_EXCEEDED"
