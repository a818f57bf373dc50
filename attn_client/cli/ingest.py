"""`attn-client ingest`: read a text into a session, once, for any number of questions later."""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from attn_client.cli.arguments import check_memory_flags, settings_of
from attn_client.cli.connecting import memory_of
from attn_client.cli.progress import reading
from attn_client.errors import InvalidSettings
from attn_client.hf.attach import Attached, attach
from attn_client.hf.load import device_of, dtype_of, load_model
from attn_client.reader import Reader
from attn_client.text import PromptForm, read_text


def run(arguments: argparse.Namespace) -> None:
    """Read the text and print what became of it."""
    _check(arguments)
    settings, dtype = settings_of(arguments), dtype_of(arguments.dtype)
    text = read_text(arguments.file)
    model, tokenizer = load_model(arguments.model, dtype, device_of(arguments.device))
    form = PromptForm.chat(tokenizer) if arguments.chat else PromptForm()
    ids = form.text_ids(tokenizer, text)
    with (
        memory_of(arguments) as memory,
        attach(model, memory, settings, tokenizer=tokenizer, data=arguments.data) as attached,
        _reader(attached, arguments) as reader,
    ):
        began = time.monotonic()
        with reading(reader, len(ids), "reading") as advance:
            reader.read(ids, advance)
        # Durable before the clock stops: what counts as read can be asked for.
        reader.save_tail()
        report = _report(reader, len(ids), time.monotonic() - began)
        if not arguments.no_memory:
            info = attached.client.get_session(arguments.session)
            report = {"session": info.name, **report, "bookmarks": info.bookmarks, "stored_bytes": info.stored_bytes}
    print(json.dumps(report) if arguments.json else "\n".join(f"{name}: {value}" for name, value in report.items()))


def _check(arguments: argparse.Namespace) -> None:
    check_memory_flags(arguments)
    if arguments.session is None and not arguments.no_memory:
        raise InvalidSettings("expected --session NAME to write, or --no-memory, got neither")


@contextlib.contextmanager
def _reader(attached: Attached, arguments: argparse.Namespace) -> Iterator[Reader]:
    if arguments.no_memory:
        yield attached.without_memory()
        return
    with attached.writer(arguments.session, append=arguments.append) as reader:
        yield reader


def _report(reader: Reader, tokens: int, seconds: float) -> dict[str, Any]:
    report: dict[str, Any] = {
        "tokens": tokens,
        "position": reader.position,
        "seconds": round(seconds, 3),
        "tokens_per_s": round(tokens / seconds, 1),
        "resident_tokens_max": reader.resident_tokens_max,
    }
    if reader.memory is not None:
        report["degraded"] = bool(reader.degraded)
        report["degraded_reasons"] = list(reader.degraded)
    return report
