"""A node with one session, for tests of sessions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.session_driver import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with a session named book."""
    node = Node(tmp_path / "data")
    node.create()
    yield node
    node.close()
