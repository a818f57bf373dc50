"""What the worker refuses: each bad request gets one line in OpenAI's shape, and the worker goes on."""

import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from attn_client.cli import main
from attn_client.embedded import EmbeddedServer
from attn_client.worker.app import Served, make_app
from attn_client.worker.asks import Ask, Event, Failed, Sampling
from attn_client.worker.settings import WorkerSettings
from tests.e2e.settings import SMALL
from tests.e2e.worker import MODEL, Worker, worker

BODY_BYTES = 64 << 10
SMALL_WORKER = WorkerSettings(body_bytes_max=BODY_BYTES, prompt_tokens_max=2000, tokens_max=64, tokens_default=4)
ASKED = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with narrow limits, at a server of its own."""
    with EmbeddedServer(tmp_path_factory.mktemp("data")) as server, worker(server.address, SMALL_WORKER) as started:
        yield started


@pytest.fixture
def http(serving: Worker) -> Iterator[httpx2.Client]:
    """Plain HTTP, without a client's own checks."""
    with httpx2.Client(base_url=serving.url, timeout=30.0, headers={"Content-Type": "application/json"}) as client:
        yield client


def _is_error(response: httpx2.Response, status: int, code: str, param: str | None) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]


BAD: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "another"}, 404, "model_not_found", "model"),
    ({"prompt": ""}, 400, "invalid_value", "prompt"),
    ({"prompt": None}, 400, "invalid_value", "prompt"),
    ({"prompt": ["a", "b"]}, 400, "invalid_value", "prompt"),
    ({"prompt": [1, -2]}, 400, "invalid_value", "prompt"),
    ({"prompt": [1, 256]}, 400, "invalid_value", "prompt"),
    ({"prompt": "half \ud800"}, 400, "invalid_value", "prompt"),
    ({"prompt": "x" * 2001}, 400, "context_length_exceeded", "prompt"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 65}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": "5"}, 400, "invalid_value", "max_tokens"),
    ({"temperature": 2.5}, 400, "invalid_value", "temperature"),
    ({"temperature": 1e-9}, 400, "invalid_value", "temperature"),
    ({"temperature": float("nan")}, 400, "invalid_value", "temperature"),
    ({"top_p": 0}, 400, "invalid_value", "top_p"),
    ({"n": 2}, 400, "invalid_value", "n"),
    ({"logprobs": 5}, 400, "invalid_value", "logprobs"),
    ({"echo": True}, 400, "invalid_value", "echo"),
    ({"frequency_penalty": 0.5}, 400, "invalid_value", "frequency_penalty"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "invalid_value", "stop"),
    ({"stop": ""}, 400, "invalid_value", "stop"),
    ({"stop": "x" * 257}, 400, "invalid_value", "stop"),
    ({"logit_bias": {"5": 1}}, 400, "invalid_value", "logit_bias"),
    ({"stream_options": {"include_obfuscation": True}}, 400, "invalid_value", "stream_options"),
    ({"sesion": "a typo"}, 400, "unknown_field", "sesion"),
    ({"session": "../up"}, 400, "invalid_value", "session"),
    ({"session": "a/b/c"}, 400, "invalid_value", "session"),
    ({"session": "x" * 129}, 400, "invalid_value", "session"),
    ({"session": "new\nline"}, 400, "invalid_value", "session"),
    ({"session": "notes\n"}, 400, "invalid_value", "session"),
    ({"session": {"name": "a", "mode": "erase"}}, 400, "invalid_value", "session"),
    ({"session": {"name": "a", "mode": "fork"}}, 400, "invalid_value", "session.parent"),
    ({"session": {"name": "a", "parent": "b"}}, 400, "invalid_value", "session.parent"),
    ({"session": {"name": "a", "snapshot": "s"}}, 400, "invalid_value", "session.snapshot"),
    ({"session": {"name": "nobody", "mode": "read"}}, 404, "session_not_found", "session"),
    ({"session": {"name": "a", "mode": "fork", "parent": "nobody"}}, 404, "session_not_found", "session"),
    ({"session": "a", "memory": {"enabled": False}}, 400, "invalid_value", "memory.enabled"),
    ({"memory": {"top_blocks": 0}}, 400, "invalid_value", "memory"),
    # More than the worker's own budget of blocks.
    ({"memory": {"top_blocks": 5}}, 400, "invalid_value", "memory"),
    ({"memory": {"budget_blocks": 5}}, 400, "unknown_field", "memory"),
]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("wrong", "status", "code", "param"), BAD)
def test_each_bad_field_is_named_in_one_line(
    http: httpx2.Client, wrong: dict[str, Any], status: int, code: str, param: str | None, streams: bool
) -> None:
    """Proves that what cannot be carried out is refused before anything is streamed, by field and reason."""
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 2, "stream": streams, **wrong}
    response = http.post("/v1/completions", content=_json(body))
    _is_error(response, status, code, param)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([], "invalid_value"),
        ([{"role": "tool", "content": "x"}], "invalid_value"),
        ([{"role": "user"}], "invalid_value"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "invalid_value"),
        ([{"role": "user", "content": "half \udc00"}], "invalid_value"),
    ],
)
def test_each_bad_conversation_is_refused(http: httpx2.Client, messages: list[dict[str, Any]], code: str) -> None:
    """Proves that turns which no template could hold are refused."""
    _is_error(
        http.post("/v1/chat/completions", content=_json({"model": MODEL, "messages": messages})), 400, code, "messages"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 50_000, b"nul", b"\xff\xfe", b'{"model": 1e999999}'])
def test_a_body_that_is_no_json_object_is_refused(http: httpx2.Client, content: bytes) -> None:
    """Proves that bytes which are no request get an answer and no stack trace."""
    response = http.post("/v1/completions", content=content)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) in ((400, "invalid_json"), (400, "invalid_value"))
    assert "body: expected" in error["message"] or error["code"] == "invalid_value"


CHATS: list[tuple[dict[str, Any], int, str | None, str | None]] = [
    ({"max_tokens": 2, "max_completion_tokens": 3}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 2, "max_completion_tokens": 2}, 200, None, None),
    ({"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
    ({"stream_options": {"include_usage": True}, "stream": True}, 200, None, None),
    ({"tools": []}, 200, None, None),
    ({"tools": [{"type": "function"}]}, 400, "invalid_value", "tools"),
    ({"response_format": {"type": "text"}}, 200, None, None),
    ({"response_format": {"type": "json_object"}}, 400, "invalid_value", "response_format"),
    ({"logit_bias": {}}, 200, None, None),
    ({"user": "somebody"}, 200, None, None),
]


@pytest.mark.parametrize(("more", "status", "code", "param"), CHATS)
def test_what_is_neutral_is_taken_and_what_is_not_carried_out_is_refused(
    http: httpx2.Client, more: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    """Proves that no answer ignores what was asked, and that nobody is refused for asking for what is done anyway."""
    response = http.post("/v1/chat/completions", content=_json({"model": MODEL, "messages": ASKED, **more}))
    if code is None:
        assert response.status_code == status, response.text
    else:
        _is_error(response, status, code, param)


def test_a_row_that_cannot_be_answered_from_is_given_back(serving: Worker) -> None:
    """Proves that what fails between a row's opening and its first pass ends the request: told, and its place free."""
    events: queue.Queue[Event] = queue.Queue()
    # No generator takes such a seed; bodies refuse it before.
    serving.engine.submit(Ask("hi", SMALL.recall, 2, sampling=Sampling(seed=2**70)), events.put)
    told = events.get(timeout=30)
    assert isinstance(told, Failed)
    assert told.failure.code == "internal"
    deadline = time.monotonic() + 30
    while serving.engine.load != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_body_over_the_limit_is_refused_while_it_comes(http: httpx2.Client) -> None:
    """Proves that the limit holds with a length that is told and with one that is not."""
    large = _json({"model": MODEL, "prompt": "x" * BODY_BYTES})

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(large), 1000):
            yield large[at : at + 1000]

    for content in (large, pieces()):
        response = http.post("/v1/completions", content=content)
        _is_error(response, 413, "http_413", None)
        assert response.json()["error"]["message"] == f"body: expected at most {BODY_BYTES} bytes, got more"


def test_another_path_or_method_is_refused_in_the_same_shape(http: httpx2.Client) -> None:
    """Proves that callers get OpenAI's errors wherever they ask."""
    _is_error(http.get("/v1/nothing"), 404, "http_404", None)
    _is_error(http.delete("/v1/models"), 405, "http_405", None)
    _is_error(http.get("/v1/models/another"), 404, "model_not_found", "model")


def test_the_worker_serves_on_after_all_of_it(http: httpx2.Client, serving: Worker) -> None:
    """Proves that refusals leave nothing under way, and no session behind."""
    answer = http.post("/v1/chat/completions", json={"model": MODEL, "messages": ASKED, "session": "good"})
    assert answer.status_code == 200
    assert answer.json()["memory"]["saved"]
    assert http.get("/health").json() == {
        "status": "ok",
        "model": MODEL,
        "memory": "up",
        "requests": 0,
        "waiting": 0,
    }
    assert [session.name for session in serving.attached.client.list_sessions()] == ["good"]


def test_hostile_text_is_only_text(http: httpx2.Client) -> None:
    """Proves that control characters, directions and markup are read and answered like anything else."""
    for text in ("\x00\x07\x1b[2J", "\u202egnirts\u202c", "<script>alert(1)</script>", "{{ 7 * 7 }}", "a" * 1900):
        answer = http.post("/v1/completions", json={"model": MODEL, "prompt": text, "max_tokens": 2})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"


def test_a_worker_with_a_key_answers_nobody_without_it(serving: Worker) -> None:
    """Proves that only /health is open to callers without the key, and that a wrong key is as good as none."""
    app = make_app(Served(serving.engine, MODEL, SMALL_WORKER, SMALL.recall, api_key="right"))
    with TestClient(app) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
            for response in (
                client.get("/v1/models", headers=headers),
                client.post("/v1/completions", headers=headers, json={"model": MODEL, "prompt": "hi"}),
            ):
                _is_error(response, 401, "invalid_api_key", None)
                assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/models", headers={"Authorization": "Bearer right"}).status_code == 200
        assert client.get("/health").status_code == 200


def _fails(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What a command says that does not start."""
    assert main(["serve", *flags]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_worker_that_cannot_start_says_why_in_one_line(
    serving: Worker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that a port in use, no such model, no memory and bad settings are one clear line each."""
    taken = serving.url.removeprefix("http://")
    assert "in use" in _fails(capsys, "--http", taken)
    assert "HOST:PORT" in _fails(capsys, "--http", "8000")
    assert "config.json" in _fails(capsys, "--http", "127.0.0.1:0", "--model", str(tmp_path))
    assert "rows_max" in _fails(capsys, "--rows", "0")
    assert "--api-key-file" in _fails(capsys, "--api-key-file", str(tmp_path / "none"))
    assert "--no-memory" in _fails(capsys, "--no-memory", "--memory", "127.0.0.1:1")
