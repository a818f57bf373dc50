"""`attn-client ask`: read a text and answer, or answer from a session that was ingested before."""

import argparse
import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

from attn_client.cli.arguments import check_memory_flags, settings_of
from attn_client.cli.connecting import memory_of
from attn_client.cli.progress import reading
from attn_client.errors import InvalidSettings
from attn_client.generate import Answer, ask
from attn_client.hf.attach import Attached, attach
from attn_client.hf.load import device_of, dtype_of, load_model
from attn_client.reader import Reader
from attn_client.text import PromptForm, read_text


def run(arguments: argparse.Namespace) -> None:
    """Answer the question and print it."""
    _check(arguments)
    settings, dtype = settings_of(arguments), dtype_of(arguments.dtype)
    text = read_text(arguments.file) if arguments.file is not None else None
    model, tokenizer = load_model(arguments.model, dtype, device_of(arguments.device))
    form = PromptForm.chat(tokenizer) if arguments.chat else PromptForm()
    with (
        memory_of(arguments) as memory,
        attach(model, memory, settings, tokenizer=tokenizer, data=arguments.data) as attached,
        _reader(attached, arguments) as reader,
    ):
        if text is not None:
            ids = form.text_ids(tokenizer, text)
            with reading(reader, len(ids), "reading") as advance:
                reader.read(ids, advance)
        prompt = form.question_ids(tokenizer, arguments.question)
        answer = ask(attached.passes, reader, tokenizer, prompt, arguments.max_tokens)
    _print(answer, as_json=arguments.json)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.file is None and arguments.session is None:
        raise InvalidSettings("expected --file with a text, or --session with one that was ingested, got neither")
    check_memory_flags(arguments)
    if not arguments.question.strip():
        raise InvalidSettings("--question: expected some text, got none")
    if arguments.max_tokens < 1:
        raise InvalidSettings(f"--max-tokens: expected 1 or more, got {arguments.max_tokens}")


@contextlib.contextmanager
def _reader(attached: Attached, arguments: argparse.Namespace) -> Iterator[Reader]:
    """The reader that the flags ask for: control, view, writer of a named session, or of one that is temporary."""
    if arguments.no_memory:
        yield attached.without_memory()
    elif arguments.file is None and not arguments.append:
        with attached.view(arguments.session) as reader:
            yield reader
    elif arguments.session is not None:
        with attached.writer(arguments.session, append=arguments.append) as reader:
            yield reader
    else:
        with attached.temporary_writer(f"ask-{uuid.uuid4().hex}") as reader:
            yield reader


def _print(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer.as_json()))
        return
    print(answer.text.strip())
    for line in recalled_lines(answer.as_json()):
        print(line)


def recalled_lines(answer: dict[str, Any]) -> Iterator[str]:
    """What was recalled, for people."""
    yield f"({answer['context_tokens']:,} tokens read, at most {answer['resident_tokens_max']:,} on the device)"
    for block in answer["recalled"][:8]:
        first, last = block["positions"]
        yield f"  recalled {first:,} to {last:,}: score {block['score']:.3f}, {block['reached']}"
    if answer["degraded"]:
        yield f"  degraded: {'; '.join(answer['degraded_reasons'])}"
