"""What a failed call means: gRPC statuses as AttnClientErrors.

A status that carries the server's own ErrorInfo is a refusal, except UNAVAILABLE, which says that trying again may
help. One that carries none was made on the way: nobody there, too late, or not a memory server.
"""

from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from attn_client.errors import MemoryFailure, MemoryProtocol, MemoryRefused, MemoryUnavailable

PROTOCOL_VERSION_REASON = "PROTOCOL_VERSION"
DOMAIN = "memsvc"

# Longest wait that a server can ask for.
RETRY_S_MAX = 60.0

_UNAVAILABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


def failure_of(error: grpc.RpcError, doing: str, address: str) -> MemoryFailure:
    """The error to raise for a failed call.

    Args:
        doing: What was attempted, e.g. "open session 'notes'"; goes into messages that are ours.
    """
    code, text = error.code(), " ".join((error.details() or "no details").split())
    reason, retry_s = _told_by(error)
    if reason == PROTOCOL_VERSION_REASON:
        return MemoryProtocol(text)
    if reason is not None and code is not grpc.StatusCode.UNAVAILABLE:
        return MemoryRefused(reason, text, retry_s)
    if code in _UNAVAILABLE:
        return MemoryUnavailable(f"expected a memory server at {address} to {doing}, got {code.name}: {text}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return MemoryProtocol(
            f"expected a memory server at {address} to {doing}, got one that does not know how: {text}"
        )
    return MemoryRefused(code.name, f"expected to {doing} at {address}, got {code.name}: {text}")


def _told_by(error: grpc.RpcError) -> tuple[str | None, float]:
    """The server's reason, and in how many seconds it may be tried again; None and 0 where it says nothing."""
    reason, retry_s = None, 0.0
    try:
        # Every error that a call raises is the call as well.
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:
        # Its details contradict its status: not written by a memory server.
        return None, 0.0
    for detail in status.details if status is not None else ():
        info, again = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason = str(info.reason)
        elif detail.Unpack(again):
            retry_s = again.retry_delay.ToMilliseconds() / 1000
    return reason, min(max(retry_s, 0.0), RETRY_S_MAX)
