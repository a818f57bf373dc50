"""What names a manifest, and what is refused."""

import pytest

from memsvc.errors import InvalidRequest
from memsvc.manifest import check_manifest
from memsvc.manifest.address import RedisAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://localhost:6379", RedisAddress("localhost", 6379)),
        ("redis://10.0.0.1:1/", RedisAddress("10.0.0.1", 1)),
        ("redis://r-1.x_y:65535/15", RedisAddress("r-1.x_y", 65535, 15)),
        ("redis://[::1]:6379/2?lease_ms=500", RedisAddress("::1", 6379, 2, 500)),
        ("redis://h:1?lease_ms=600000", RedisAddress("h", 1, 0, 600_000)),
    ],
)
def test_an_address_is_taken_apart(text: str, address: RedisAddress) -> None:
    """Proves each part of an address, and what stands for those that are left out."""
    assert RedisAddress.parse(text) == address
    check_manifest(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SQLITE",
        "redis://localhost",
        "redis://localhost:65536/0",
        "redis://:6379",
        "redis://h:1/x",
        "redis://h:1?lease_ms=499",
        "redis://h:1?lease_ms=600001",
        "redis://h:1?lease_ms=",
        "redis://h:1?other=1",
        "redis://user:secret@h:1/0",
        "rediss://h:1/0",
        "unix:///redis.sock",
    ],
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    """Proves that what is no address is told as a setting, with what came."""
    with pytest.raises(InvalidRequest) as raised:
        check_manifest(text)
    assert raised.value.reason == "INVALID_SETTING"
    assert str(raised.value).startswith("manifest: expected 'sqlite' or redis://HOST:PORT/DB")
    assert str(raised.value).endswith(repr(text))


def test_sqlite_needs_no_address() -> None:
    """Proves the embedded manifest's name, and that an address prints without what is no place."""
    check_manifest("sqlite")
    assert str(RedisAddress("h", 1, 2, 700)) == "redis://h:1/2"
