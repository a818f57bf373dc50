"""The command line: its words, its exit codes, and the one line that says what went wrong."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import memsvc
from memsvc.cli.read import ReadFailed, show
from memsvc.cli.run import run_server
from memsvc.errors import InvalidRequest, MemsvcError
from memsvc.settings import ServerSettings, check_address

EXIT_FAILED = 1
EXIT_USAGE = 2


class _UsageError(Exception):
    """The command line is wrong."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage that argparse puts before it."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{self.prog}: {message}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; `arguments` default to those of the process."""
    try:
        options = _parser().parse_args(arguments)
        settings = _settings(options) if options.command == "serve" else None
        if settings is None:
            check_address("--memory", options.memory)
    except (_UsageError, InvalidRequest) as error:
        return _failed(error, EXIT_USAGE)
    try:
        if settings is not None:
            run_server(settings, exit_with_stdin=options.exit_with_stdin)
        else:
            show(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader had enough. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (MemsvcError, ReadFailed) as error:
        return _failed(error, EXIT_FAILED)
    return 0


def _failed(error: Exception, code: int) -> int:
    line = " ".join(str(error).split())
    print(line if line.startswith("memsvc") else f"memsvc: {line}", file=sys.stderr)
    return code


def _settings(options: argparse.Namespace) -> ServerSettings:
    return ServerSettings(data=options.data, listen=options.listen, manifest=options.manifest)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="memsvc", description="Semantic bookmark memory: the server, and a look into it.")
    parser.add_argument("--version", action="version", version=f"memsvc {memsvc.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_serve(commands.add_parser("serve", help="run a memory server until SIGTERM"))
    for name, text in (
        ("sessions", "list the sessions, or show one"),
        ("bookmarks", "list a session's bookmarks in order of position"),
        ("graph", "show bookmarks and their links around some of them"),
        ("explain", "say why a recall chose its blocks"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--memory", required=True, metavar="ADDRESS", help="unix:///PATH or HOST:PORT")
        command.add_argument("--json", action="store_true", help="one JSON object instead of a table")
        command.add_argument("--session", required=name != "sessions", metavar="NAME")
        _add_reading(name, command)
    return parser


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of sessions; made if absent")
    command.add_argument("--listen", required=True, metavar="ADDRESS", help="unix:///PATH or HOST:PORT")
    # A field's class attribute is its default: it stands in one place.
    command.add_argument("--manifest", default=ServerSettings.manifest, metavar="KIND", help="sqlite (the default)")
    command.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")


def _add_reading(name: str, command: argparse.ArgumentParser) -> None:
    if name == "bookmarks":
        command.add_argument("--first", type=_number, default=0, metavar="INDEX", help="first bookmark (0)")
        command.add_argument("--count", type=_number, default=0, metavar="N", help="1 to 10000 (1000)")
    elif name == "graph":
        command.add_argument("--seed", type=_number, action="append", default=[], metavar="INDEX", dest="seeds")
        command.add_argument("--hops", type=_number, default=2, metavar="N", help="links to follow (2)")
        command.add_argument("--count", type=_number, default=0, metavar="N", help="bookmarks, 1 to 10000 (1000)")
    elif name == "explain":
        command.add_argument(
            "--asked-at", type=_number, metavar="POSITION", help="last token that voted; the newest recall if absent"
        )
