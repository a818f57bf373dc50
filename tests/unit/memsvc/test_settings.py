"""Settings of the server: defaults hold, and one past any limit is refused by name."""

from dataclasses import fields
from pathlib import Path

import pytest

from memsvc.errors import InvalidRequest
from memsvc.settings import (
    AccessSettings,
    LimitSettings,
    ObserveSettings,
    ServerSettings,
    ThreadSettings,
    TimingSettings,
    check_address,
)


def test_the_agreed_defaults_stand() -> None:
    """Proves that messages end at 8 MiB, fsync comes every 200 ms and pings every 30 s are fine."""
    settings = ServerSettings(data=Path("data"), listen="127.0.0.1:0")
    assert settings.limits.message_bytes_max == 8 * 1024 * 1024
    assert settings.timing.sync_interval_ms == 200
    assert settings.timing.ping_interval_min_ms == 30_000
    assert settings.manifest == "sqlite"


@pytest.mark.parametrize("record", [LimitSettings, TimingSettings, ThreadSettings])
def test_each_field_is_checked_and_named_when_it_is_wrong(
    record: type[LimitSettings | TimingSettings | ThreadSettings],
) -> None:
    """Proves that no field takes -1, and that the one-line error names field, value and reason."""
    for one in fields(record):
        with pytest.raises(InvalidRequest) as raised:
            record(**{one.name: -1})
        assert str(raised.value).startswith(f"{one.name}: expected ")
        assert str(raised.value).endswith("got -1")
        assert raised.value.reason == "INVALID_SETTING"


def test_credit_covers_a_whole_step() -> None:
    """Proves that a worker can always send the largest step, and that one token less is refused."""
    assert LimitSettings(step_tokens_max=100, credit_tokens=100).credit_tokens == 100
    with pytest.raises(InvalidRequest, match="credit_tokens: expected 100 to"):
        LimitSettings(step_tokens_max=100, credit_tokens=99)


@pytest.mark.parametrize("address", ["unix:///run/memsvc.sock", "127.0.0.1:0", "localhost:65535", "[::1]:50051"])
def test_addresses_of_both_forms_are_taken(address: str) -> None:
    """Proves that a Unix socket and a host with a port are addresses."""
    check_address("listen", address)


@pytest.mark.parametrize(
    "address",
    ["", "unix://relative.sock", "unix:relative", "localhost", "localhost:65536", ":1", "a:b", f"unix:///{'x' * 107}"],
)
def test_other_addresses_are_refused(address: str) -> None:
    """Proves that anything else, a socket path one byte too long included, is refused under the field's name."""
    with pytest.raises(InvalidRequest, match=r"^listen: expected"):
        ServerSettings(data=Path("data"), listen=address)


def test_the_longest_socket_path_is_taken() -> None:
    """Proves that the path's limit is the kernel's, not one byte less."""
    check_address("listen", f"unix:///{'x' * 106}")


@pytest.mark.parametrize("address", ["unix:///run/pages.sock", "nowhere", ""])
def test_pages_are_served_on_a_port_or_not_at_all(address: str) -> None:
    """Proves that HTTP pages are off by default, and that anything but a host and a port is refused."""
    assert ObserveSettings().http is None
    with pytest.raises(InvalidRequest, match=r"^http: expected .*HOST:PORT, got"):
        ObserveSettings(http=address)


def test_an_unknown_manifest_is_refused() -> None:
    """Proves that a manifest nobody built is an error that names what there is."""
    with pytest.raises(InvalidRequest, match=r"manifest: expected 'sqlite' or redis://.*, got 'redis://localhost'"):
        ServerSettings(data=Path("data"), listen="127.0.0.1:0", manifest="redis://localhost")


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:///run/memsvc.sock", True),
        ("127.0.0.1:0", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_only_this_machine_is_listened_to_without_credentials(address: str, local: bool) -> None:
    """Proves which addresses are this machine's, and that others need a token file with TLS, or to be told so."""
    closed = AccessSettings(token_file=Path("t"), cert=Path("c"), key=Path("k"))
    for access in (closed, AccessSettings(insecure=True)):
        assert ServerSettings(data=Path("data"), listen=address, access=access).listen == address
    for access in (
        AccessSettings(),
        AccessSettings(token_file=Path("t")),
        AccessSettings(cert=Path("c"), key=Path("k")),
    ):
        if local:
            assert ServerSettings(data=Path("data"), listen=address, access=access).listen == address
            continue
        with pytest.raises(InvalidRequest, match=r"^listen: expected a Unix socket or a loopback address, or token_"):
            ServerSettings(data=Path("data"), listen=address, access=access)


@pytest.mark.parametrize(
    "given", [("cert",), ("key",), ("client_ca",), ("client_ca", "cert", "key"), ("client_ca", "token_file")]
)
def test_half_a_set_of_access_files_is_refused(given: tuple[str, ...]) -> None:
    """Proves that a certificate needs its key, and an authority of clients both of them and a token file."""
    with pytest.raises(InvalidRequest, match=r"^\w+: expected \w+ beside it, got None"):
        AccessSettings(**{name: Path(name) for name in given})  # type: ignore[arg-type]
