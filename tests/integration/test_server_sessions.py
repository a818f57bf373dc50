"""Sessions over the wire: made, found, listed and deleted; errors with their details."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from memsvc.server import SERVICES
from protos.memsvc.v1 import graph_pb2, session_pb2
from tests.integration.server_process import TIMEOUT_S, Stubs, connected, created, reason_of, served, spec


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with served(tmp_path_factory.mktemp("node"), "--reflection") as server, connected(server.address) as stubs:
        yield stubs


def test_a_session_is_made_once_and_found_again(stubs: Stubs) -> None:
    """Proves that making a session twice gives the same one, and that it comes back as it was made."""
    request = session_pb2.CreateSessionRequest(name="made", spec=spec())
    first = stubs.sessions.CreateSession(request, timeout=TIMEOUT_S)
    again = stubs.sessions.CreateSession(request, timeout=TIMEOUT_S)
    found = stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="made"), timeout=TIMEOUT_S).session
    assert (first.created, again.created) == (True, False)
    assert (found.name, found.spec, found.tokens) == ("made", spec(), 0)
    assert found == again.session


def test_the_same_name_with_another_spec_is_refused_with_details(stubs: Stubs) -> None:
    """Proves that a clash is ALREADY_EXISTS with one ErrorInfo that says which kind of clash."""
    created(stubs, "taken")
    with pytest.raises(grpc.RpcError) as raised:
        created(stubs, "taken", block_bytes=64)
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(raised.value) == "FINGERPRINT_MISMATCH"
    assert "\n" not in raised.value.details()


def test_a_missing_session_is_not_found_by_every_reader(stubs: Stubs) -> None:
    """Proves that sessions and graph answer NOT_FOUND with the reason SESSION_NOT_FOUND."""
    calls = [
        lambda: stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="missing"), timeout=TIMEOUT_S),
        lambda: stubs.sessions.DeleteSession(session_pb2.DeleteSessionRequest(name="missing"), timeout=TIMEOUT_S),
        lambda: stubs.graph.ListBookmarks(graph_pb2.ListBookmarksRequest(session="missing"), timeout=TIMEOUT_S),
        lambda: stubs.graph.GetGraph(graph_pb2.GetGraphRequest(session="missing"), timeout=TIMEOUT_S),
        lambda: stubs.graph.ReadTokens(graph_pb2.ReadTokensRequest(session="missing"), timeout=TIMEOUT_S),
        lambda: stubs.graph.Explain(graph_pb2.ExplainRequest(session="missing"), timeout=TIMEOUT_S),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as raised:
            call()
        assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


def test_sessions_are_listed_in_pages(stubs: Stubs) -> None:
    """Proves that pages follow each other in order of name and that the last one says so."""
    for name in ("page-c", "page-a", "page-b"):
        created(stubs, name)
    request = session_pb2.ListSessionsRequest(page_size=2)
    names: list[str] = []
    while True:
        page = stubs.sessions.ListSessions(request, timeout=TIMEOUT_S)
        assert len(page.sessions) <= 2
        names += [one.name for one in page.sessions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert names == sorted(names)
    assert {"page-a", "page-b", "page-c"} <= set(names)


def test_a_deleted_session_is_gone(stubs: Stubs) -> None:
    """Proves that a session can be deleted, and its name used again."""
    created(stubs, "deleted")
    stubs.sessions.DeleteSession(session_pb2.DeleteSessionRequest(name="deleted"), timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as raised:
        stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="deleted"), timeout=TIMEOUT_S)
    assert reason_of(raised.value) == "SESSION_NOT_FOUND"
    created(stubs, "deleted", block_bytes=64)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a" * 129])
def test_a_name_out_of_form_is_an_invalid_argument(stubs: Stubs, name: str) -> None:
    """Proves that no name leads out of the data folder."""
    with pytest.raises(grpc.RpcError) as raised:
        created(stubs, name)
    assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_one_past_each_limit_of_a_read_is_refused(stubs: Stubs) -> None:
    """Proves the limits of pages, bookmarks, hops and tokens, each with its code."""
    created(stubs, "limits")
    invalid, exhausted = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
    graph, sessions = stubs.graph, stubs.sessions
    tokens = {"first": 0, "count": 100_001}
    calls = [
        (sessions.ListSessions, session_pb2.ListSessionsRequest(page_size=1001), invalid),
        (graph.ListBookmarks, graph_pb2.ListBookmarksRequest(session="limits", count=10_001), exhausted),
        (graph.GetGraph, graph_pb2.GetGraphRequest(session="limits", bookmarks_max=10_001), exhausted),
        (graph.GetGraph, graph_pb2.GetGraphRequest(session="limits", hops=65), exhausted),
        (graph.ReadTokens, graph_pb2.ReadTokensRequest(session="limits", positions=tokens), invalid),
    ]
    for call, request, code in calls:
        with pytest.raises(grpc.RpcError) as raised:
            call(request, timeout=TIMEOUT_S)
        assert raised.value.code() is code


def test_a_message_above_the_limit_is_refused_and_the_next_one_served(stubs: Stubs) -> None:
    """Proves that more than 8 MiB is RESOURCE_EXHAUSTED, and that the connection survives it."""
    with pytest.raises(grpc.RpcError) as raised:
        stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="a" * (8 * 1024 * 1024)), timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S)


def test_each_service_says_that_it_is_healthy(stubs: Stubs) -> None:
    """Proves that the server and each of its services are SERVING."""
    stub = health_pb2_grpc.HealthStub(stubs.channel)
    for service in ("", *SERVICES):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(stubs: Stubs) -> None:
    """Proves that a tool without the protos finds every service."""
    stub = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S)
    assert set(SERVICES) <= {one.name for one in answer.list_services_response.service}
