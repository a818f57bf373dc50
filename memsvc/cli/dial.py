"""How a command reaches a server: its flags, and the channel that they make."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from memsvc.errors import InvalidRequest
from memsvc.settings import MESSAGE_BYTES_HIGHEST, is_local


def add_dialling(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Flags of a command that calls a server, or that may."""
    command.add_argument("--memory", required=required, metavar="ADDRESS", help="unix:///PATH or HOST:PORT")
    add_credentials(command)


def add_credentials(command: argparse.ArgumentParser) -> None:
    """Flags of how a call shows whose it is; `--memory` is added beside them."""
    command.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token to call with")
    command.add_argument("--ca", type=Path, metavar="PEM", help="authority of the server's certificate; calls use TLS")
    command.add_argument("--cert", type=Path, metavar="PEM", help="certificate to call with, beside --key and --ca")
    command.add_argument("--key", type=Path, metavar="PEM", help="its key")


def dial(options: argparse.Namespace) -> grpc.Channel:
    """A channel as the flags say. Raises InvalidRequest (INVALID_SETTING) where they or their files do not hold."""
    secret = _bearer(options.token_file) if options.token_file is not None else ""
    if secret and options.ca is None and not is_local(options.memory):
        raise _invalid("--token-file", "--ca beside it, or an address of this machine", options.memory)
    limits = [("grpc.max_receive_message_length", MESSAGE_BYTES_HIGHEST)]
    credentials = _transport(options)
    if credentials is None:
        channel = grpc.insecure_channel(options.memory, options=limits)
    else:
        channel = grpc.secure_channel(options.memory, credentials, options=limits)
    return grpc.intercept_channel(channel, _Bearer(secret)) if secret else channel


class _Bearer(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """Puts a bearer token into every call; all commands make calls of one request and one answer."""

    def __init__(self, secret: str) -> None:
        self._authorization = ("authorization", f"Bearer {secret}")

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """The call with its token."""
        metadata = (*(client_call_details.metadata or ()), self._authorization)
        return continuation(client_call_details._replace(metadata=metadata), request)


def _transport(options: argparse.Namespace) -> grpc.ChannelCredentials | None:
    if (options.cert is None) != (options.key is None) or (options.cert is not None and options.ca is None):
        raise _invalid("--cert", "--key and --ca beside it", "one without the others")
    if options.ca is None:
        return None
    key, cert = (_read(f"--{name}", getattr(options, name)) if options.cert else None for name in ("key", "cert"))
    return grpc.ssl_channel_credentials(_read("--ca", options.ca), key, cert)


def _bearer(path: Path) -> str:
    words = _read("--token-file", path).decode(errors="replace").split()
    if len(words) != 1 or not words[0].isascii():
        raise _invalid("--token-file", f"one bearer token in {path}", f"{len(words)} words")
    return words[0]


def _read(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _invalid(flag, "a file that can be read", f"{error.strerror}, at {path}") from None


def _invalid(flag: str, expected: str, came: str) -> InvalidRequest:
    return InvalidRequest(f"{flag}: expected {expected}, got {came}", reason="INVALID_SETTING")
