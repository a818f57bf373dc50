"""What each method asks of a caller: the one table.

Invariants:
    Every method of every service that is served stands here; one that does not is refused.
    A method asks for any one of its scopes; none: anybody may call it, without a credential.
"""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.message import Message

from memsvc.auth.caller import Scope
from memsvc.errors import PermissionDenied
from protos.memsvc.v1 import session_pb2

Scopes = frozenset[Scope]

_READ, _WRITE, _ADMIN, _INSPECT = (frozenset({one}) for one in Scope)
_NOBODY: Scopes = frozenset()

SCOPES: Mapping[str, Scopes] = MappingProxyType(
    {
        "/protos.memsvc.v1.SessionService/CreateSession": _WRITE,
        "/protos.memsvc.v1.SessionService/GetSession": _READ,
        "/protos.memsvc.v1.SessionService/ListSessions": _READ,
        "/protos.memsvc.v1.SessionService/DeleteSession": _ADMIN,
        "/protos.memsvc.v1.SessionService/ForkSession": _WRITE,
        "/protos.memsvc.v1.SessionService/RenameSession": _WRITE,
        "/protos.memsvc.v1.SessionService/CreateSnapshot": _WRITE,
        "/protos.memsvc.v1.SessionService/ListSnapshots": _READ,
        "/protos.memsvc.v1.SessionService/DeleteSnapshot": _ADMIN,
        # As a writer or as a view: `scopes_of_request` says which.
        "/protos.memsvc.v1.SessionService/OpenSession": _READ | _WRITE,
        "/protos.memsvc.v1.SessionService/SaveTail": _WRITE,
        # Of attachments that are the caller's own: without WRITE these are views (see names).
        "/protos.memsvc.v1.SessionService/CloseAttachment": _READ | _WRITE,
        "/protos.memsvc.v1.MemoryService/Attach": _READ | _WRITE,
        "/protos.memsvc.v1.BlockService/PutBlocks": _WRITE,
        "/protos.memsvc.v1.BlockService/GetBlocks": _READ,
        "/protos.memsvc.v1.GraphService/ListBookmarks": _INSPECT,
        "/protos.memsvc.v1.GraphService/GetGraph": _INSPECT,
        "/protos.memsvc.v1.GraphService/ReadTokens": _INSPECT,
        "/protos.memsvc.v1.GraphService/Explain": _INSPECT,
        "/protos.memsvc.v1.AdminService/VerifySession": _INSPECT,
        "/protos.memsvc.v1.AdminService/ForgetBlocks": _ADMIN,
        # For whoever watches over processes; it tells nothing of tenants.
        "/grpc.health.v1.Health/Check": _NOBODY,
        "/grpc.health.v1.Health/List": _NOBODY,
        "/grpc.health.v1.Health/Watch": _NOBODY,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _INSPECT,
    }
)


def scopes_of(method: str) -> Scopes:
    """Any of these is enough to make the call. Raises PermissionDenied (METHOD_NOT_LISTED)."""
    scopes = SCOPES.get(method)
    if scopes is None:
        raise PermissionDenied(f"expected a method with a scope, got {method}", reason="METHOD_NOT_LISTED")
    return scopes


def scopes_of_request(request: Message) -> Scopes:
    """What a request asks for beyond its method; none: nothing."""
    if isinstance(request, session_pb2.OpenSessionRequest):
        return {session_pb2.OPEN_MODE_WRITER: _WRITE, session_pb2.OPEN_MODE_VIEW: _READ}.get(request.mode, _NOBODY)
    return _NOBODY
