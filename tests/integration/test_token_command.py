"""`memsvc token new`, and what it makes at work: a server's file, a caller's file, and changes while both run."""

import contextlib
import json
import signal
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from attn_client.errors import MemoryRefused
from attn_client.memory import ClientSettings, MemoryClient, MemorySession, StepRecord
from memsvc.cli import main
from protos.memsvc.v1 import session_pb2
from tests.credential_book import CredentialBook
from tests.integration.server_process import BLOCK_BYTES, DIMS, TIMEOUT_S, served, spec
from tests.integration.tenants import calling

LOOKS_MAX_S = 10.0


def _made(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """A new secret and its record."""
    assert main(["token", "new", *arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    return printed["token"], printed["record"]


def test_a_token_that_was_made_lets_in_and_its_record_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves the way from the command to a call: the secret opens the tenant's sessions, what the server's file holds
    does not, and neither is in what either side prints."""
    secret, record = _made(capsys, "--tenant", "acme", "--scopes", "read,write", "--expires-in", "30d")
    assert secret not in record
    assert '\nscopes = ["read", "write"]\nexpires = 20' in record
    book = CredentialBook(tmp_path / "tokens.toml")
    book.write(record)
    mine, stolen = tmp_path / "mine", tmp_path / "stolen"
    mine.write_text(f"{secret}\n")
    stolen.write_text(record.split('"')[3])
    with served(tmp_path, "--token-file", str(book.path)) as server:
        with MemoryClient(server.address, ClientSettings(token_file=mine)) as client:
            client.create_session("notes", spec())
        shown = ["sessions", "--memory", server.address, "--json", "--token-file"]
        assert main([*shown, str(mine)]) == 0
        assert [one["name"] for one in json.loads(capsys.readouterr().out)["sessions"]] == ["notes"]
        assert main([*shown, str(stolen)]) == 1
        assert capsys.readouterr().err == (
            "memsvc: UNAUTHENTICATED: expected a bearer token that this server knows, got another\n"
        )
        with pytest.raises(MemoryRefused, match="expected a bearer token, got none"):
            MemoryClient(server.address)
        server.process.terminate()
        _, log = server.process.communicate(timeout=TIMEOUT_S)
    assert secret not in log


def test_a_person_is_shown_the_secret_and_where_each_part_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that the secret stands alone on its line, and that the record can be copied as it is."""
    assert main(["token", "new", "--tenant", "acme", "--scopes", "inspect"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("ms1_")] == [lines[1]]
    assert lines[4:] == ["[[bearer]]", *lines[5:7], 'tenant = "acme"', 'scopes = ["inspect"]']


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["old", "--tenant", "a", "--scopes", "read"],
        ["new", "--tenant", "a"],
        ["new", "--tenant", "a/b", "--scopes", "read"],
        ["new", "--tenant", "a", "--scopes", "read,root"],
        ["new", "--tenant", "a", "--scopes", ""],
        ["new", "--tenant", "a", "--scopes", "read", "--expires-in", "soon"],
    ],
)
def test_a_wrong_command_line_makes_no_token(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Proves that nothing is printed but one line, with exit code 2."""
    assert main(["token", *arguments]) == 2
    printed, errors = capfd.readouterr()
    assert (printed, errors.count("\n")) == ("", 1)


def _refused(address: str, secret: str, folder: Path) -> bool:
    """Whether the server does not take a secret (any more)."""
    with calling(address, secret, folder) as stubs:
        try:
            stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False


def _read(session: MemorySession, block: int) -> None:
    rows = np.random.default_rng(block).standard_normal((64, DIMS)).astype(np.float32)
    ids = np.arange(64 * block, 64 * block + 64, dtype=np.uint32)
    session.append(StepRecord(64 * block, ids, {"probe": rows}, {}, (64 * block, 64), None), wait=True)
    session.put_block(block, np.full(BLOCK_BYTES, block, np.uint8), wait=True)


def test_a_writer_goes_on_when_its_token_is_replaced(tmp_path: Path) -> None:
    """Proves that a token can be changed on both sides while a writer is at work: its streams are cut off with their
    next request, it attaches again with the new token, and nothing that it wrote is lost."""
    book = CredentialBook(tmp_path / "tokens.toml")
    former = book.bearer("acme")
    mine = tmp_path / "mine"
    mine.write_text(former)
    with served(tmp_path, "--token-file", str(book.path)) as server:
        settings = ClientSettings(token_file=mine, reconnect_max_s=0.2)
        with MemoryClient(server.address, settings) as client:
            client.create_session("notes", spec())
            with contextlib.closing(client.open_writer("notes", spec().fingerprint)) as writer:
                _read(writer, 0)
                writer.save_tail(64, None, None, None)
                fresh = mine.with_name("fresh")
                fresh.write_text(book.bearer("acme"))
                fresh.rename(mine)
                book.forget(former)
                server.process.send_signal(signal.SIGHUP)
                deadline = time.monotonic() + LOOKS_MAX_S
                while not _refused(server.address, former, tmp_path):
                    assert time.monotonic() < deadline
                _read(writer, 1)
                writer.save_tail(128, None, None, None)
            info = client.get_session("notes")
    assert (info.tokens, info.blocks, info.tail_position, list(info.token_gaps)) == (128, 2, 128, [])


def test_a_hang_up_without_a_file_ends_the_server_as_it_always_did(tmp_path: Path) -> None:
    """Proves that only a server with something to read again takes SIGHUP for that."""
    with served(tmp_path) as server:
        assert server.stop(signal.SIGHUP) == -signal.SIGHUP
