"""Flags of `attn-client`: those that a command offers have an effect there."""

import argparse

import pytest

from attn_client.cli.arguments import parser
from attn_client.cli.search import _settings

# What a session is fixed to, how its model computes, and how long it waits: docs/SETTINGS.md.
FITTING = {"--window", "--sinks", "--chunk", "--probe", "--budget", "--timeout", "--attention"}


def _settings_flags(name: str) -> set[str]:
    """Flags of a command that are about settings."""
    (commands,) = (own for own in parser()._actions if isinstance(own, argparse._SubParsersAction))
    (group,) = (own for own in commands.choices[name]._action_groups if str(own.title).startswith("settings"))
    return {flag for action in group._group_actions for flag in action.option_strings}


def test_a_search_offers_only_settings_that_change_it() -> None:
    """Proves that what makes bookmarks, or weighs a recall, is no flag of a search, and all of it one of the others."""
    assert _settings_flags("search") == FITTING
    assert all(_settings_flags(name) > FITTING for name in ("ask", "ingest", "serve"))


@pytest.mark.parametrize("budget", [1, 4, 24, 64])
def test_a_search_fits_a_session_of_any_budget(budget: int) -> None:
    """Proves that a budget below the usual number of best blocks is taken, as a search has no flag for these."""
    arguments = parser().parse_args(["search", "--session", "s", "--data", "d", "--budget", str(budget), "text"])
    assert _settings(arguments).recall.budget_blocks == budget
