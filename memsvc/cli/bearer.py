"""`memsvc token new`: a bearer token, shown once, and the record of it for the server's token file."""

import argparse
import json
import re

from memsvc.auth.bearer import new_bearer
from memsvc.auth.caller import Scope
from memsvc.auth.credentials import check_scopes, check_tenant, format_bearer, scope_names
from memsvc.clock import Clock
from memsvc.errors import InvalidRequest

_DAYS = re.compile(r"([1-9][0-9]{0,4})d")
_SECONDS_A_DAY = 24 * 60 * 60


def add_token(command: argparse.ArgumentParser) -> None:
    """Arguments of `memsvc token`."""
    command.add_argument("action", choices=["new"], metavar="new", help="make one")
    command.add_argument("--tenant", required=True, type=_tenant, metavar="NAME", help="whose sessions it opens")
    scopes = f"some of {', '.join(scope_names())}"
    command.add_argument("--scopes", required=True, type=_scopes, metavar="SCOPE,...", help=scopes)
    command.add_argument("--expires-in", type=_days, metavar="DAYSd", help="as in 90d; without it, never")
    command.add_argument("--json", action="store_true", help="one JSON object")


def print_new(options: argparse.Namespace, clock: Clock) -> None:
    """Print a new bearer token and its record."""
    expires_s = clock.unix_ms() // 1000 + options.expires_in if options.expires_in is not None else None
    secret, record = new_bearer(options.tenant, options.scopes, expires_s)
    if options.json:
        print(json.dumps({"token": secret, "record": format_bearer(record)}))
        return
    print("# The caller's, shown only now: keep it in a file of its own, for its --token-file.")
    print(f"{secret}\n")
    print("# The server's: append this to the file that its --token-file names.")
    print(format_bearer(record), end="")


def _tenant(text: str) -> str:
    try:
        return check_tenant("name", text)
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _scopes(text: str) -> frozenset[Scope]:
    try:
        return check_scopes("scopes", text.split(","))
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _days(text: str) -> int:
    """Seconds."""
    parts = _DAYS.fullmatch(text)
    if parts is None:
        raise argparse.ArgumentTypeError(f"expected days as in 90d, got {text!r}")
    return int(parts[1]) * _SECONDS_A_DAY
