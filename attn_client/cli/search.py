"""`attn-client search`: passages of a session that resemble a text, by the model's own vectors."""

import argparse
import dataclasses
import json

from attn_client.cli.arguments import check_memory_flags, settings_of
from attn_client.cli.connecting import memory_of
from attn_client.errors import InvalidSettings
from attn_client.hf.attach import attach
from attn_client.hf.load import device_of, dtype_of, load_model
from attn_client.search import Passage, find_passages
from attn_client.settings import RecallSettings, Settings

TOP_MAX = 64
_SHOWN_CHARACTERS = 160


def run(arguments: argparse.Namespace) -> None:
    """Find them and print them."""
    check_memory_flags(arguments)
    if not 1 <= arguments.best <= TOP_MAX:
        raise InvalidSettings(f"--best: expected 1 to {TOP_MAX}, got {arguments.best}")
    settings, dtype = _settings(arguments), dtype_of(arguments.dtype)
    model, tokenizer = load_model(arguments.model, dtype, device_of(arguments.device))
    with (
        memory_of(arguments) as memory,
        attach(model, memory, settings, tokenizer=tokenizer, data=arguments.data) as attached,
    ):
        passages = find_passages(attached, tokenizer, arguments.session, arguments.text, arguments.best)
    if arguments.json:
        found = [dataclasses.asdict(passage) for passage in passages]
        print(json.dumps({"session": arguments.session, "text": arguments.text, "passages": found}))
        return
    print("\n".join(map(_line, passages)) if passages else "nothing found")


def _settings(arguments: argparse.Namespace) -> Settings:
    """As the flags say. A recall's own best blocks are not asked for here, and must not refuse a small budget."""
    budget = getattr(arguments, "recall.budget_blocks")
    if budget is not None:
        setattr(arguments, "recall.top_blocks", max(1, min(budget, RecallSettings.top_blocks)))
    return settings_of(arguments)


def _line(passage: Passage) -> str:
    first, last = passage.positions
    # What a session holds is whatever somebody read: nothing in it may steer the terminal.
    shown = "".join(letter if letter.isprintable() else " " for letter in passage.text)
    return f"{passage.score:8.3f}  {first:>9,} to {last:,}: {' '.join(shown.split())[:_SHOWN_CHARACTERS]}"
