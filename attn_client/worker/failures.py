"""What a request can be refused for, in OpenAI's terms: a status, a type, a code, and the field that is at fault.

Invariant: messages are one line, and say what was expected and what came.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from attn_client.errors import (
    AttnClientError,
    InvalidSettings,
    MemoryFailure,
    MemoryRefused,
    MemoryUnavailable,
    UnsupportedModel,
)


@dataclass(frozen=True)
class Failure:
    """Why a request is not answered.

    Args:
        status: Of the HTTP response.
        code: A word for programs; never changes.
        param: The field of the request that is at fault, if one is.
        retry_s: After how many seconds it is worth trying again; 0: it is not, or nobody knows.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_s: float = 0.0

    @property
    def kind(self) -> str:
        """OpenAI's `type` of such an error."""
        if self.status in _KINDS:
            return _KINDS[self.status]
        return "invalid_request_error" if self.status < 500 else "server_error"


class Refused(AttnClientError):
    """A request that is not answered, for the reason in `failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


_KINDS: Mapping[int, str] = MappingProxyType(
    {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
)

# Status of what a memory server refuses, by its reason; others are its own trouble or ours.
_STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "INVALID_REQUEST": 400,
        "INVALID_SETTING": 400,
        "SESSION_NOT_FOUND": 404,
        "SNAPSHOT_NOT_FOUND": 404,
        "SESSION_EXISTS": 409,
        "SESSION_HAS_WRITER": 409,
        "FINGERPRINT_MISMATCH": 409,
        "STALE_EPOCH": 409,
        "SCOPE_MISSING": 403,
        "LIMIT_EXCEEDED": 429,
        "QUOTA_EXCEEDED": 429,
        "RATE_EXCEEDED": 429,
    }
)


def failure_of(error: Exception) -> Failure:
    """The refusal that an error of ours means to a caller; an unknown one tells nothing of itself."""
    if isinstance(error, Refused):
        return error.failure
    message = " ".join(str(error).split())
    if isinstance(error, MemoryRefused):
        status = _STATUSES.get(error.reason, 502)
        return Failure(status, error.reason.lower(), message, "session" if status < 500 else None, error.retry_s)
    if isinstance(error, MemoryUnavailable):
        return Failure(503, "memory_unavailable", message, retry_s=1.0)
    if isinstance(error, MemoryFailure):
        return Failure(502, "memory_failed", message)
    if isinstance(error, InvalidSettings):
        return Failure(400, "invalid_value", message)
    if isinstance(error, UnsupportedModel):
        return Failure(400, "unsupported_by_model", message)
    if isinstance(error, AttnClientError):
        return Failure(500, "internal", message)
    return Failure(500, "internal", f"expected an answer, got {type(error).__name__}: see the worker's log")
