"""A real memory server, as a child process, for each test module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from attn_client.embedded import EmbeddedServer
from attn_client.memory import MemoryClient


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server with a folder of its own."""
    with EmbeddedServer(tmp_path_factory.mktemp("data")) as started:
        yield started


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[MemoryClient]:
    """A connection to it."""
    with MemoryClient(server.address) as connected:
        yield connected


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Folder of a server that a test starts and stops itself."""
    return tmp_path / "data"
