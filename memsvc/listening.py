"""Whether an address can be listened on.

Asked before gRPC is, which logs a failure in its own words, and takes a socket's path away from whoever listens there.
Must not know: gRPC.
"""

import os
import socket
from pathlib import Path

from memsvc.errors import WrongState


def require_free(address: str) -> None:
    """Raises WrongState (ADDRESS_UNAVAILABLE) where `unix:///PATH` or `HOST:PORT` cannot be bound now."""
    path = address.removeprefix("unix://")
    problem = _port_problem(address) if path == address else _socket_problem(Path(path))
    if problem:
        raise unavailable(address, problem)


def unavailable(address: str, problem: str) -> WrongState:
    """The error of an address that cannot be bound."""
    message = f"listen: expected a free address, got {address}: {problem}"
    return WrongState(message, reason="ADDRESS_UNAVAILABLE")


def _socket_problem(path: Path) -> str:
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"no folder {path.parent} to write to"
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            # A path that nobody listens on is left over from a process that ended.
            return "" if path.is_socket() or not path.exists() else "a file that is no socket"
        except OSError as error:
            return error.strerror or str(error)
    return "another process listens there"


def _port_problem(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return error.strerror or str(error)
    return ""
