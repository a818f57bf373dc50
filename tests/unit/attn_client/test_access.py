"""How a client shows who it is: a bearer token in a file that may change, never in the clear."""

import logging
from pathlib import Path

import pytest

from attn_client.errors import InvalidSettings
from attn_client.memory.access import BearerFile, channel_to
from attn_client.memory.settings import ClientSettings


def _replaced(path: Path, text: str) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.rename(path)


def test_a_token_is_read_again_once_its_file_is_another(tmp_path: Path) -> None:
    """Proves that the next call bears the new token, and that blanks around it do not matter."""
    path = tmp_path / "token"
    path.write_text("ms1_first\n")
    file = BearerFile(path)
    assert file.token() == "ms1_first"
    _replaced(path, "  ms1_second  \n")
    assert file.token() == "ms1_second"


@pytest.mark.parametrize("after", ["two words", "", None])
def test_a_file_that_breaks_leaves_the_token_before_it(
    tmp_path: Path, after: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Proves that a running client goes on with what it had, says so once, and tells no token."""
    path = tmp_path / "token"
    path.write_text("ms1_first")
    file = BearerFile(path)
    if after is None:
        path.unlink()
    else:
        _replaced(path, after)
    with caplog.at_level(logging.WARNING):
        assert [file.token() for _ in range(3)] == ["ms1_first"] * 3
    (record,) = caplog.records
    assert "ms1" not in record.getMessage()


@pytest.mark.parametrize("text", ["", "two words", "Bearer ms1_x", "ä"])
def test_a_file_without_one_token_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    """Proves that a client does not begin with a file that cannot be right."""
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(InvalidSettings, match=r"^client\.token_file: expected one bearer token, got \d words, in "):
        BearerFile(path)
    with pytest.raises(InvalidSettings, match=r"^client\.token_file: expected a file that can be read, got No such"):
        BearerFile(tmp_path / "none")


@pytest.mark.parametrize("address", ["10.0.0.1:1", "example.org:1", "[2001:db8::1]:1", "127.0.0.1.example.org:1"])
def test_a_token_is_not_sent_in_the_clear(tmp_path: Path, address: str) -> None:
    """Proves that without TLS a token stays on this machine: other addresses are refused before a channel is made."""
    path = tmp_path / "token"
    path.write_text("ms1_first")
    with pytest.raises(InvalidSettings, match=r"^client\.token_file: expected client\.ca beside it"):
        channel_to(address, ClientSettings(token_file=path), [])


@pytest.mark.parametrize("address", ["unix:///run/memsvc.sock", "127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_a_token_goes_to_an_address_of_this_machine(tmp_path: Path, address: str) -> None:
    """Proves that a socket and the loopback need no TLS."""
    path = tmp_path / "token"
    path.write_text("ms1_first")
    channel_to(address, ClientSettings(token_file=path), []).close()


@pytest.mark.parametrize("given", [("cert",), ("key",), ("cert", "key"), ("ca", "cert"), ("ca", "key")])
def test_half_a_set_of_files_is_refused(given: tuple[str, ...]) -> None:
    """Proves that a certificate needs its key and the authority, by name."""
    with pytest.raises(InvalidSettings, match=r"^client\.\w+: expected client\.\w+ beside it, got None"):
        ClientSettings(**{name: Path(name) for name in given})  # type: ignore[arg-type]


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    """Proves that a file that is not there is one line with its setting and path."""
    with pytest.raises(InvalidSettings, match=rf"^client\.ca: expected a file .*, at {tmp_path}/none"):
        channel_to("127.0.0.1:1", ClientSettings(ca=tmp_path / "none"), [])
