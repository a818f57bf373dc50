"""The token file as it changes under a running server."""

import logging
import os
from pathlib import Path

import pytest

from memsvc.auth.caller import Scope
from memsvc.auth.token_file import LOOK_EVERY_S, TokenFile
from memsvc.errors import InvalidRequest, Unauthenticated
from tests.credential_book import CredentialBook, HandClock


@pytest.fixture
def book(tmp_path: Path) -> CredentialBook:
    """A file without records."""
    return CredentialBook(tmp_path / "tokens.toml")


def _tenant(file: TokenFile, secret: str) -> str:
    return file.caller([f"Bearer {secret}"], []).tenant


def _refused(file: TokenFile, *authorization: str, identities: tuple[str, ...] = ()) -> str:
    with pytest.raises(Unauthenticated) as raised:
        file.caller(authorization, identities)
    return raised.value.reason


def test_a_change_is_seen_within_a_second(book: CredentialBook) -> None:
    """Proves that a new secret is let in, and one that was taken out refused, at the next look and not before."""
    clock = HandClock()
    former = book.bearer("acme")
    file = TokenFile(book.path, clock)
    later = book.bearer("globex")
    book.forget(former)
    assert (_tenant(file, former), _refused(file, f"Bearer {later}")) == ("acme", "CREDENTIAL_INVALID")
    clock.now_s += LOOK_EVERY_S
    assert (_refused(file, f"Bearer {former}"), _tenant(file, later)) == ("CREDENTIAL_INVALID", "globex")


def test_asking_for_it_reads_the_file_at_once(book: CredentialBook) -> None:
    """Proves what SIGHUP does: no second has to pass."""
    file = TokenFile(book.path, HandClock())
    secret = book.bearer("acme")
    file.reload()
    assert _tenant(file, secret) == "acme"


@pytest.mark.parametrize("broken", ["no toml ms1_secret", None])
def test_a_file_that_breaks_or_goes_changes_nothing_and_is_told_once(
    book: CredentialBook, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Proves that the credentials before it hold on, that the log has one line and no text of the file, and that a
    file that is whole again is read."""
    clock = HandClock()
    secret = book.bearer("acme")
    file = TokenFile(book.path, clock)
    if broken is None:
        book.path.unlink()
    else:
        book.replace(broken)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            clock.now_s += LOOK_EVERY_S
            assert _tenant(file, secret) == "acme"
    (record,) = caplog.records
    assert "ms1_secret" not in record.getMessage()
    later = book.bearer("globex")
    clock.now_s += LOOK_EVERY_S
    assert _tenant(file, later) == "globex"


def test_a_secret_expires_by_the_clock(book: CredentialBook) -> None:
    """Proves that the time is the clock's, not that of the last look."""
    clock = HandClock()
    secret = book.bearer("acme", expires_unix_s=clock.now_s + 5)
    file = TokenFile(book.path, clock)
    assert _tenant(file, secret) == "acme"
    clock.now_s += 5
    assert _refused(file, f"Bearer {secret}") == "CREDENTIAL_EXPIRED"


def test_a_call_has_one_authorization_of_the_right_form(book: CredentialBook) -> None:
    """Proves that none, another scheme and two are refused, and that the scheme's case does not matter."""
    secret = book.bearer("acme")
    file = TokenFile(book.path, HandClock())
    assert file.caller([f"bEaReR {secret}"], []).tenant == "acme"
    assert _refused(file) == "CREDENTIAL_MISSING"
    for authorization in ([secret], [f"Basic {secret}"], [""], [f"Bearer {secret}"] * 2, [f"Bearer  {secret}"]):
        assert _refused(file, *authorization) == "CREDENTIAL_INVALID"


def test_a_bearer_token_goes_before_the_certificate(book: CredentialBook) -> None:
    """Proves that a certificate lets in by its name, and that it does not mend a wrong token."""
    book.write('[[client]]\nidentity = "worker-1"\ntenant = "globex"\nscopes = ["read"]\n')
    secret = book.bearer("acme", Scope.WRITE)
    file = TokenFile(book.path, HandClock())
    assert file.caller([], ["worker-1"]).tenant == "globex"
    assert file.caller([f"Bearer {secret}"], ["worker-1"]).tenant == "acme"
    assert _refused(file, "Bearer wrong", identities=("worker-1",)) == "CREDENTIAL_INVALID"
    assert _refused(file, identities=("worker-2",)) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(book: CredentialBook, mode: int) -> None:
    """Proves that nobody but the owner can let anyone in."""
    book.path.chmod(mode)
    with pytest.raises(InvalidRequest, match=f"expected a file that only its owner may write, got mode {mode:04o}"):
        TokenFile(book.path, HandClock())


def test_what_is_no_file_of_text_is_refused(book: CredentialBook, tmp_path: Path) -> None:
    """Proves that a missing file, a folder and other bytes end the start in one line with the path."""
    book.path.write_bytes(b"\xff\xfe")
    for path, came in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory"), (book.path, "other bytes")):
        with pytest.raises(InvalidRequest, match=f"token file: expected .*, got {came}.*{path}"):
            TokenFile(path, HandClock())


def test_a_wrong_entry_is_told_with_the_path(book: CredentialBook) -> None:
    """Proves that the error of an entry names the file too."""
    os.truncate(book.path, 0)
    book.replace("[other]")
    with pytest.raises(InvalidRequest, match=f"got 'other', in {book.path}"):
        TokenFile(book.path, HandClock())
