"""Visits, hosts, and where a login leads."""

import pytest

from memsvc.inspector import entrance
from tests.credential_book import HandClock


def test_a_visit_lasts_as_long_as_it_is_used() -> None:
    """Proves that each request begins the wait anew, and that a visit is over once nobody came."""
    clock = HandClock()
    visits = entrance.Visits(clock)
    visit = visits.begin("Bearer x")
    for _ in range(3):
        clock.now_s += entrance.VISIT_IDLE_S - 1
        assert visits.authorization(visit) == "Bearer x"
    clock.now_s += entrance.VISIT_IDLE_S
    assert visits.authorization(visit) is None
    assert visits.authorization("another") is None


def test_the_visit_that_was_used_least_recently_gives_way() -> None:
    """Proves the limit on visits, and that ending one ends that one alone."""
    visits = entrance.Visits(HandClock())
    begun = [visits.begin(f"Bearer {at}") for at in range(entrance.VISITS_MAX)]
    assert visits.authorization(begun[0]) == "Bearer 0"
    visits.begin("Bearer more")
    assert visits.authorization(begun[1]) is None
    visits.end(begun[0])
    assert visits.authorization(begun[0]) is None
    assert visits.authorization(begun[2]) == "Bearer 2"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "localhost", "[::1]:9", "10.0.0.1:80", "[fe80::1]", "box.example:80", "BOX.example"]
)
def test_a_host_of_this_machine_is_known(host: str) -> None:
    """Proves addresses, the machine's own name, and the name that was listened on."""
    assert entrance.names_this_host(host, "box.example:9100")


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil"])
def test_a_name_that_was_pointed_here_is_not(host: str) -> None:
    """Proves that a page of another name cannot read a server without credentials through the browser."""
    assert not entrance.names_this_host(host, "127.0.0.1:9100")


@pytest.mark.parametrize(
    "target", ["", "https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nSet-Cookie: x", "sessions"]
)
def test_a_login_leads_nowhere_else(target: str) -> None:
    """Proves that what is no path of this host becomes the list of sessions."""
    assert entrance.local_target(target) == "/sessions"


def test_a_login_leads_back_to_where_it_was_asked_for() -> None:
    """Proves that a path with its query is kept."""
    assert entrance.local_target("/sessions/a/why?at=7") == "/sessions/a/why?at=7"


def test_no_policy_allows_what_is_inline_or_elsewhere() -> None:
    """Proves that every source is this host or nothing."""
    sources = {word for part in entrance.CONTENT_POLICY.split("; ") for word in part.split()[1:]}
    assert sources == {"'self'", "'none'"}
