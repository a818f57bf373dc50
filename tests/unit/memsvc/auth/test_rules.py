"""The table of methods: every method that is served, and nothing else."""

import importlib
import pkgutil

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from memsvc.auth.caller import Caller, Scope
from memsvc.auth.rules import SCOPES, scopes_of, scopes_of_request
from memsvc.errors import PermissionDenied
from protos.memsvc import v1
from protos.memsvc.v1 import session_pb2

OPEN = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch"}


def services() -> list[ServiceDescriptor]:
    """Every service of the protocol, of health and of reflection."""
    files = [health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
    for module in pkgutil.iter_modules(v1.__path__):
        if module.name.endswith("_pb2"):
            files.append(importlib.import_module(f"protos.memsvc.v1.{module.name}").DESCRIPTOR)
    return [service for file in files for service in file.services_by_name.values()]


def test_the_table_has_every_method_and_no_other() -> None:
    """Proves that a new method without a scope, and a scope without its method, fail here."""
    methods = {f"/{service.full_name}/{method.name}" for service in services() for method in service.methods}
    assert set(SCOPES) == methods


def test_only_health_asks_for_nothing() -> None:
    """Proves that no method of ours is open by an oversight."""
    assert {method for method, scopes in SCOPES.items() if not scopes} == OPEN


def test_a_method_that_is_not_listed_is_refused() -> None:
    """Proves that forgetting a line keeps everybody out rather than letting anybody in."""
    with pytest.raises(PermissionDenied) as raised:
        scopes_of("/protos.memsvc.v1.SessionService/EraseEverything")
    assert raised.value.reason == "METHOD_NOT_LISTED"


@pytest.mark.parametrize("method", sorted(SCOPES))
def test_any_one_of_the_scopes_is_enough_and_no_other(method: str) -> None:
    """Proves for each method which credentials of one scope may call it."""
    asked = scopes_of(method)
    for scope in Scope:
        caller = Caller("acme", frozenset({scope}))
        if scope in asked:
            caller.require(asked)
        elif asked:
            with pytest.raises(PermissionDenied, match=f"got one with {scope}"):
                caller.require(asked)


def test_what_changes_a_session_never_asks_for_reading_alone() -> None:
    """Proves that of the methods that a credential with only READ may call, none is one that writes."""
    reading = {method.rpartition("/")[2] for method, scopes in SCOPES.items() if Scope.READ in scopes}
    assert reading == {
        "GetSession",
        "ListSessions",
        "ListSnapshots",
        "OpenSession",
        "CloseAttachment",
        "Attach",
        "GetBlocks",
    }


def test_a_writer_is_opened_with_the_scope_to_write() -> None:
    """Proves that a mode asks for its scope: a view for READ, the writer for WRITE, none for nothing more."""
    for mode, scopes in (
        (session_pb2.OPEN_MODE_WRITER, {Scope.WRITE}),
        (session_pb2.OPEN_MODE_VIEW, {Scope.READ}),
        (session_pb2.OPEN_MODE_UNSPECIFIED, set()),
    ):
        assert scopes_of_request(session_pb2.OpenSessionRequest(mode=mode)) == scopes
    assert scopes_of_request(session_pb2.GetSessionRequest()) == set()
