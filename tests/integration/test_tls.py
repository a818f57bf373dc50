"""TLS and client certificates, with certificates that a real authority signed, between real processes."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from attn_client.errors import InvalidSettings, MemoryRefused, MemoryUnavailable
from attn_client.memory import ClientSettings, MemoryClient
from memsvc.auth.caller import Scope
from memsvc.cli import main
from protos.memsvc.v1 import session_pb2
from tests.credential_book import CredentialBook
from tests.integration.server_process import TIMEOUT_S, connected, served, spec

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


@dataclass(frozen=True)
class Authority:
    """An authority, and what it signs."""

    folder: Path
    name: str

    @property
    def cert(self) -> Path:
        """Its own certificate."""
        return self.folder / f"{self.name}.pem"

    def made(self) -> "Authority":
        """Makes its key and certificate."""
        _openssl("-keyout", self.folder / f"{self.name}.key", "-out", self.cert, "-subj", f"/CN={self.name}")
        return self

    def signed(self, name: str, *places: str) -> tuple[Path, Path]:
        """A certificate of a name, for places if it is a server's, and its key."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        more = ["-addext", f"subjectAltName={','.join(places)}"] if places else []
        signing = ["-CA", self.cert, "-CAkey", self.folder / f"{self.name}.key"]
        _openssl("-keyout", key, "-out", cert, "-subj", f"/CN={name}", *signing, *more)
        return cert, key


def _openssl(*arguments: str | Path) -> None:
    command = ["openssl", "req", "-x509", *NEW_KEY, *(str(one) for one in arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)


@dataclass(frozen=True)
class Place:
    """A server that wants certificates, and what a client needs."""

    address: str
    authority: Authority
    secret: Path
    folder: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server on a loopback port, by TLS, for clients of one authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "authority").made()
    cert, key = authority.signed("server", "IP:127.0.0.1")
    book = CredentialBook(folder / "tokens.toml")
    book.write('[[client]]\nidentity = "worker-1"\ntenant = "acme"\nscopes = ["read", "write", "admin"]\n')
    (folder / "secret").write_text(book.bearer("globex", Scope.READ))
    flags = ["--token-file", book.path, "--cert", cert, "--key", key, "--client-ca", authority.cert]
    with served(folder, "--listen", "127.0.0.1:0", *(str(flag) for flag in flags)) as server:
        yield Place(server.announced.rpartition(" ")[2], authority, folder / "secret", folder)


def _settings(place: Place, name: str | None, authority: Authority | None = None) -> ClientSettings:
    cert, key = (authority or place.authority).signed(name) if name is not None else (None, None)
    return ClientSettings(ca=place.authority.cert, cert=cert, key=key, connect_timeout_s=2.0)


def test_a_certificate_names_its_tenant(place: Place) -> None:
    """Proves that a client of the authority whose name is known works with its tenant's sessions, without a token."""
    with MemoryClient(place.address, _settings(place, "worker-1")) as client:
        assert client.create_session("notes", spec()).name == "notes"
        assert [one.name for one in client.list_sessions()] == ["notes"]
        client.delete_session("notes")


def test_a_bearer_token_goes_before_the_certificate(place: Place) -> None:
    """Proves that a token says whose call it is, with its own scopes, on a connection of any client."""
    given = _settings(place, "nobody")
    settings = ClientSettings(ca=given.ca, cert=given.cert, key=given.key, token_file=place.secret)
    with MemoryClient(place.address, settings) as client:
        assert client.list_sessions() == []
        with pytest.raises(MemoryRefused) as raised:
            client.create_session("notes", spec())
    assert raised.value.reason == "SCOPE_MISSING"


def test_a_certificate_of_nobody_is_refused_at_once(place: Place) -> None:
    """Proves that a client of the authority that the file does not name is told so, and not retried for ever."""
    with pytest.raises(MemoryRefused) as raised:
        MemoryClient(place.address, _settings(place, "stranger"))
    assert raised.value.reason == "CREDENTIAL_INVALID"


def test_only_clients_of_the_authority_are_spoken_to(place: Place, tmp_path: Path) -> None:
    """Proves that no certificate, one of another authority that bears the same name, and a call without TLS find
    nobody."""
    other = Authority(tmp_path, "other").made()
    for settings in (
        _settings(place, None),
        _settings(place, "worker-1", other),
        ClientSettings(connect_timeout_s=2.0),
    ):
        with pytest.raises(MemoryUnavailable):
            MemoryClient(place.address, settings)


def test_a_server_of_another_authority_is_not_trusted(place: Place, tmp_path: Path) -> None:
    """Proves that a client does not speak, nor show its certificate, to a server that it cannot know."""
    given = _settings(place, "worker-1")
    other = Authority(tmp_path, "other").made()
    settings = ClientSettings(ca=other.cert, cert=given.cert, key=given.key, connect_timeout_s=2.0)
    with pytest.raises(MemoryUnavailable):
        MemoryClient(place.address, settings)


def test_the_commands_dial_by_tls_as_well(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that `memsvc sessions` takes the same flags, and that without them it is one line."""
    cert, key = place.authority.signed("worker-1")
    known = ["sessions", "--memory", place.address, "--ca", str(place.authority.cert)]
    assert main([*known, "--cert", str(cert), "--key", str(key), "--json"]) == 0
    assert capsys.readouterr().out == '{"sessions": []}\n'
    assert main([*known, "--token-file", str(place.secret), "--cert", str(cert)]) == 1
    assert capsys.readouterr().err.startswith("memsvc: --cert: expected --key and --ca beside it")


def test_tls_without_clients_certificates_asks_for_a_token(place: Place, tmp_path: Path) -> None:
    """Proves that with cert and key alone a client needs the authority and a bearer token, and no certificate."""
    cert, key = place.authority.signed("second", "IP:127.0.0.1")
    book = CredentialBook(tmp_path / "tokens.toml")
    secret = tmp_path / "secret"
    secret.write_text(book.bearer("acme"))
    flags = ["--token-file", str(book.path), "--cert", str(cert), "--key", str(key)]
    with served(tmp_path, "--listen", "127.0.0.1:0", *flags) as server:
        address = server.announced.rpartition(" ")[2]
        settings = ClientSettings(ca=place.authority.cert, token_file=secret)
        with MemoryClient(address, settings) as client:
            assert client.list_sessions() == []
        with pytest.raises(MemoryRefused) as raised:
            MemoryClient(address, ClientSettings(ca=place.authority.cert))
        assert raised.value.reason == "CREDENTIAL_MISSING"


def test_a_token_never_leaves_the_machine_in_the_clear(place: Place) -> None:
    """Proves that the client refuses, before it dials, to send a token without TLS to another machine."""
    with pytest.raises(InvalidSettings, match=r"^client\.token_file: expected client\.ca beside it"):
        MemoryClient("192.0.2.1:1", ClientSettings(token_file=place.secret))
    assert main(["sessions", "--memory", "192.0.2.1:1", "--token-file", str(place.secret)]) == 1


def test_a_file_that_is_no_certificate_ends_the_start_in_one_line(tmp_path: Path) -> None:
    """Proves that a server with a wrong file says which, and does not listen."""
    book = CredentialBook(tmp_path / "tokens.toml")
    for wrong, came in ((book.path, "another file"), (tmp_path / "none", "No such file or directory")):
        flags = ["--token-file", str(book.path), "--cert", str(wrong), "--key", str(wrong)]
        with served(tmp_path, *flags) as server:
            assert (server.process.wait(TIMEOUT_S), server.announced) == (1, "")
            assert server.process.stderr is not None
            (line,) = server.process.stderr.read().splitlines()
        assert line == f"memsvc: key: expected a PEM file that can be read, got {came}, at {wrong}"


@pytest.mark.parametrize(
    "flags",
    [
        ["--listen", "0.0.0.0:0"],
        ["--listen", "[::]:0"],
        ["--listen", "example.org:0"],
        ["--listen", "0.0.0.0:0", "--token-file", "tokens.toml"],
        ["--listen", "127.0.0.1:0", "--cert", "cert.pem"],
        ["--listen", "127.0.0.1:0", "--key", "key.pem"],
        ["--listen", "127.0.0.1:0", "--client-ca", "ca.pem", "--cert", "cert.pem", "--key", "key.pem"],
    ],
)
def test_a_server_that_others_could_reach_unasked_is_refused(
    flags: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Proves that an address of other machines without credentials or without TLS, and half a set of files, are one
    line and exit code 2."""
    assert main(["serve", "--data", str(tmp_path / "data"), *flags]) == 2
    printed, errors = capfd.readouterr()
    assert (printed, errors.count("\n")) == ("", 1)
    assert "expected" in errors
    assert not (tmp_path / "data").exists()


def test_an_open_address_is_taken_where_it_is_said(tmp_path: Path) -> None:
    """Proves that --insecure is all it takes, and that then everybody is let in."""
    with served(tmp_path, "--listen", "0.0.0.0:0", "--insecure") as server:
        port = server.announced.rpartition(":")[2]
        with connected(f"127.0.0.1:{port}") as stubs:
            stubs.sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=TIMEOUT_S)


def test_reflection_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Proves that a server tells nobody its methods by itself."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        call = stubs.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as raised:
            next(call(iter([b""]), timeout=TIMEOUT_S))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
