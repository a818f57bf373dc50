"""What a person gets wrong when they start or ask a server: one line each, and the server that runs goes on."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memsvc.cli import main
from tests.integration.server_process import TIMEOUT_S, ServerProcess, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that runs, and must go on."""
    with served(tmp_path_factory.mktemp("failures"), "--http", "127.0.0.1:0") as running:
        assert running.process.stdout is not None
        running.http = running.process.stdout.readline().strip().removeprefix("memsvc: http on ")  # type: ignore[attr-defined]
        yield running


# What is wrong, the command, its exit code, and what its line says; {s} is the server's socket, {h} its HTTP address,
# {f} a folder.
WRONG = [
    ("an address that is none", "serve --data {f}/d --listen nonsense", 2, ["unix:///PATH or HOST:PORT", "nonsense"]),
    (
        "a log level that is none",
        "serve --data {f}/d --listen unix://{f}/s --log-level loud",
        2,
        ["--log-level", "loud"],
    ),
    ("an open address", "serve --data {f}/d --listen 0.0.0.0:0", 2, ["loopback", "0.0.0.0:0"]),
    ("a socket in use", "serve --data {f}/d --listen {s}", 1, ["{s}"]),
    ("a port in use", "serve --data {f}/d --listen {h}", 1, ["{h}"]),
    ("an HTTP port in use", "serve --data {f}/d --listen unix://{f}/s --http {h}", 1, ["{h}"]),
    (
        "Redis missing",
        "serve --data {f}/d --listen unix://{f}/s --manifest redis://127.0.0.1:1/0",
        1,
        ["expected a Redis that answers", "redis://127.0.0.1:1/0"],
    ),
    (
        "a manifest that is none",
        "serve --data {f}/d --listen unix://{f}/s --manifest etcd://x",
        2,
        ["sqlite", "etcd://x"],
    ),
    ("no token file", "serve --data {f}/d --listen unix://{f}/s --token-file {f}/none", 1, ["token", "{f}/none"]),
    ("a token file that is none", "sessions --memory {s} --token-file {f}/none", 1, ["--token-file", "{f}/none"]),
    ("an unknown session", "bookmarks --memory {s} --session nobody", 1, ["nobody"]),
    ("an unknown command", "show --memory {s}", 2, ["show"]),
]


@pytest.mark.parametrize(("command", "code", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_one_line_and_the_server_goes_on(
    command: str, code: int, says: list[str], server: ServerProcess, tmp_path: Path
) -> None:
    """Proves the exit code, that one line says what was expected and what came, and that nobody else is disturbed."""
    places = {"s": server.address, "h": server.http, "f": tmp_path}  # type: ignore[attr-defined]
    arguments = [part.format(**places) for part in command.split()]
    ran = subprocess.run(
        [sys.executable, "-m", "memsvc.cli", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ran.returncode == code, ran.stderr
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith("memsvc")
    assert all(part.format(**places) in ran.stderr for part in says), ran.stderr
    assert main(["health", "--memory", server.address]) == 0


@pytest.mark.parametrize(
    "command",
    [
        "search --memory 127.0.0.1:1 --session s --worker http://{a} what",
        "export --memory {a} --session s",
        "graph --memory {a} --session s --format graphml",
        "sessions --memory {a}",
    ],
)
def test_an_interrupt_is_one_line(command: str) -> None:
    """Proves that Ctrl-C ends a command that waits for an answer with exit code 130 and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(TIMEOUT_S)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        arguments = [sys.executable, "-m", "memsvc.cli", *command.format(a=address).split()]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            # Whoever has called waits.
            caller, _ = silent.accept()
            with caller:
                child.send_signal(signal.SIGINT)
                out, said = child.communicate(timeout=TIMEOUT_S)
    assert (child.returncode, out, said) == (130, "", "memsvc: interrupted\n")
