"""The file of credentials, as it is now: read again when it changes or when that is asked for.

Invariants:
    A file that cannot be read or is not valid changes nothing: what was read before holds, and the log says why.
    Nobody but its owner may write it: whoever can, could let anyone in.
"""

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from memsvc.auth.caller import Caller
from memsvc.auth.credentials import Credentials, parse_credentials
from memsvc.auth.quotas import Quota
from memsvc.clock import Clock
from memsvc.errors import InvalidRequest, Unauthenticated

# How often the file is looked at, by the calls that need it.
LOOK_EVERY_S = 1.0
FILE_BYTES_MAX = 16 << 20
SCHEME = "bearer "

_LOGGER = logging.getLogger(__name__)

# What changes when a file is written or replaced: device, inode, size, modification and change time.
_Mark = tuple[int, ...]


class TokenFile:
    """Credentials in a file.

    Raises:
        InvalidRequest: The file cannot be read, others may write it, or an entry is not valid (INVALID_SETTING).

    Concurrency: all but `quota`, which any thread may call, are the event loop's: a look is one stat, a change one
    small read.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._mark, self._credentials = _read(path)
        self._look_at_s = clock.monotonic_s() + LOOK_EVERY_S

    def caller(self, authorization: Sequence[str], identities: Sequence[str]) -> Caller:
        """Whose call it is.

        Args:
            authorization: Values of its `authorization` metadata: a bearer token goes before the certificate.
            identities: Names in the client's certificate, if it has one.

        Raises:
            Unauthenticated: CREDENTIAL_MISSING, CREDENTIAL_INVALID or CREDENTIAL_EXPIRED.
        """
        if self._clock.monotonic_s() >= self._look_at_s:
            self.reload(forced=False)
        if not authorization:
            if not identities:
                raise Unauthenticated("expected a bearer token, got none", reason="CREDENTIAL_MISSING")
            return self._credentials.of_client(identities)
        if len(authorization) != 1 or authorization[0][: len(SCHEME)].lower() != SCHEME:
            raise Unauthenticated("expected one authorization of the form 'Bearer TOKEN', got another form")
        return self._credentials.of_bearer(authorization[0][len(SCHEME) :], self._clock.unix_ms() / 1000)

    def quota(self, tenant: str) -> Quota:
        """What a tenant may have."""
        return self._credentials.quota(tenant)

    def reload(self, *, forced: bool = True) -> None:
        """Read the file again if it has changed, or in any case; what is wrong with it goes to the log."""
        self._look_at_s = self._clock.monotonic_s() + LOOK_EVERY_S
        mark = _mark_of(self._path)
        if not forced and mark == self._mark:
            return
        # Of a broken file too, so that it is told once and not every second.
        self._mark = mark
        try:
            self._mark, self._credentials = _read(self._path)
        except InvalidRequest as error:
            _LOGGER.error("%s; the credentials before it hold on", error)
        else:
            _LOGGER.info("token file: read again, %s", self._path)


def _read(path: Path) -> tuple[_Mark, Credentials]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _invalid(path, "a file that can be read", error.strerror or str(error)) from None
    if not stat.S_ISREG(status.st_mode) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _invalid(path, "a file that only its owner may write", f"mode {stat.S_IMODE(status.st_mode):04o}")
    if len(text) > FILE_BYTES_MAX:
        raise _invalid(path, f"at most {FILE_BYTES_MAX} bytes", "more")
    try:
        return _mark(status), parse_credentials(text.decode())
    except UnicodeDecodeError:
        raise _invalid(path, "UTF-8 text", "other bytes") from None
    except InvalidRequest as error:
        raise InvalidRequest(f"{error}, in {path}", reason=error.reason) from None


def _mark(status: os.stat_result) -> _Mark:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _mark_of(path: Path) -> _Mark:
    """Empty if there is no such file."""
    try:
        return _mark(path.stat())
    except OSError:
        return ()


def _invalid(path: Path, expected: str, came: str) -> InvalidRequest:
    return InvalidRequest(f"token file: expected {expected}, got {came}, at {path}", reason="INVALID_SETTING")
