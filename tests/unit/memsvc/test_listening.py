"""Addresses that can be listened on, and why others cannot."""

import socket
from pathlib import Path

import pytest

from memsvc.errors import WrongState
from memsvc.listening import require_free


def test_free_addresses_pass(tmp_path: Path) -> None:
    """Proves that a new path, any free port and the socket of a dead process can be bound."""
    require_free(f"unix://{tmp_path}/new")
    require_free("127.0.0.1:0")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/dead")
    require_free(f"unix://{tmp_path}/dead")


def test_a_live_socket_is_not_free(tmp_path: Path) -> None:
    """Proves that a path where somebody listens is never taken away."""
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(f"{tmp_path}/live")
        live.listen()
        with pytest.raises(WrongState, match="another process listens there") as raised:
            require_free(f"unix://{tmp_path}/live")
    assert raised.value.reason == "ADDRESS_UNAVAILABLE"


def test_a_file_or_no_folder_is_not_free(tmp_path: Path) -> None:
    """Proves that a file is not overwritten by a socket, and that a missing folder is named."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(WrongState, match="no socket"):
        require_free(f"unix://{tmp_path}/file")
    with pytest.raises(WrongState, match=f"no folder {tmp_path}/none"):
        require_free(f"unix://{tmp_path}/none/socket")


def test_a_taken_port_is_not_free() -> None:
    """Proves that a port in use is refused, on every form of host."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(WrongState, match="in use"):
            require_free(f"127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(WrongState, match=r"expected a free address, got no\.such\.host\.invalid:1"):
        require_free("no.such.host.invalid:1")
