"""A worker in the test's own process, on a port of its own; and one as a person runs it, that can be killed."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import uvicorn

from attn_client.hf.attach import Attached, attach
from attn_client.memory import ClientSettings, MemoryClient
from attn_client.settings import Settings
from attn_client.worker.app import Served, make_app
from attn_client.worker.engine import Engine
from attn_client.worker.serving import bound
from attn_client.worker.settings import WorkerSettings
from tests.e2e.models import byte_tokenizer, tiny_model
from tests.e2e.settings import SMALL

MODEL = "tiny"
# The id of a line break ends an answer; the template puts one after each.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@dataclass(frozen=True)
class Worker:
    """A worker that is up, and what it is made of."""

    url: str
    attached: Attached
    engine: Engine
    tokenizer: object

    def client(self) -> openai.OpenAI:
        """The official client, which tries nothing twice."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0, timeout=60.0)


@contextlib.contextmanager
def worker(
    memory: MemoryClient | str,
    worker_settings: WorkerSettings | None = None,
    *,
    ends: bool = True,
    settings: Settings = SMALL,
) -> Iterator[Worker]:
    """A worker with the tiny model, float32, which ends answers at a line break, or never."""
    worker_settings = worker_settings if worker_settings is not None else WorkerSettings()
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    if ends:
        model.generation_config.eos_token_id = tokenizer.encode("\n", add_special_tokens=False)[0]
    with contextlib.ExitStack() as stack:
        if isinstance(memory, str):
            connection = ClientSettings(
                connect_timeout_s=worker_settings.memory_wait_s, stall_timeout_s=worker_settings.save_wait_s
            )
            memory = stack.enter_context(MemoryClient(memory, connection))
        attached = stack.enter_context(attach(model, memory, settings, tokenizer=tokenizer))
        engine = stack.enter_context(contextlib.closing(Engine(attached, tokenizer, worker_settings)))
        app = make_app(Served(engine, MODEL, worker_settings, settings.recall))
        listener = stack.enter_context(bound("127.0.0.1:0"))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
        up = threading.Event()
        startup = server.startup

        async def announced(sockets: object = None) -> None:
            await startup(sockets)  # type: ignore[arg-type]
            up.set()

        server.startup = announced  # type: ignore[method-assign]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        assert up.wait(30)
        try:
            yield Worker(f"http://127.0.0.1:{listener.getsockname()[1]}", attached, engine, tokenizer)
        finally:
            server.should_exit = True
            thread.join()


class WorkerProcess:
    """`attn-client serve` as a process of its own."""

    def __init__(self, model: Path | str, memory: str, *flags: str) -> None:
        command = [sys.executable, "-m", "attn_client.cli", "serve", "--model", str(model), "--memory", memory]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            [*command, "--http", "127.0.0.1:0", "--name", MODEL, *flags],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._child.stdout is not None
        self.url = ""

    def wait_ready(self) -> "WorkerProcess":
        """Wait for its one line."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert "serving" in line, line
        self.url = line.split()[-1]
        return self

    def client(self) -> openai.OpenAI:
        """The official client, which tries nothing twice."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0, timeout=120.0)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        if self._child.poll() is None:
            self._child.send_signal(number)
        code = self._child.wait(timeout=30)
        assert self._child.stdout is not None
        self._child.stdout.close()
        return code
