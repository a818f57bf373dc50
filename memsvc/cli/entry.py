"""The command line: its words, its exit codes, and the one line that says what went wrong."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

import memsvc
from memsvc.cli.bearer import add_token, print_new
from memsvc.cli.change import add_changes
from memsvc.cli.completion import add_completion, print_completion
from memsvc.cli.dial import add_dialling
from memsvc.cli.doctor import add_doctor, run_doctor
from memsvc.cli.export import add_export, add_form, run_export
from memsvc.cli.health import add_health, run_health
from memsvc.cli.read import ReadFailed, show
from memsvc.cli.run import run_server
from memsvc.cli.search import add_search, run_search
from memsvc.cli.top import add_top, run_top
from memsvc.cli.upkeep import add_forget, run_forget
from memsvc.cli.verify import EXIT_UNKNOWN, add_repair, add_verify, run_repair, run_verify
from memsvc.clock import SystemClock
from memsvc.errors import InvalidRequest, MemsvcError
from memsvc.lines import FORMATS, LEVELS
from memsvc.settings import AccessSettings, ObserveSettings, ServerSettings, UpkeepSettings, check_address

EXIT_FAILED = 1
EXIT_USAGE = 2
# As shells tell a program that SIGINT ended.
EXIT_INTERRUPTED = 130


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
        if getattr(options, "memory", None) is not None:
            check_address("--memory", options.memory)
    except (_UsageError, InvalidRequest) as error:
        return _failed(error, EXIT_USAGE)
    code = 0
    try:
        if settings is not None:
            run_server(
                settings,
                exit_with_stdin=options.exit_with_stdin,
                log_level=options.log_level,
                log_format=options.log_format,
            )
        elif options.command == "token":
            print_new(options, SystemClock())
        elif options.command == "doctor":
            code = run_doctor(options)
        elif options.command == "health":
            code = run_health(options)
        elif options.command == "top":
            run_top(options)
        elif options.command == "search":
            run_search(options)
        elif options.command == "completion":
            print_completion(options.shell, _parser())
        elif options.command == "export" or (options.command == "graph" and (options.format or options.output)):
            run_export(options)
        elif options.command == "forget":
            run_forget(options)
        elif options.command == "verify":
            code = run_verify(options)
        elif options.command == "repair":
            code = run_repair(options)
        else:
            show(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader had enough. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("memsvc: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (MemsvcError, ReadFailed) as error:
        return _failed(error, EXIT_UNKNOWN if options.command in ("verify", "repair") else EXIT_FAILED)
    return code


def _failed(error: Exception, code: int) -> int:
    line = " ".join(str(error).split())
    print(line if line.startswith("memsvc") else f"memsvc: {line}", file=sys.stderr)
    return code


def _settings(options: argparse.Namespace) -> ServerSettings:
    access = AccessSettings(**{one.name: getattr(options, one.name) for one in fields(AccessSettings)})
    observe = ObserveSettings(http=options.http, otlp=options.otlp)
    upkeep = UpkeepSettings(**{one.name: getattr(options, one.name) for one in fields(UpkeepSettings)})
    return ServerSettings(
        options.data,
        options.listen,
        options.manifest,
        access=access,
        observe=observe,
        upkeep=upkeep,
        faults=options.faults,
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="memsvc", description="Semantic bookmark memory: the server, and a look into it.")
    parser.add_argument("--version", action="version", version=f"memsvc {memsvc.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_serve(commands.add_parser("serve", help="run a memory server until SIGTERM"))
    add_token(commands.add_parser("token", help="make a bearer token for a tenant"))
    add_verify(commands.add_parser("verify", help="read everything that is stored, and name what is damaged"))
    add_repair(commands.add_parser("repair", help="make a data folder whole again from what its logs and blocks say"))
    forget = commands.add_parser("forget", help="let the bytes of a session's old blocks go")
    add_dialling(forget)
    add_forget(forget)
    add_doctor(commands.add_parser("doctor", help="check a data folder and its machine, or a server"))
    add_health(commands.add_parser("health", help="whether a server takes work"))
    add_top(commands.add_parser("top", help="what a server is doing, again and again"))
    add_search(commands.add_parser("search", help="find passages of a session that resemble a text, through a worker"))
    add_export(commands.add_parser("export", help="write a session's whole graph for NetworkX, Gephi and others"))
    add_completion(commands.add_parser("completion", help="print what a shell completes this program's words by"))
    for name, text in (
        ("sessions", "list the sessions, or show one"),
        ("bookmarks", "list a session's bookmarks in order of position"),
        ("graph", "show bookmarks and their links around some of them"),
        ("explain", "say why a recall chose its blocks"),
    ):
        command = commands.add_parser(name, help=text)
        add_dialling(command)
        command.add_argument("--json", action="store_true", help="one JSON object instead of a table")
        command.add_argument("--session", required=name != "sessions", metavar="NAME")
        _add_reading(name, command)
    add_changes(commands)
    return parser


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of sessions; made if absent")
    command.add_argument("--listen", required=True, metavar="ADDRESS", help="unix:///PATH or HOST:PORT")
    # A field's class attribute is its default: it stands in one place.
    manifests = "sqlite (the default), or redis://HOST:PORT/DB"
    command.add_argument("--manifest", default=ServerSettings.manifest, metavar="KIND", help=manifests)
    command.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    command.add_argument("--token-file", type=Path, metavar="FILE", help="credentials; without it everybody may call")
    command.add_argument("--cert", type=Path, metavar="PEM", help="certificate chain; calls come by TLS")
    command.add_argument("--key", type=Path, metavar="PEM", help="its key")
    command.add_argument("--client-ca", type=Path, metavar="PEM", help="authority that clients' certificates are of")
    command.add_argument(
        "--insecure", action="store_true", help="listen for other machines without --token-file, or without TLS"
    )
    upkeep = UpkeepSettings
    for flag, field, text in (
        ("--upkeep-interval", "interval_s", "seconds between two rounds over what is stored"),
        ("--scrub", "scrub_bytes_per_s", "bytes of blocks a second that are read again and checked; 0: none"),
        ("--keep-bytes", "keep_session_bytes", "bytes of a session's blocks, past which the oldest leave; 0: all stay"),
        ("--keep-age", "keep_block_s", "seconds after which blocks leave; 0: all stay"),
    ):
        default = getattr(upkeep, field)
        command.add_argument(flag, dest=field, type=_number, default=default, metavar="N", help=f"{text} ({default})")
    command.add_argument("--reflection", action="store_true", help="tell which services there are")
    command.add_argument(
        "--http", metavar="HOST:PORT", help="serve /metrics, /livez, /readyz and the inspector's pages there"
    )
    command.add_argument("--otlp", metavar="URL", help="send numbers and spans to an OpenTelemetry collector there")
    command.add_argument("--faults", type=Path, metavar="FILE", help="fail on purpose, by the rules in it: a rehearsal")
    command.add_argument("--log-level", choices=LEVELS, default="warning", help="least that is logged (warning)")
    command.add_argument("--log-format", choices=FORMATS, default="auto", help="auto: human on a terminal, else json")


def _add_reading(name: str, command: argparse.ArgumentParser) -> None:
    if name == "bookmarks":
        command.add_argument("--first", type=_number, default=0, metavar="INDEX", help="first bookmark (0)")
        command.add_argument("--count", type=_number, default=0, metavar="N", help="1 to 10000 (1000)")
    elif name == "graph":
        command.add_argument("--seed", type=_number, action="append", default=[], metavar="INDEX", dest="seeds")
        command.add_argument("--hops", type=_number, default=2, metavar="N", help="links to follow (2)")
        command.add_argument("--count", type=_number, default=0, metavar="N", help="bookmarks, 1 to 10000 (1000)")
        add_form(command, "instead of a table: graphml, or node-link JSON")
    elif name == "explain":
        command.add_argument(
            "--asked-at", type=_number, metavar="POSITION", help="last token that voted; the newest recall if absent"
        )
