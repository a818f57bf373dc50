"""`memsvc completion`: the script by which a shell completes commands, flags and their choices.

eval "$(memsvc completion bash)"
"""

import argparse

from memsvc.errors import InvalidRequest

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc completion`."""
    command.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def print_completion(shell: str, parser: argparse.ArgumentParser) -> None:
    """Print the script. Raises InvalidRequest (INVALID_SETTING) where shtab is not installed."""
    try:
        import shtab
    except ImportError as error:
        message = "completion: expected shtab to be installed (extra server), got none"
        raise InvalidRequest(message, reason="INVALID_SETTING") from error
    print(shtab.complete(parser, shell=shell))
