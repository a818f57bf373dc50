"""Two workers, one memory: `python examples/share_memory.py`.

One worker reads a text into a session. The other, a process of its own that never saw the text, answers from it at
once, and goes on in a fork that the first one's session knows nothing of. Asked by OpenAI's own client.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from openai import OpenAI

from attn_client.embedded import EmbeddedServer
from attn_client.hf.load import SMOLLM2

FILLER = "The path goes on along the river, past a mill and two farms, and nobody is to be seen for an hour. "
TEXT = FILLER * 15 + "The parrot that belongs to Maren Tolliver is named Marmalade. " + FILLER * 50
QUESTION = "\nThe parrot that belongs to Maren Tolliver is named"


def main() -> None:
    """Read with one worker, ask the other."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default=SMOLLM2, help="a folder, or the demo's model")
    model = arguments.parse_args().model
    with (
        EmbeddedServer(None) as server,
        worker(model, server.address) as first,
        worker(model, server.address) as second,
    ):
        say("the first worker reads", ask(first, TEXT, "walk"))
        say("the second one answers", ask(second, QUESTION, {"name": "walk", "mode": "read"}))
        say("and goes on in a fork ", ask(second, QUESTION, {"name": "aside", "mode": "fork", "parent": "walk"}))
        say("the first is as it was", ask(first, QUESTION, {"name": "walk", "mode": "read"}))


@contextlib.contextmanager
def worker(model: str, memory: str) -> Iterator[OpenAI]:
    """A client of `attn-client serve` in a process of its own."""
    command = [sys.executable, "-m", "attn_client.cli", "serve", "--model", model, "--name", "model"]
    child = subprocess.Popen([*command, "--memory", memory, "--http", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        url = child.stdout.readline().split()[-1]
        yield OpenAI(base_url=f"{url}/v1", api_key="none is needed")
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()


def ask(client: OpenAI, prompt: str, session: object) -> tuple[Any, float]:
    """An answer, and how long it took."""
    began = time.monotonic()
    answer = client.completions.create(model="model", prompt=prompt, max_tokens=8, extra_body={"session": session})
    return answer, time.monotonic() - began


def say(who: str, asked: tuple[Any, float]) -> None:
    """One line an answer."""
    answer, seconds = asked
    memory = answer.memory
    print(
        f"{who}: {' '.join(answer.choices[0].text.split())!r}, {seconds:.1f} s, {answer.usage.prompt_tokens:,} tokens "
        f"read now, session {memory['session']} ({memory['mode']}) at {memory['position']:,}",
        flush=True,
    )


if __name__ == "__main__":
    main()
