"""`attn-client serve`: answer OpenAI's HTTP calls with one model, whose sessions live in a memory server."""

import argparse
import contextlib
import dataclasses
from pathlib import Path

from attn_client.cli.arguments import ACCESS_FLAGS, check_memory_flags, settings_of
from attn_client.embedded import EmbeddedServer
from attn_client.errors import InvalidSettings
from attn_client.hf.attach import NO_MEMORY, NoMemory, attach
from attn_client.hf.load import device_of, dtype_of, load_model
from attn_client.memory import ClientSettings, MemoryClient
from attn_client.worker.app import Served, make_app
from attn_client.worker.engine import Engine
from attn_client.worker.serving import bound, serve
from attn_client.worker.settings import WorkerSettings


def run(arguments: argparse.Namespace) -> None:
    """Serve until a signal."""
    check_memory_flags(arguments)
    settings, dtype, worker = settings_of(arguments), dtype_of(arguments.dtype), _worker_settings(arguments)
    key = _key_in(arguments.api_key_file) if arguments.api_key_file is not None else None
    name = arguments.name if arguments.name is not None else Path(arguments.model).name
    with contextlib.ExitStack() as stack:
        # Before anything that takes long: a port in use is told at once.
        listener = stack.enter_context(bound(arguments.http))
        model, tokenizer = load_model(arguments.model, dtype, device_of(arguments.device))
        memory = _memory(stack, arguments, worker)
        attached = stack.enter_context(attach(model, memory, settings, tokenizer=tokenizer))
        engine = stack.enter_context(contextlib.closing(Engine(attached, tokenizer, worker)))
        serve(make_app(Served(engine, name, worker, settings.recall, key)), listener, name)


def _memory(
    stack: contextlib.ExitStack, arguments: argparse.Namespace, worker: WorkerSettings
) -> MemoryClient | NoMemory:
    """The memory that the flags name: a server's, a private server's, or none."""
    if arguments.no_memory:
        return NO_MEMORY
    address = arguments.memory
    if address is None:
        address = stack.enter_context(EmbeddedServer(arguments.data)).address
    settings = ClientSettings(
        connect_timeout_s=worker.memory_wait_s,
        stall_timeout_s=worker.save_wait_s,
        **{name: getattr(arguments, name) for name in ACCESS_FLAGS},
    )
    return stack.enter_context(MemoryClient(address, settings))


def _worker_settings(arguments: argparse.Namespace) -> WorkerSettings:
    given = {name: getattr(arguments, name) for name in ("rows_max", "queue_max", "tokens_max")}
    changed = {name: value for name, value in given.items() if value is not None}
    default = WorkerSettings.tokens_default
    return dataclasses.replace(
        WorkerSettings(), **changed, tokens_default=max(1, min(default, changed.get("tokens_max", default)))
    )


def _key_in(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"--api-key-file: expected a readable file, got {str(path)!r}: {error}") from error
    if not key or not key.isascii() or any(character.isspace() for character in key):
        raise InvalidSettings(f"--api-key-file: expected one word in {str(path)!r}, got something else")
    return key
