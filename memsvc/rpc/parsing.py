"""Bytes of a request that are no message: the caller's fault, told as any other.

gRPC calls the deserialiser where no interceptor sees what it raises, and answers UNKNOWN. So what does not parse goes
on as a stand-in, up to where it is known whose call it is, and where errors are told.

Invariant: no handler gets a stand-in.
Must not know: which message a method takes.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from memsvc.errors import InvalidRequest
from memsvc.rpc.interceptor import Deserializer


@dataclass(frozen=True)
class Unparsed:
    """Stands for a request that does not parse."""

    size_bytes: int


def tolerant(deserialize: Deserializer | None) -> Deserializer | None:
    """The same deserialiser, which gives a stand-in where it would raise; None takes bytes as they come."""
    if deserialize is None:
        return None

    def tolerating(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return Unparsed(len(data))

    return tolerating


def parsed(request: Any) -> Any:
    """The request itself. Raises InvalidRequest (MESSAGE_MALFORMED) for a stand-in."""
    if isinstance(request, Unparsed):
        came = f"{request.size_bytes} bytes that do not parse"
        message = f"request: expected the method's message in its wire format, got {came}"
        raise InvalidRequest(message, reason="MESSAGE_MALFORMED")
    return request


async def each_parsed(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The requests of a stream, up to the first stand-in. Raises as `parsed`."""
    async for request in requests:
        yield parsed(request)
