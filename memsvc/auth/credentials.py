"""The credentials that a server knows, as one unchanging whole, and the file they are read from.

    [[bearer]]                                      [[client]]
    id = "3f2a9c0d11e4"                             identity = "worker-1"      a name in its certificate
    sha256 = "9f86d0..."                            tenant = "acme"
    tenant = "acme"                                 scopes = ["read"]
    scopes = ["read", "write"]
    expires = 2030-01-01T00:00:00Z   optional       [quota.acme]               or [quota."*"]: of all others
                                                    sessions_max, stored_bytes_max, tokens_per_s, calls_per_s

Invariant: what is read is valid as a whole: an entry that is not is named in an error, and nothing is taken.
"""

import datetime
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from memsvc.auth.bearer import BearerRecord, bearer_id, matches
from memsvc.auth.caller import Caller, Scope
from memsvc.auth.quotas import Quota
from memsvc.errors import InvalidRequest, Unauthenticated

# In [quota]: of every tenant that is not named.
OTHERS = "*"

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BEARER_ID = re.compile(r"[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_IDENTITY = re.compile(r".{1,256}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Bearer records by id, callers by a name in their certificate, quotas by tenant."""

    bearers: Mapping[str, BearerRecord]
    clients: Mapping[str, Caller]
    quotas: Mapping[str, Quota]

    def of_bearer(self, secret: str, unix_s: float) -> Caller:
        """Whose secret it is. Raises Unauthenticated (CREDENTIAL_INVALID, CREDENTIAL_EXPIRED)."""
        record = self.bearers.get(bearer_id(secret))
        if not matches(secret, record) or record is None:
            raise Unauthenticated("expected a bearer token that this server knows, got another")
        if record.expires_unix_s is not None and unix_s >= record.expires_unix_s:
            raise Unauthenticated("expected a bearer token that holds, got an expired one", reason="CREDENTIAL_EXPIRED")
        return record.caller

    def of_client(self, identities: Sequence[str]) -> Caller:
        """Whose certificate it is that bears these names. Raises Unauthenticated (CREDENTIAL_INVALID)."""
        callers = {self.clients[one] for one in identities if one in self.clients}
        if len(callers) != 1:
            came = "of several tenants" if callers else "of none"
            raise Unauthenticated(f"expected a client certificate of one tenant, got one {came}")
        return callers.pop()

    def quota(self, tenant: str) -> Quota:
        """What the tenant may have."""
        return self.quotas.get(tenant) or self.quotas.get(OTHERS) or Quota()


def parse_credentials(text: str) -> Credentials:
    """Credentials from the text of a file. Raises InvalidRequest (INVALID_SETTING) that names the entry and key."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Of the message only the place: it quotes the text.
        place = re.search(r"\(at [^)]*\)", str(error))
        raise _invalid("token file", "TOML", f"other text {place[0] if place else ''}".strip()) from None
    _only(content, "token file", {"bearer", "client", "quota"})
    bearers = [_bearer(entry, place) for entry, place in _entries(content, "bearer")]
    clients = [_client(entry, place) for entry, place in _entries(content, "client")]
    for name, keys in (("bearer.id", [one.id for one in bearers]), ("client.identity", [one for one, _ in clients])):
        if len(set(keys)) != len(keys):
            raise _invalid(name, "one entry each", "two of one")
    quotas = content.get("quota", {})
    if not isinstance(quotas, dict):
        raise _invalid("quota", "tables by tenant", type(quotas).__name__)
    return Credentials(
        {one.id: one for one in bearers},
        dict(clients),
        {tenant: _quota(entry, tenant) for tenant, entry in quotas.items()},
    )


def format_bearer(record: BearerRecord) -> str:
    """A record as the file holds it, ready to be appended."""
    expires = ""
    if record.expires_unix_s is not None:
        moment = datetime.datetime.fromtimestamp(record.expires_unix_s, datetime.UTC)
        expires = f"expires = {moment:%Y-%m-%dT%H:%M:%SZ}\n"
    scopes = ", ".join(f'"{one}"' for one in sorted(record.caller.scopes))
    return (
        f'[[bearer]]\nid = "{record.id}"\nsha256 = "{record.sha256}"\n'
        f'tenant = "{record.caller.tenant}"\nscopes = [{scopes}]\n{expires}'
    )


def check_tenant(name: str, tenant: object) -> str:
    """The tenant, of the right form; `name` is the key or option that holds it. Raises InvalidRequest."""
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        expected = "1 to 64 characters of [A-Za-z0-9._-] that start with a letter or digit"
        raise _invalid(name, expected, repr(tenant)[:80])
    return tenant


def check_scopes(name: str, scopes: object) -> frozenset[Scope]:
    """The scopes; `name` is the key or option that holds them. Raises InvalidRequest."""
    known = {one.value for one in Scope}
    if not isinstance(scopes, list) or not scopes or not all(isinstance(one, str) and one in known for one in scopes):
        raise _invalid(name, f"some of {', '.join(scope_names())}", repr(scopes)[:80])
    return frozenset(Scope(one) for one in scopes)


def scope_names() -> list[str]:
    """All scopes, as they are written."""
    return [one.value for one in Scope]


def _entries(content: dict[str, Any], kind: str) -> list[tuple[dict[str, Any], str]]:
    entries = content.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise _invalid(kind, f"[[{kind}]] entries", type(entries).__name__)
    return [(entry, f"{kind}[{at}]") for at, entry in enumerate(entries)]


def _bearer(entry: dict[str, Any], place: str) -> BearerRecord:
    _only(entry, place, {"id", "sha256", "tenant", "scopes", "expires"})
    key = _text(entry, place, "id", _BEARER_ID.fullmatch, "12 hex digits")
    sha256 = _text(entry, place, "sha256", _SHA256.fullmatch, "64 hex digits")
    expires = entry.get("expires")
    if expires is not None and (not isinstance(expires, datetime.datetime) or expires.tzinfo is None):
        expected = "a date and time with its offset, as 2030-01-01T00:00:00Z"
        raise _invalid(f"{place}.expires", expected, str(expires)[:80])
    return BearerRecord(key, sha256, _caller(entry, place), expires.timestamp() if expires is not None else None)


def _client(entry: dict[str, Any], place: str) -> tuple[str, Caller]:
    _only(entry, place, {"identity", "tenant", "scopes"})
    identity = _text(entry, place, "identity", _IDENTITY.fullmatch, "1 to 256 characters")
    return identity, _caller(entry, place)


def _caller(entry: dict[str, Any], place: str) -> Caller:
    tenant = check_tenant(f"{place}.tenant", entry.get("tenant"))
    return Caller(tenant, check_scopes(f"{place}.scopes", entry.get("scopes")))


def _quota(entry: object, tenant: str) -> Quota:
    place = f"quota.{tenant[:64]}"
    if tenant != OTHERS:
        check_tenant(place, tenant)
    if not isinstance(entry, dict):
        raise _invalid(place, "a table", type(entry).__name__)
    _only(entry, place, {one.name for one in fields(Quota)})
    for name, value in entry.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**63:
            raise _invalid(f"{place}.{name}", "a whole number from 1", repr(value)[:80])
    return Quota(**entry)


def _text(entry: dict[str, Any], place: str, name: str, fits: Callable[[str], object], expected: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not fits(value):
        # Whatever stands there may be a secret in the wrong place.
        raise _invalid(f"{place}.{name}", expected, "none" if value is None else "something else")
    return value


def _only(entry: dict[str, Any], place: str, known: set[str]) -> None:
    unknown = sorted(set(entry) - known)
    if unknown:
        raise _invalid(place, f"the keys {', '.join(sorted(known))}", f"{unknown[0][:80]!r}")


def _invalid(name: str, expected: str, came: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: expected {expected}, got {came}", reason="INVALID_SETTING")
