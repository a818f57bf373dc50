"""A worker whose memory, callers or fellow workers go away in the middle of things."""

import contextlib
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from attn_client.memory import MemoryClient
from attn_client.worker.settings import WorkerSettings
from attn_client.worker.temporary import TEMPORARY_PREFIX
from tests.e2e.models import save_model
from tests.e2e.process import ServerProcess
from tests.e2e.worker import MODEL, Worker, WorkerProcess, worker

TEXT = "".join(f"{number} geese flew over the lake and {number * 3} swam. " for number in range(16))
# Long enough that whoever watches sees the answer under way.
LONG = 3000
DEADLINE_S = 30.0
QUICK = WorkerSettings(memory_wait_s=1.0, save_wait_s=1.0, tokens_max=LONG)
FLAGS = ("--dtype", "float32", "--window", "128", "--chunk", "64", "--probe", "1", "--top", "2", "--budget", "4")


def _name() -> str:
    return f"s-{uuid.uuid4().hex}"


def _until_idle(url: str) -> None:
    """Wait until a worker has nothing under way."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        health = httpx2.get(f"{url}/health").json()
        if health["requests"] == health["waiting"] == 0:
            return
        time.sleep(0.02)
    raise AssertionError("the worker is still busy")


def _ask(client: openai.OpenAI, session: Any, prompt: str = TEXT, tokens: int = 8) -> Any:
    return client.completions.create(model=MODEL, prompt=prompt, max_tokens=tokens, extra_body={"session": session})


def test_answers_go_on_with_the_window_while_memory_is_down(data: Path) -> None:
    """Proves that a memory that goes away costs recall and saving, never the answer; and that both come back."""
    server, name = ServerProcess(data), _name()
    server.start()
    with worker(server.address, QUICK, ends=False) as serving:
        client = serving.client()
        before = _ask(client, name)
        assert before.memory["saved"]
        server.kill()
        down = _ask(client, name, " And?")
        assert down.choices[0].finish_reason == "length"
        assert (down.memory["degraded"], down.memory["saved"], down.memory["mode"]) == (True, False, "window")
        assert "memory is away" in down.memory["degraded_reasons"][0]
        assert httpx2.get(f"{serving.url}/health").json()["memory"] == "down"
        server.start()
        _until_connected(serving)
        after = _ask(client, name, " And?")
        # The turn that was not saved is not there.
        assert after.memory["position"] == before.memory["position"] + len(" And?") + 8
        assert (after.memory["degraded"], after.memory["saved"]) == (False, True)
        assert after.memory["recalled"]["blocks"]
    server.stop()


def _until_connected(serving: Worker) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not serving.attached.client.connected:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_memory_that_dies_under_an_answer_leaves_it_whole(data: Path) -> None:
    """Proves that an answer under way is told to its end, and that the end says that it was not saved."""
    server = ServerProcess(data)
    server.start()
    with worker(server.address, QUICK, ends=False) as serving:
        stream = serving.client().completions.create(
            model=MODEL, prompt=TEXT, max_tokens=200, stream=True, extra_body={"session": _name()}
        )
        texts, last = [], None
        for chunk in stream:
            if not texts:
                server.kill()
            texts.append(chunk.choices[0].text)
            last = chunk
        assert last is not None
        assert last.choices[0].finish_reason == "length"
        assert (last.memory["degraded"], last.memory["saved"]) == (True, False)


def _leave_early(url: str, body: dict[str, Any]) -> None:
    """Ask, see the first line if it streams, and hang up."""
    timeout = httpx2.Timeout(DEADLINE_S, read=DEADLINE_S if body["stream"] else 0.5)
    with (
        contextlib.suppress(httpx2.ReadTimeout),
        httpx2.stream("POST", f"{url}/v1/completions", json=body, timeout=timeout) as response,
    ):
        assert body["stream"], "the whole answer came before its caller could leave"
        assert response.status_code == 200
        next(response.iter_lines())


def test_a_caller_that_leaves_ends_its_answer_and_leaves_no_half_turn(data: Path) -> None:
    """Proves that nothing is generated for nobody, streamed or not, and that the session is as it was before."""
    with ServerProcess(data) as server, worker(server.address, QUICK, ends=False) as serving:
        name = _name()
        before = _ask(serving.client(), name).memory["position"]
        for streams in (True, False):
            body = {"model": MODEL, "prompt": "go on", "max_tokens": LONG, "session": name, "stream": streams}
            _leave_early(serving.url, body)
            _until_idle(serving.url)
        again = _ask(serving.client(), name, "go on", 8)
        assert again.memory["position"] == before + len("go on") + 8


def test_a_full_queue_is_refused_and_who_waits_is_answered(data: Path) -> None:
    """Proves that a worker says 429 rather than queueing without end, and serves those it took on."""
    tight = WorkerSettings(rows_max=1, queue_max=1, tokens_max=LONG)
    with ServerProcess(data) as server, worker(server.address, tight, ends=False) as serving:
        client = serving.client()
        running = client.completions.create(model=MODEL, prompt="go", max_tokens=LONG, stream=True)
        next(iter(running))
        answers: list[str] = []
        waiting = threading.Thread(target=lambda: answers.append(_ask(client, _name(), "me", 2).choices[0].text))
        waiting.start()
        deadline = time.monotonic() + DEADLINE_S
        while serving.engine.load != (1, 1):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(model=MODEL, prompt="one more", max_tokens=1)
        assert refused.value.code == "queue_full"
        assert refused.value.response.headers["retry-after"] == "1"
        running.close()
        waiting.join()
        assert len(answers) == 1


@pytest.mark.parametrize("streams", [False, True])
def test_a_caller_that_leaves_while_it_waits_gives_up_its_place(data: Path, streams: bool) -> None:
    """Proves that places in the queue are kept for callers who are there, streamed or not: the next one gets it."""
    tight = WorkerSettings(rows_max=1, queue_max=1, tokens_max=LONG)
    with ServerProcess(data) as server, worker(server.address, tight, ends=False) as serving:
        client = serving.client()
        running = client.completions.create(model=MODEL, prompt="go", max_tokens=LONG, stream=True)
        next(iter(running))
        body = {"model": MODEL, "prompt": "me", "max_tokens": 2, "stream": streams}
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{serving.url}/v1/completions", json=body, timeout=0.2)
        deadline = time.monotonic() + DEADLINE_S
        while serving.engine.load != (1, 0):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.close()


def test_a_session_that_another_writer_keeps_is_refused_in_time(data: Path) -> None:
    """Proves that waiting for a writer has an end, and that its caller is told whom it waited for."""
    impatient = WorkerSettings(writer_wait_s=0.2)
    with ServerProcess(data) as server, worker(server.address, impatient, ends=False) as serving:
        name = _name()
        with serving.attached.writer(name), pytest.raises(openai.ConflictError) as refused:
            _ask(serving.client(), name)
        assert refused.value.code == "session_has_writer"
        assert _ask(serving.client(), name).memory["saved"]


@pytest.mark.timeout(180)
def test_another_worker_goes_on_when_the_writer_is_killed(data: Path, tmp_path: Path) -> None:
    """Proves that a session is handed over through its tail: kill -9 in the middle of a turn loses that turn alone."""
    model = save_model("llama", tmp_path / "model")
    with ServerProcess(data) as server:
        workers = [WorkerProcess(model, server.address, *FLAGS) for _ in range(2)]
        try:
            first, second = (one.wait_ready() for one in workers)
            name = _name()
            begun = _ask(first.client(), name).memory["position"]
            turn = first.client().completions.create(
                model=MODEL, prompt="go on", max_tokens=LONG, stream=True, extra_body={"session": name}
            )
            next(iter(turn))
            first.end(signal.SIGKILL)
            taken_over = _ask(second.client(), name, "go on")
            assert taken_over.memory["saved"]
            assert taken_over.memory["position"] == begun + len("go on") + 8
            assert taken_over.memory["recalled"]["blocks"]
            assert second.end() == 0
        finally:
            for one in workers:
                one.end(signal.SIGKILL)
        with MemoryClient(server.address) as client:
            assert [session.name for session in client.list_sessions()] == [name]


def test_a_view_sees_the_newest_tail_while_a_turn_is_written(data: Path) -> None:
    """Proves that readers neither wait for a writer nor see any of its unfinished turn: they lag by that turn alone."""
    with ServerProcess(data) as server, worker(server.address, QUICK, ends=False) as serving:
        client, name = serving.client(), _name()
        written = _ask(client, name).memory["position"]
        turn = client.completions.create(
            model=MODEL, prompt="go on", max_tokens=200, stream=True, extra_body={"session": name}
        )
        chunks = iter(turn)
        next(chunks)
        view = {"name": name, "mode": "read"}
        during = _ask(client, view, " Why?")
        assert during.memory["position"] == written + len(" Why?") + 8 - 1
        *_, last = chunks
        assert last.memory["saved"]
        after = _ask(client, view, " Why?")
        assert after.memory["position"] == written + len("go on") + 200 + len(" Why?") + 8 - 1


def test_a_busy_worker_leaves_nothing_behind(data: Path) -> None:
    """Proves that callers that leave, mixed with others, take no answer from those, and leave no session, row or
    thread.
    """
    busy = WorkerSettings(rows_max=3, queue_max=64, tokens_max=LONG)

    def ask(number: int) -> None:
        """Every fourth caller leaves: in the queue, while the prompt is read, or under the answer."""
        session = (None, "shared", {"name": f"fork-{number}", "mode": "fork", "parent": "shared"})[number % 3]
        leaves, streams = number % 4 == 0, number % 8 < 4
        body = {"model": MODEL, "prompt": TEXT, "session": session, "stream": streams}
        if leaves:
            _leave_early(serving.url, {**body, "max_tokens": LONG})
            return
        answer = httpx2.post(f"{serving.url}/v1/completions", json={**body, "max_tokens": 4}, timeout=DEADLINE_S)
        assert answer.status_code == 200, answer.text
        assert ("data: [DONE]" in answer.text) == streams
        assert '"error"' not in answer.text

    with ServerProcess(data) as server, worker(server.address, busy, ends=False) as serving:
        _ask(serving.client(), "shared")
        threads = threading.active_count()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(32)))
        _until_idle(serving.url)
        names = {session.name for session in serving.attached.client.list_sessions()}
        assert not [name for name in names if name.startswith(TEMPORARY_PREFIX)]
        assert _ask(serving.client(), "shared").memory["saved"]
        # The pool of sessions' threads fills up to its rows, and no further.
        assert threading.active_count() <= threads + busy.rows_max
