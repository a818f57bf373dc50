"""Bearer secrets: how one is made, and how one is recognised.

    ms1_ID_SECRET    ID 12 hex digits, public: finds the record; SECRET 43 characters, 256 random bits

Invariants:
    Only the SHA-256 of the whole is kept. The secret is random and long, so nothing can be gained by guessing, and a
    slow hash would only slow down every call.
    Comparing takes as long for a known id as for an unknown one, and for any bytes that differ.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from memsvc.auth.caller import Caller, Scope

PREFIX = "ms1"
# Longer ones are not worth a look.
SECRET_BYTES_MAX = 256
_ID_BYTES = 6
_RANDOM_BYTES = 32
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class BearerRecord:
    """What is kept of one bearer secret.

    Args:
        sha256: Of the whole secret, hex.
        expires_unix_s: From then on it is refused; None: never.
    """

    id: str
    sha256: str
    caller: Caller
    expires_unix_s: float | None


def new_bearer(tenant: str, scopes: frozenset[Scope], expires_unix_s: float | None) -> tuple[str, BearerRecord]:
    """A new secret, and its record."""
    key = secrets.token_hex(_ID_BYTES)
    secret = f"{PREFIX}_{key}_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    return secret, BearerRecord(key, _digest(secret), Caller(tenant, scopes), expires_unix_s)


def bearer_id(secret: str) -> str:
    """The public part; empty if the secret is of another form."""
    parts = secret.split("_", 2) if len(secret) <= SECRET_BYTES_MAX else []
    return parts[1] if len(parts) == 3 and parts[0] == PREFIX else ""


def matches(secret: str, record: BearerRecord | None) -> bool:
    """Whether the record is the secret's."""
    same = hmac.compare_digest(_digest(secret[: SECRET_BYTES_MAX + 1]), record.sha256 if record else _NO_DIGEST)
    return same and record is not None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
