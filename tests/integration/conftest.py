"""Servers for the tests of the memory client, what has to be gone after each of them, and nodes that share a Redis."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.redis_nodes import Starter, nodes, settled_redis
from tests.integration.scripted_server import FOLDER, ScriptedServer
from tests.redis_process import RedisProcess


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


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis in which no lease of before can run."""
    with settled_redis(tmp_path / "redis") as process:
        yield process


@pytest.fixture
def start(redis: RedisProcess, tmp_path: Path) -> Iterator[Starter]:
    """Starts a process of the node of that name, which listens at NAME:1."""
    with nodes(redis, tmp_path) as start_one:
        yield start_one
