"""Tokens a second of one session and of eight decoded together: `python -m benchmarks.bench_sessions_together`.

The demo's model, each session with a text of its own that is longer than the window, a recall asked for by every token;
all sessions' tokens in one forward pass, as a worker decodes them. The figure is the tokens a second of eight sessions
over those of one: median step of each, in the same run. With `--device cuda` on a GPU.
"""

import argparse
import contextlib
import json
import statistics
import time
from dataclasses import asdict, dataclass

import torch

from attn_client.hf.attach import Attached, attach
from attn_client.hf.load import SMOLLM2, device_of, dtype_of, load_model
from attn_client.reader import Reader, decode
from attn_client.settings import Implementation, Settings
from attn_client.text import PromptForm
from benchmarks import texts
from benchmarks.summary import RESULTS, ROOT, Row, gpu_name, record

SESSIONS = 8
TEXT_TOKENS = 800
STEPS, WARM_STEPS = 40, 5
GOAL = 3.0
RESULT = "bench_sessions_together.json"
COMMAND = "python -m benchmarks.bench_sessions_together --record"


@dataclass(frozen=True)
class Together:
    """So many sessions decoded together; `recalls` is how many of the steps' recalls came."""

    sessions: int
    step_ms: float
    tokens_per_s: float
    recalls: int
    degraded: bool


def main() -> None:
    """Measure, print, and record if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--device", default="cpu", help="cpu, or cuda")
    arguments.add_argument("--dtype", default="bfloat16", help="of the model")
    arguments.add_argument("--attention", default="sdpa", help="sdpa, or fused on a GPU")
    arguments.add_argument("--steps", type=int, default=STEPS, help="tokens of each session that are timed")
    arguments.add_argument("--record", action="store_true", help="record the figure")
    chosen = arguments.parse_args()
    model, tokenizer = load_model(SMOLLM2, dtype_of(chosen.dtype), device_of(chosen.device))
    form, paragraphs = PromptForm(), texts.library_docstrings()
    ids = form.text_ids(tokenizer, "\n\n".join(paragraphs))[: SESSIONS * TEXT_TOKENS]
    settings = Settings(implementation=Implementation(chosen.attention))
    with attach(model, settings=settings, tokenizer=tokenizer) as attached:
        measured = [_measure(attached, ids, sessions, chosen.steps) for sessions in (1, SESSIONS)]
    for one in measured:
        print(f"{one.sessions} sessions: {one.step_ms} ms a step, {one.tokens_per_s} tokens/s, {one.recalls} recalls")
    ratio = round(measured[1].tokens_per_s / measured[0].tokens_per_s, 2)
    print(f"{SESSIONS} sessions together give {ratio} times one session's tokens a second (at least {GOAL:g} on a GPU)")
    if any(one.degraded for one in measured):
        raise RuntimeError("expected recalls in time, got a degraded step: nothing is recorded")
    if chosen.record:
        _record(measured, ratio, chosen.device, chosen.attention)


def _measure(attached: Attached, ids: list[int], sessions: int, steps: int) -> Together:
    with contextlib.ExitStack() as stack:
        readers = []
        for number in range(sessions):
            reader = stack.enter_context(attached.temporary_writer(f"together-{sessions}-{number}"))
            reader.prompt(ids[number * TEXT_TOKENS :][: TEXT_TOKENS - 7 * number])
            readers.append(reader)
        times = _decoded(attached, readers, steps)
        step = statistics.median(times)
        return Together(
            sessions=sessions,
            step_ms=round(1e3 * step, 2),
            tokens_per_s=round(sessions / step, 1),
            recalls=sum(len(reader.recalls.answers) for reader in readers if reader.recalls is not None),
            degraded=any(reader.degraded for reader in readers),
        )


def _decoded(attached: Attached, readers: list[Reader], steps: int) -> list[float]:
    """Seconds of each step after the first few; every token is chosen, so that all of the step's work is done."""
    tokens = [int(reader.next_logits().argmax()) for reader in readers]
    times = []
    for _ in range(WARM_STEPS + steps):
        began = time.perf_counter()
        tokens = torch.stack(decode(attached.passes, readers, tokens)).argmax(dim=-1).tolist()
        times.append(time.perf_counter() - began)
    return times[WARM_STEPS:]


def _record(measured: list[Together], ratio: float, device: str, attention: str) -> None:
    on_gpu = device != "cpu"
    flags = f" --device {device} --attention {attention}" if on_gpu else ""
    where = "GPU" if on_gpu else "CPU"
    name = f"tokens a second of eight sessions together, times one session's, {where}"
    # On a CPU the figure stands beside the GPU's and has no bar of its own; together must not be slower than in turn.
    goal = GOAL if on_gpu else 1.0
    named = gpu_name() if on_gpu else ""
    record([Row(7, name, ratio, f"at least {goal:g}", ratio >= goal, COMMAND + flags, device=named)])
    path = ROOT / RESULTS / RESULT
    held = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**held, where: [asdict(one) for one in measured]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
