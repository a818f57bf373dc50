"""What a client shows of itself to a server, and how it knows the server: a bearer token, TLS, a certificate.

Invariants: a bearer token goes over TLS or stays on this machine; its file is read again when it changes, so that a
token can be replaced while a client runs; no message holds it.
"""

import ipaddress
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from attn_client.errors import InvalidSettings
from attn_client.memory.settings import ClientSettings

# Inode, size and time of change of a file, by which a new one is told.
_Mark = tuple[int, ...]

_LOGGER = logging.getLogger(__name__)


def channel_to(address: str, settings: ClientSettings, options: list[tuple[str, int]]) -> grpc.Channel:
    """A channel to a server, as the settings say.

    Raises:
        InvalidSettings: A file of theirs does not hold, or the bearer token would leave this machine in the clear.
    """
    if settings.token_file is not None and settings.ca is None and not _is_local(address):
        raise InvalidSettings(
            f"client.token_file: expected client.ca beside it (TLS), or an address of this machine, got {address}"
        )
    transport = _transport(settings)
    if transport is None:
        channel = grpc.insecure_channel(address, options)
    else:
        channel = grpc.secure_channel(address, transport, options)
    if settings.token_file is None:
        return channel
    return grpc.intercept_channel(channel, _Bearer(BearerFile(settings.token_file)))


class BearerFile:
    """A file with one bearer token.

    Raises:
        InvalidSettings: It cannot be read, or holds something else.

    Concurrency: any thread may ask.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._mark = _mark(path)
        self._token = _token(path)

    def token(self) -> str:
        """The token as the file holds it now; where it does not, the one before, which the server may still take."""
        with self._lock:
            mark = _mark(self._path)
            if mark != self._mark:
                self._mark = mark
                try:
                    self._token = _token(self._path)
                except InvalidSettings as error:
                    _LOGGER.warning("%s; the token before it is used on", error)
            return self._token


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Puts the bearer token into every call."""

    def __init__(self, file: BearerFile) -> None:
        self._file = file

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """The call with its token."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """The call with its token."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """The call with its token."""
        return continuation(self._with_token(client_call_details), request_iterator)

    def _with_token(self, details: Any) -> Any:
        authorization = ("authorization", f"Bearer {self._file.token()}")
        return details._replace(metadata=(*(details.metadata or ()), authorization))


def _transport(settings: ClientSettings) -> grpc.ChannelCredentials | None:
    if settings.ca is None:
        return None
    key, cert = (_bytes(name, getattr(settings, name)) for name in ("key", "cert"))
    return grpc.ssl_channel_credentials(_bytes("ca", settings.ca), key, cert)


def _bytes(name: str, path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise _unreadable(name, error, path) from None


def _mark(path: Path) -> _Mark:
    """Empty if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _token(path: Path) -> str:
    words = (_bytes("token_file", path) or b"").split()
    if len(words) != 1 or not words[0].isascii():
        raise InvalidSettings(f"client.token_file: expected one bearer token, got {len(words)} words, in {path}")
    return words[0].decode()


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unreadable(name: str, error: OSError, path: Path | None) -> InvalidSettings:
    return InvalidSettings(f"client.{name}: expected a file that can be read, got {error.strerror}, at {path}")
