"""The override of docs/COMPOSE.md that lets others in: its server, run here."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from attn_client.errors import MemoryRefused
from attn_client.memory import ClientSettings, MemoryClient
from memsvc.auth.caller import Scope
from memsvc.cli import main
from tests.credential_book import CredentialBook
from tests.integration.server_process import TIMEOUT_S
from tests.integration.test_tls import Authority
from tests.repo.sources import ROOT

# What is elsewhere here: the folders, the ports, and a manifest without Redis.
PLACES = (
    ("/run/secrets", "{f}"),
    ("/data", "{f}/data"),
    (":7600", ":0"),
    (":7601", ":0"),
    ("redis://redis:6379/0", "sqlite"),
)


def _secrets(folder: Path) -> None:
    """The files that the override mounts."""
    authority = Authority(folder, "authority").made()
    cert, key = authority.signed("server", "DNS:memsvc", "DNS:localhost")
    book = CredentialBook(folder / "tokens")
    (folder / "worker-token").write_text(book.bearer("acme", Scope.READ, Scope.WRITE))
    for name, file in (("cert", cert), ("key", key), ("ca", authority.cert)):
        (folder / name).write_bytes(file.read_bytes())


def test_the_server_of_the_override_starts_and_asks_for_a_token(tmp_path: Path) -> None:
    """Proves that it listens for all, that a worker's flags are let in, and that health and numbers are still told."""
    (text,) = re.findall(r"(?s)```yaml\n(.*?)```", (ROOT / "docs" / "COMPOSE.md").read_text())
    services = yaml.safe_load(text)["services"]
    _secrets(tmp_path)
    command = services["memsvc"]["command"]
    for there, here in PLACES:
        command = [word.replace(there, here.format(f=tmp_path)) for word in command]
    # Without it there is no second line to wait for.
    assert "--http=0.0.0.0:0" in command
    arguments = [sys.executable, "-m", "memsvc.cli", *command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            port, http = (child.stdout.readline().strip().rpartition(":")[2] for _ in range(2))
            address, ca = f"localhost:{port}", tmp_path / "ca"
            with MemoryClient(address, ClientSettings(ca=ca, token_file=tmp_path / "worker-token")) as client:
                assert list(client.list_sessions()) == []
            with (
                pytest.raises(MemoryRefused, match="expected a bearer token"),
                MemoryClient(address, ClientSettings(ca=ca)),
            ):
                pass
            asking = [word.replace("/run/secrets", str(tmp_path)) for word in services["memsvc"]["healthcheck"]["test"]]
            assert main([word.replace(":7600", f":{port}") for word in asking[2:]]) == 0
            request = urllib.request.Request(f"http://127.0.0.1:{http}/metrics", headers={"Host": "memsvc:7601"})
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=TIMEOUT_S) as answer:
                assert b"memsvc_ready" in answer.read()
        finally:
            child.terminate()
    assert child.returncode == 0
