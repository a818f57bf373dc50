"""Servers for the tests of the memory client, and what has to be gone after each of them."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.scripted_server import FOLDER, ScriptedServer


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedServer]:
    """A scripted server that listens."""
    with ScriptedServer(tmp_path) as started:
        yield started


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """The test ends with the client's threads and shared memory gone."""
    yield
    assert [one.name for one in threading.enumerate() if one.name.startswith("attn-")] == []
    assert list(FOLDER.glob(f"attn-{os.getpid()}-*")) == []
