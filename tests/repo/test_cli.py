"""docs/CLI.md and the two programs say the same."""

import argparse
import re

import pytest

from attn_client.cli.arguments import parser as attn_parser
from memsvc.cli.entry import _parser as memsvc_parser
from tests.repo.sources import ROOT

PARSERS = {"memsvc": memsvc_parser, "attn-client": attn_parser}
TEXT = (ROOT / "docs" / "CLI.md").read_text()


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (own for own in parser._actions if isinstance(own, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("program", PARSERS)
def test_every_command_is_documented_and_every_documented_one_exists(program: str) -> None:
    """Proves that the table of a program's commands is what its parser knows."""
    section = TEXT.split(f"\n## `{program}`\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z]+)` \|", section, re.MULTILINE)) == _commands(PARSERS[program]()).keys()


@pytest.mark.parametrize("program", PARSERS)
def test_flags_in_the_examples_are_flags_of_their_commands(program: str) -> None:
    """Proves that no example names a flag that its command does not have."""
    commands = _commands(PARSERS[program]())
    wrong = []
    for line in re.findall(rf"(?m)^{program} .*$", TEXT):
        name = line.split()[1]
        known = set(commands[name]._option_string_actions)
        wrong += [f"{name} {flag}" for flag in re.findall(r"(?<![\w-])--[a-z-]+", line) if flag not in known]
    assert wrong == []


@pytest.mark.parametrize("program", PARSERS)
def test_every_command_that_reads_a_server_can_speak_to_programs(program: str) -> None:
    """Proves that whatever takes an address also takes --json."""
    commands = _commands(PARSERS[program]())
    silent = [
        name
        for name, own in commands.items()
        if "--memory" in own._option_string_actions and "--json" not in own._option_string_actions
    ]
    assert silent == (["serve"] if program == "attn-client" else [])
