"""What a worker may do by the scopes of its own credential, and what of its temporary sessions is left: nothing."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from attn_client.embedded import EmbeddedServer
from attn_client.errors import MemoryRefused
from attn_client.memory import ClientSettings, MemoryClient
from attn_client.worker.asks import Ask
from memsvc.auth.caller import Scope
from protos.faults import PLACES, FaultPlan, Faults
from tests.credential_book import CredentialBook
from tests.e2e.settings import SMALL
from tests.e2e.worker import MODEL, Worker, worker
from tests.integration.tenants import guarded

# Past sinks and window, so that it needs a session.
TEXT = "".join(f"{number} cranes came over the marsh and {number * 7} left it. " for number in range(14))


@contextlib.contextmanager
def _scoped(folder: Path, *scopes: Scope) -> Iterator[Worker]:
    """A worker whose credential has these scopes, at a server that asks for one."""
    book, secret = CredentialBook(folder / "tokens.toml"), folder / "secret"
    secret.write_text(book.bearer("acme", *scopes))
    with (
        guarded(folder, book) as server,
        MemoryClient(server.address, ClientSettings(token_file=secret)) as memory,
        worker(memory) as serving,
    ):
        yield serving


def _ask(serving: Worker, prompt: str, **body: Any) -> Any:
    return serving.client().completions.create(model=MODEL, prompt=prompt, max_tokens=2, extra_body=body)


def _names(serving: Worker) -> list[str]:
    return [session.name for session in serving.attached.client.list_sessions()]


def test_without_the_scope_to_delete_no_temporary_session_is_made(tmp_path: Path) -> None:
    """Proves that a long prompt without a session is refused, by scope, where its session could not be deleted; and
    that everything else is answered.
    """
    with _scoped(tmp_path, Scope.READ, Scope.WRITE) as serving:
        with pytest.raises(openai.PermissionDeniedError, match="scope admin") as refused:
            _ask(serving, TEXT)
        assert (refused.value.code, refused.value.param) == ("scope_missing", "session")
        assert _names(serving) == []
        assert _ask(serving, "short").memory["mode"] == "window"
        assert _ask(serving, TEXT, memory={"enabled": False}).memory["mode"] == "window"
        assert _ask(serving, TEXT, session="notes").memory["saved"]
        assert _ask(serving, "So?", session={"name": "notes", "mode": "read"}).memory["mode"] == "read"
        assert _names(serving) == ["notes"]


def test_with_it_one_is_made_and_deleted(tmp_path: Path) -> None:
    """Proves that read, write and admin are enough for every prompt to be read and nothing to be left."""
    with _scoped(tmp_path, Scope.READ, Scope.WRITE, Scope.ADMIN) as serving:
        assert _ask(serving, TEXT).memory["mode"] == "temporary"
        assert _names(serving) == []


def test_a_chat_that_goes_on_in_a_text_asks_for_inspect(tmp_path: Path) -> None:
    """Proves that looking at how a session begins is refused by the scope it needs, and leaves the session free."""
    with _scoped(tmp_path, Scope.READ, Scope.WRITE) as serving:
        _ask(serving, TEXT, session="notes")
        asked: Any = [{"role": "user", "content": "Why?"}]
        with pytest.raises(openai.PermissionDeniedError) as refused:
            serving.client().chat.completions.create(model=MODEL, messages=asked, extra_body={"session": "notes"})
        assert refused.value.code == "scope_missing"
        assert _ask(serving, " So?", session="notes").memory["saved"]


def test_a_temporary_session_that_cannot_be_opened_is_deleted(tmp_path: Path) -> None:
    """Proves that a session which was made for a request goes with it, though its writer was refused."""
    rules = {"rules": [{"place": "OpenSession", "kind": "error", "code": "INTERNAL"}]}
    faults = Faults(FaultPlan.parse(json.dumps(rules), PLACES))
    with (
        EmbeddedServer(tmp_path) as server,
        MemoryClient(server.address, faults=faults) as memory,
        worker(memory) as serving,
    ):
        with pytest.raises(openai.InternalServerError):
            _ask(serving, TEXT)
        assert _names(serving) == []


def test_a_temporary_session_whose_end_is_refused_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that an attachment whose end is answered with an error does not keep its session from being deleted."""
    with EmbeddedServer(tmp_path) as server, worker(server.address) as serving:
        row, _ = serving.engine.rows.open(Ask(TEXT, SMALL.recall, 2), threading.Event())
        memory = row.reader.memory
        assert memory is not None
        assert _names(serving) == [memory.info.name]
        close = memory.close

        def close_and_refuse() -> None:
            close()
            raise MemoryRefused("INTERNAL", "expected to close a session, got INTERNAL")

        monkeypatch.setattr(memory, "close", close_and_refuse)
        assert not serving.engine.rows.close(row, keep=False)
        monkeypatch.undo()
        assert _names(serving) == []
