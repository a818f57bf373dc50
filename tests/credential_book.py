"""What tests of credentials share: a clock with hands, and a token file that is written secret by secret."""

import threading
from pathlib import Path

from memsvc.auth.bearer import new_bearer
from memsvc.auth.caller import Scope
from memsvc.auth.credentials import format_bearer

ALL = frozenset(Scope)


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        """Where the hands are."""
        return self.now_s

    def unix_ms(self) -> int:
        """The same, in milliseconds."""
        return round(self.now_s * 1000)

    def wait(self, condition: threading.Condition, timeout_s: float) -> None:
        """Moves the hands instead of waiting."""
        self.now_s += timeout_s


class CredentialBook:
    """A token file at `path`, made when the first secret is given out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts: list[str] = []
        self.write()

    def bearer(self, tenant: str, *scopes: Scope, expires_unix_s: float | None = None) -> str:
        """A new secret, whose record is in the file from now on; with every scope if none is named."""
        secret, record = new_bearer(tenant, frozenset(scopes) or ALL, expires_unix_s)
        self.write(format_bearer(record))
        return secret

    def write(self, part: str = "") -> None:
        """Adds a part to the file, which is replaced as a whole."""
        self._parts.append(part)
        self.replace("\n".join(self._parts))

    def replace(self, text: str) -> None:
        """Replaces the file by another text."""
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.write_text(text)
        fresh.chmod(0o600)
        fresh.rename(self.path)

    def forget(self, secret: str) -> None:
        """Takes the record of a secret out."""
        key = secret.split("_")[1]
        self._parts = [part for part in self._parts if f'"{key}"' not in part]
        self.replace("\n".join(self._parts))


def authorization(secret: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call with this secret."""
    return (("authorization", f"Bearer {secret}"),)
