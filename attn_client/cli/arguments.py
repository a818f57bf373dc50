"""The command lines of `attn-client`, and the settings they make. Defaults come from the settings records alone."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NoReturn

from attn_client.errors import InvalidSettings
from attn_client.settings import FINDERS, LINK_SEARCHES, METRICS, POLICIES, Implementation, Settings

# Flags about the connection to a memory server that is named.
ACCESS_FLAGS = ("token_file", "ca", "cert", "key", "faults")
# That a completion script is made for.
SHELLS = ("bash", "zsh", "tcsh")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line on standard error, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message alone and exit with 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Parser of `attn-client`; the chosen command is in `command`."""
    top = OneLineParser(prog="attn-client", description="Read texts far past a model's window, with a memory server.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)
    ask = commands.add_parser("ask", help="read a text, or open a session, and answer a question")
    _common(ask)
    _once(ask)
    ask.add_argument("--file", type=Path, metavar="TEXT", help="text to read first; without it, --session is opened")
    ask.add_argument("--question", required=True, metavar="Q", help="question, or the beginning of its answer")
    ask.add_argument("--session", metavar="NAME", help="session in memory; one that was ingested is not read again")
    ask.add_argument("--append", action="store_true", help="write the text or question into an existing session")
    ask.add_argument("--no-memory", action="store_true", help="sinks and window only: the control")
    ask.add_argument("--max-tokens", type=int, default=32, metavar="N", help="tokens of the answer at most")
    ingest = commands.add_parser("ingest", help="read a text into a session")
    _common(ingest)
    _once(ingest)
    ingest.add_argument("--file", type=Path, metavar="TEXT", required=True, help="text to read")
    ingest.add_argument("--session", metavar="NAME", help="session to write")
    ingest.add_argument("--append", action="store_true", help="read on in a session that holds tokens already")
    ingest.add_argument(
        "--no-memory", action="store_true", help="sinks and window only: what reading costs without memory"
    )
    search = commands.add_parser("search", help="find passages of a session that resemble a text")
    _model_and_memory(search)
    _search(search)
    completion = commands.add_parser("completion", help="print what a shell completes this program's words by")
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    serve = commands.add_parser("serve", help="answer OpenAI's HTTP calls, sessions in a memory server")
    _serving(serve)
    return top


def _search(search: argparse.ArgumentParser) -> None:
    search.add_argument("text", metavar="TEXT", help="what to look for")
    search.add_argument("--session", required=True, metavar="NAME", help="session to look in")
    search.add_argument("--best", type=int, default=5, metavar="N", help="passages (5)")
    search.add_argument("--json", action="store_true", help="print one JSON object")
    # A search makes no session and attends to no recall: what is left has to fit the session, or says how to compute.
    _fitting(search.add_argument_group("settings (docs/SETTINGS.md)"))
    search.set_defaults(no_memory=False, append=False)


def _serving(serve: argparse.ArgumentParser) -> None:
    _common(serve)
    serve.add_argument("--http", metavar="HOST:PORT", default="127.0.0.1:8000", help="where to listen; port 0: any")
    serve.add_argument("--name", metavar="NAME", help="what requests call the model; the folder's name without it")
    serve.add_argument("--api-key-file", type=Path, metavar="FILE", help="file with the key that callers must have")
    serve.add_argument("--rows", type=int, dest="rows_max", metavar="N", help="requests answered at the same time")
    serve.add_argument("--queue", type=int, dest="queue_max", metavar="N", help="requests that wait; more are refused")
    serve.add_argument("--max-tokens", type=int, dest="tokens_max", metavar="N", help="tokens of an answer at most")
    serve.add_argument("--no-memory", action="store_true", help="sinks and window only: the control")
    # Requests name sessions, not the command.
    serve.set_defaults(session=None, append=False)


def _model_and_memory(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="smollm2", metavar="DIR|smollm2", help="folder of a model, or the demo's")
    command.add_argument(
        "--dtype", default="bfloat16", metavar="NAME", help="bfloat16, or float32: faster on a CPU without AMX"
    )
    command.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, or cuda:N")
    command.add_argument("--memory", metavar="ADDR", help="memory server; without it a private one is started")
    command.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token for --memory")
    command.add_argument("--ca", type=Path, metavar="PEM", help="authority of the server's certificate; calls use TLS")
    command.add_argument("--cert", type=Path, metavar="PEM", help="certificate to call with, beside --key and --ca")
    command.add_argument("--key", type=Path, metavar="PEM", help="its key")
    command.add_argument("--faults", type=Path, metavar="FILE", help="let --memory fail on purpose, by the rules in it")
    command.add_argument("--data", type=Path, metavar="DIR", help="folder of the private server; temporary without it")


def _fitting(choice: argparse._ArgumentGroup) -> None:
    """Settings that a session is fixed to, and those of how its model computes and how long it waits."""
    choice.add_argument("--window", type=int, dest="window.window_tokens", metavar="N", help="window in tokens")
    choice.add_argument("--sinks", type=int, dest="window.sink_tokens", metavar="N", help="sinks in tokens")
    choice.add_argument(
        "--chunk", type=int, dest="window.chunk_tokens", metavar="N", help="tokens a pass while reading"
    )
    choice.add_argument("--probe", type=int, dest="probe.layer", metavar="N", help="layer whose vectors are remembered")
    choice.add_argument("--budget", type=int, dest="recall.budget_blocks", metavar="N", help="recalled blocks at most")
    choice.add_argument("--timeout", type=float, dest="recall.timeout_s", metavar="S", help="seconds a recall may take")
    choice.add_argument("--attention", dest="implementation", metavar="NAME", help="sdpa, reference or fused")


def _common(command: argparse.ArgumentParser) -> None:
    _model_and_memory(command)
    choice = command.add_argument_group("settings (docs/SETTINGS.md)")
    _fitting(choice)
    choice.add_argument("--top", type=int, dest="recall.top_blocks", metavar="N", help="best blocks of a recall")
    choice.add_argument("--alpha", type=float, dest="recall.alpha", metavar="X", help="weight of the similarity bias")
    choice.add_argument("--lift", type=float, dest="recall.lift", metavar="X", help="bias of the best passage")
    choice.add_argument("--lag", type=int, dest="recall.lag_tokens", metavar="N", help="decode steps a recall lags")
    choice.add_argument("--hops", type=int, dest="recall.hops", metavar="N", help="links followed from a hit")
    choice.add_argument(
        "--hop-blocks", type=int, dest="recall.hop_blocks", metavar="N", help="blocks that links bring at most"
    )
    choice.add_argument(
        "--link-half-life", type=int, dest="recall.link_half_life_tokens", metavar="N", help="tokens; links fade"
    )
    choice.add_argument("--policy", dest="bookmarks.policy", metavar="NAME", help=", ".join(POLICIES))
    choice.add_argument(
        "--coverage", type=float, dest="bookmarks.coverage", metavar="X", help="share of tokens (not every, fixed)"
    )
    choice.add_argument(
        "--weights", type=_weights, dest="bookmarks.hybrid_weights", metavar="NAME=X,...", help="policies in hybrid"
    )
    choice.add_argument("--metric", dest="bookmarks.metric", metavar="NAME", help=", ".join(METRICS))
    choice.add_argument("--every", type=int, dest="bookmarks.every_tokens", metavar="N", help="stride (fixed)")
    choice.add_argument("--finder", dest="bookmarks.finder", metavar="NAME", help=", ".join(FINDERS))
    choice.add_argument("--link-search", dest="bookmarks.link_search", metavar="NAME", help=", ".join(LINK_SEARCHES))
    choice.add_argument(
        "--index-every", type=int, dest="bookmarks.index_every_tokens", metavar="N", help="tokens indexed together"
    )
    choice.add_argument(
        "--keep-text", action="store_const", const=True, dest="bookmarks.keep_text", help="for people who look inside"
    )


def _once(command: argparse.ArgumentParser) -> None:
    """What commands have that read and print once."""
    command.add_argument("--chat", action="store_true", help="wrap text and question in the model's chat template")
    command.add_argument("--json", action="store_true", help="print one JSON object")


def check_memory_flags(arguments: argparse.Namespace) -> None:
    """Refuse flags about a memory that contradict each other. Raises InvalidSettings."""
    if arguments.no_memory and (arguments.memory or arguments.session or arguments.data or arguments.append):
        raise InvalidSettings("expected --no-memory alone, got it with --memory, --session, --data or --append")
    for name in ACCESS_FLAGS:
        if getattr(arguments, name) is not None and arguments.memory is None:
            raise InvalidSettings(f"--{name.replace('_', '-')}: expected --memory ADDR beside it, got none")
    if arguments.session is not None and arguments.memory is None and arguments.data is None:
        raise InvalidSettings("--session: expected --memory ADDR or --data DIR to keep it in, got neither")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Settings with what the command line names replaced.

    Raises:
        InvalidSettings: A value is out of its range.
    """
    settings = Settings()
    groups: dict[str, dict[str, Any]] = {}
    for name, value in vars(arguments).items():
        if "." in name and value is not None:
            group, field = name.split(".")
            groups.setdefault(group, {})[field] = value
    parts: dict[str, Any] = {name: dataclasses.replace(getattr(settings, name), **new) for name, new in groups.items()}
    if arguments.implementation is not None:
        parts["implementation"] = _implementation(arguments.implementation)
    return dataclasses.replace(settings, **parts)


def _weights(text: str) -> tuple[tuple[str, float], ...]:
    """Weights by name, as in surprisal=1,novelty=0.5."""
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return tuple((name, float(weight)) for name, weight in pairs)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, comma-separated, got {text!r}") from None


def _implementation(name: str) -> Implementation:
    try:
        return Implementation(name)
    except ValueError:
        known = ", ".join(one.value for one in Implementation)
        raise InvalidSettings(f"--attention: expected one of {known}, got {name!r}") from None
