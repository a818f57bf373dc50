"""What a server lets in, made from its settings: whose calls, within which quotas, over which transport.

    no token file       everybody, as no tenant: the settings allow that on this machine, or where it is said
    a token file        whoever has a credential in it
    cert and key        TLS; with client_ca, of clients with a certificate of that authority only

Must not know: what is served.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from memsvc.auth.caller import Caller, anyone
from memsvc.auth.quotas import Quotas, Usage, no_quotas
from memsvc.auth.token_file import TokenFile
from memsvc.clock import Clock
from memsvc.errors import InvalidRequest
from memsvc.rpc.gate import Callers, Gate
from memsvc.rpc.threads import Pool
from memsvc.settings import AccessSettings


class Admission:
    """Who may come in, by the settings.

    Args:
        usage_of: What a tenant has; reads the disk.

    Raises:
        InvalidRequest: A file of the settings does not hold (INVALID_SETTING).
    """

    def __init__(self, access: AccessSettings, usage_of: Callable[[str], Usage], clock: Clock) -> None:
        self._transport = _transport(access)
        self._file = TokenFile(access.token_file, clock) if access.token_file is not None else None
        self.quotas = Quotas(self._file.quota, usage_of, clock) if self._file is not None else no_quotas()

    def gate(self, calls: Pool) -> Gate:
        """What every call passes; what reads the disk runs in `calls`."""
        return Gate(self._callers(), self.quotas, calls)

    def listen(self, server: grpc.aio.Server, address: str) -> int:
        """The port that a server listens on from its start, over TLS if that is set. Raises RuntimeError."""
        if self._transport is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._transport)

    @property
    def reloads(self) -> bool:
        """Whether there is anything to read again."""
        return self._file is not None

    def reload(self) -> None:
        """Read the credentials again; what is wrong with them goes to the log, and those before them hold on."""
        if self._file is not None:
            self._file.reload()

    def _callers(self) -> Callers:
        if self._file is not None:
            return self._file.caller
        return _Everybody(anyone())


class _Everybody:
    """The same caller, whoever calls."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __call__(self, authorization: Sequence[str], identities: Sequence[str]) -> Caller:
        return self._caller


def _transport(access: AccessSettings) -> grpc.ServerCredentials | None:
    """None: without TLS."""
    if access.cert is None or access.key is None:
        return None
    pair = _pem(access.key, "key"), _pem(access.cert, "cert")
    authority = _pem(access.client_ca, "client_ca") if access.client_ca is not None else None
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)


def _pem(path: Path, name: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _invalid(name, error.strerror or str(error), path) from None
    if b"-----BEGIN " not in data:
        raise _invalid(name, "another file", path)
    return data


def _invalid(name: str, came: str, path: Path) -> InvalidRequest:
    message = f"{name}: expected a PEM file that can be read, got {came}, at {path}"
    return InvalidRequest(message, reason="INVALID_SETTING")
