"""How soon a second worker answers from a session that another one read: `python -m benchmarks.bench_second_worker`.

Two processes `attn-client serve` with the demo's model on one memory server:

    first      reads the text into a session
    second     is asked about it: the first thing it is asked at all
    again      the second worker reads the same text by itself, then answers the same question

All through HTTP, whole answers of 12 tokens, memory there for all three. The figure is the time of `again` over that of
`second`: same machine, same run, same process.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from attn_client.embedded import EmbeddedServer
from attn_client.hf.load import SMOLLM2, load_model
from attn_client.text import PromptForm
from benchmarks import texts
from benchmarks.summary import RESULTS, ROOT, Row, record

RECORDED_TOKENS = 32_768
QUICK_TOKENS = 3_000
ANSWER_TOKENS = 12
QUESTION = "\nThe keeper of the northern lighthouse is called"
FACT = "The keeper of the northern lighthouse is called Orla Fennimore."
# Where the fact stands, as a share of the text.
PLACE = 0.4
SESSION = "text"
GOAL = 20.0
RESULT = "bench_second_worker.json"
COMMAND = "python -m benchmarks.bench_second_worker --record"
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Asked:
    """One request: what came, and after how long."""

    answer: str
    seconds: float
    prompt_tokens: int
    position: int
    recalled: int
    degraded: bool


def main() -> None:
    """Measure, print, and record if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tokens", type=int, default=None, help=f"of the text; {QUICK_TOKENS:,} without it")
    arguments.add_argument("--dtype", default="bfloat16", help="of the model, as `attn-client serve` takes it")
    arguments.add_argument("--record", action="store_true", help=f"{RECORDED_TOKENS:,} tokens, and record the figure")
    chosen = arguments.parse_args()
    tokens = RECORDED_TOKENS if chosen.record else chosen.tokens or QUICK_TOKENS
    text = _text(tokens)
    measured = _measure(text, chosen.dtype)
    for name, asked in measured.items():
        print(f"{name:7} {asked.seconds:8.2f} s  {asked.prompt_tokens:6,} tokens read  {asked.answer!r}")
    ratio = round(measured["again"].seconds / measured["second"].seconds, 1)
    print(f"the second worker's first answer came {ratio} times sooner than reading the text again (at least {GOAL:g})")
    if any(asked.degraded for asked in measured.values()):
        raise RuntimeError("expected answers that memory helped with, got a degraded one: nothing is recorded")
    if chosen.record:
        _record(measured, ratio, tokens)


def _text(tokens: int) -> str:
    """So many tokens of docstrings, one fact among them."""
    _, tokenizer = load_model(SMOLLM2)
    form = PromptForm()
    paragraphs = texts.library_docstrings()
    ids = form.text_ids(tokenizer, "\n\n".join(paragraphs))[:tokens]
    kept = str(tokenizer.decode(ids)).split("\n\n")
    kept.insert(int(PLACE * len(kept)), FACT)
    return str(tokenizer.decode(form.text_ids(tokenizer, "\n\n".join(kept))[:tokens]))


def _measure(text: str, dtype: str) -> dict[str, Asked]:
    with (
        EmbeddedServer(None) as server,
        _worker(server.address, dtype) as first,
        _worker(server.address, dtype) as second,
    ):
        reading = _ask(first, text, session=SESSION)
        answer = _ask(second, QUESTION, session={"name": SESSION, "mode": "read"})
        again = _ask(second, text + QUESTION, session=None)
    return {"first": reading, "second": answer, "again": again}


@contextlib.contextmanager
def _worker(memory: str, dtype: str) -> Iterator[str]:
    """Address of a worker that has loaded its model and was asked nothing."""
    command = [sys.executable, "-m", "attn_client.cli", "serve", "--model", SMOLLM2, "--memory", memory]
    child = subprocess.Popen(
        [*command, "--dtype", dtype, "--http", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        if "serving" not in line:
            raise RuntimeError(f"expected a worker that serves, got {line!r}")
        yield line.split()[-1]
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()


def _ask(url: str, prompt: str, session: object) -> Asked:
    body: dict[str, Any] = {"model": SMOLLM2, "prompt": prompt, "max_tokens": ANSWER_TOKENS}
    if session is not None:
        body["session"] = session
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        answer = json.load(response)
    seconds = time.perf_counter() - began
    memory = answer["memory"]
    recalled = memory["recalled"]["blocks"] if memory["recalled"] is not None else []
    return Asked(
        answer=answer["choices"][0]["text"],
        seconds=round(seconds, 3),
        prompt_tokens=answer["usage"]["prompt_tokens"],
        position=memory["position"],
        recalled=len(recalled),
        degraded=memory["degraded"],
    )


def _record(measured: dict[str, Asked], ratio: float, tokens: int) -> None:
    name = "second worker's first answer on 32K ingested tokens, times sooner than reading again"
    record([Row(7, name, ratio, f"at least {GOAL:g}", ratio >= GOAL, COMMAND)])
    details = {"tokens": tokens, "ratio": ratio, **{name: asdict(asked) for name, asked in measured.items()}}
    (ROOT / RESULTS / RESULT).write_text(json.dumps(details, indent=2) + "\n")


if __name__ == "__main__":
    main()
