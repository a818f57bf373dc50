"""The token file's format: what is read, and what is refused by name and place."""

import pytest

from memsvc.auth.bearer import new_bearer
from memsvc.auth.caller import Caller, Scope
from memsvc.auth.credentials import Credentials, format_bearer, parse_credentials
from memsvc.auth.quotas import Quota
from memsvc.errors import InvalidRequest, Unauthenticated

READ, WRITE = frozenset({Scope.READ}), frozenset({Scope.WRITE})
BEARER = '[[bearer]]\nid = "0123456789ab"\nsha256 = "{}"\ntenant = "acme"\nscopes = ["read"]\n'.format("0" * 64)
CLIENT = '[[client]]\nidentity = "worker-1"\ntenant = "acme"\nscopes = ["read", "write"]\n'


def _reason(credentials: Credentials, secret: str, unix_s: float) -> str:
    with pytest.raises(Unauthenticated) as raised:
        credentials.of_bearer(secret, unix_s)
    assert secret == "" or secret not in str(raised.value)
    return raised.value.reason


def test_a_record_that_was_printed_is_read_again() -> None:
    """Proves that what `format_bearer` writes lets in the secret's holder, as that tenant, with those scopes."""
    secret, record = new_bearer("acme", READ | WRITE, 2_000_000_000.0)
    credentials = parse_credentials(format_bearer(record))
    assert dict(credentials.bearers) == {record.id: record}
    assert credentials.of_bearer(secret, 1_999_999_999.0) == Caller("acme", READ | WRITE)


def test_a_secret_expires_to_the_second() -> None:
    """Proves that from its moment on an expired secret is refused as such, and another one as unknown, as before."""
    secret, record = new_bearer("acme", READ, 2_000_000_000.0)
    credentials = parse_credentials(format_bearer(record))
    assert credentials.of_bearer(secret, 1_999_999_999.999).tenant == "acme"
    assert _reason(credentials, secret, 2_000_000_000.0) == "CREDENTIAL_EXPIRED"
    # Whoever has not the secret learns nothing of it.
    assert _reason(credentials, secret[:-1], 2_000_000_000.0) == "CREDENTIAL_INVALID"
    assert _reason(credentials, "", 0.0) == "CREDENTIAL_INVALID"


def test_a_certificate_is_of_one_tenant() -> None:
    """Proves that any of its names is enough, that names of two tenants are refused, and that unknown ones are."""
    other = CLIENT.replace("worker-1", "worker-2").replace("acme", "globex")
    credentials = parse_credentials(CLIENT + other)
    assert credentials.of_client(["nobody", "worker-1"]) == Caller("acme", READ | WRITE)
    for identities in ([], ["nobody"], ["worker-1", "worker-2"]):
        with pytest.raises(Unauthenticated) as raised:
            credentials.of_client(identities)
        assert raised.value.reason == "CREDENTIAL_INVALID"


def test_a_quota_is_the_tenants_own_or_that_of_all_others() -> None:
    """Proves that a named tenant's quota does not mix with the one for all others, and that none is no limit."""
    credentials = parse_credentials('[quota."*"]\nsessions_max = 5\n[quota.acme]\ntokens_per_s = 7\n')
    assert credentials.quota("acme") == Quota(tokens_per_s=7)
    assert credentials.quota("globex") == Quota(sessions_max=5)
    assert parse_credentials("").quota("acme") == Quota()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml ms1_secret", r"token file: expected TOML, got other text \(at line 1, column \d+\)"),
        ("[other]", "token file: expected the keys bearer, client, quota, got 'other'"),
        ("bearer = 1", r"bearer: expected \[\[bearer\]\] entries, got int"),
        (BEARER + "admin = true\n", r"bearer\[0\]: expected the keys .*, got 'admin'"),
        (BEARER.replace("0123456789ab", "ms1_secret"), r"bearer\[0\]\.id: expected 12 hex digits, got something else"),
        (BEARER.replace("0" * 64, "0" * 63), r"bearer\[0\]\.sha256: expected 64 hex digits, got something else"),
        (BEARER.replace('sha256 = "' + "0" * 64 + '"', ""), r"bearer\[0\]\.sha256: expected 64 hex digits, got none"),
        (BEARER.replace('"acme"', '"a/b"'), r"bearer\[0\]\.tenant: expected 1 to 64 .*, got 'a/b'"),
        (BEARER.replace('"acme"', '""'), r"bearer\[0\]\.tenant: expected 1 to 64 .*, got ''"),
        (BEARER.replace('"acme"', f'"{"a" * 65}"'), r"bearer\[0\]\.tenant: expected 1 to 64 "),
        (
            BEARER.replace('["read"]', "[]"),
            r"bearer\[0\]\.scopes: expected some of read, write, admin, inspect, got \[\]",
        ),
        (BEARER.replace('["read"]', '["root"]'), r"bearer\[0\]\.scopes: expected some of .*, got \['root'\]"),
        (BEARER.replace('["read"]', '"read"'), r"bearer\[0\]\.scopes: expected some of .*, got 'read'"),
        (BEARER + "expires = 2030-01-01T00:00:00\n", r"bearer\[0\]\.expires: expected a date and time with its offset"),
        (BEARER + BEARER, "bearer.id: expected one entry each, got two of one"),
        (CLIENT + CLIENT, "client.identity: expected one entry each, got two of one"),
        (CLIENT.replace("worker-1", ""), r"client\[0\]\.identity: expected 1 to 256 characters, got something else"),
        ("quota = 1", "quota: expected tables by tenant, got int"),
        ('[quota."a/b"]', "quota.a/b: expected 1 to 64 "),
        ("[quota]\nacme = 1", "quota.acme: expected a table, got int"),
        ("[quota.acme]\nbytes = 1", r"quota\.acme: expected the keys .*, got 'bytes'"),
        ("[quota.acme]\nsessions_max = 0", r"quota\.acme\.sessions_max: expected a whole number from 1, got 0"),
        ("[quota.acme]\nsessions_max = true", r"quota\.acme\.sessions_max: expected a whole number from 1, got True"),
        ("[quota.acme]\ntokens_per_s = 1.5", r"quota\.acme\.tokens_per_s: expected a whole number from 1, got 1.5"),
    ],
)
def test_an_entry_that_does_not_hold_is_named(text: str, message: str) -> None:
    """Proves that nothing is taken of a file with one wrong entry, and that the error says where, without a secret."""
    with pytest.raises(InvalidRequest, match=f"^{message}") as raised:
        parse_credentials(text)
    assert raised.value.reason == "INVALID_SETTING"
    assert "ms1_secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
