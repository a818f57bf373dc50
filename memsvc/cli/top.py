"""`memsvc top`: what a server is doing now, as a table that is drawn again and again, from its /metrics page."""

import argparse
import http.client
import json
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from typing import Any

from memsvc.cli.read import ReadFailed
from memsvc.cli.shape import table
from memsvc.errors import InvalidRequest
from memsvc.metrics.reading import Numbers, Stretch, Times
from memsvc.settings import check_address

TIMEOUT_S = 5.0
_CLEAR = "\x1b[H\x1b[2J"
# Metric, what a person is shown, and the label that it is split by.
_TIMES = (
    ("memsvc_step_seconds", "step", ""),
    ("memsvc_recall_seconds", "recall", ""),
    ("memsvc_search_seconds", "search", "finder"),
    ("memsvc_log_fsync_seconds", "fsync", ""),
    ("memsvc_rpc_seconds", "call", "method"),
)
_COUNTS = (
    ("memsvc_tokens_total", "tokens", ""),
    ("memsvc_bookmarks_total", "bookmarks", ""),
    ("memsvc_recalls_total", "recalls", "outcome"),
    ("memsvc_fetch_bytes_total", "bytes sent", "path"),
    ("memsvc_put_bytes_total", "bytes stored", "path"),
    ("memsvc_errors_total", "errors", "reason"),
)

Record = dict[str, Any]


def add_top(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc top`."""
    command.add_argument(
        "--http", required=True, type=_http, metavar="HOST:PORT", help="where serve --http shows its numbers"
    )
    command.add_argument("--interval", type=_seconds, default=2.0, metavar="S", help="seconds between two looks (2)")
    command.add_argument("--count", type=_count, metavar="N", help="end after so many; without it, with Ctrl-C")
    command.add_argument("--json", action="store_true", help="one JSON object a look, on a line of its own")


def run_top(options: argparse.Namespace) -> None:
    """Show the numbers until there were enough, or until Ctrl-C. Raises ReadFailed."""
    shown = 0
    # The first look goes back to the server's start.
    before = Numbers(0.0)
    try:
        while options.count is None or shown < options.count:
            if shown:
                time.sleep(options.interval)
            now = _numbers(options.http)
            if not shown:
                before = Numbers(now.at_s - _up_s(now))
            record = seen(Stretch(before, now))
            clear = _CLEAR if sys.stdout.isatty() and not options.json else ""
            print(json.dumps(record) if options.json else f"{clear}{text(record, options.http)}", flush=True)
            before, shown = now, shown + 1
    except KeyboardInterrupt:
        return


def seen(stretch: Stretch) -> Record:
    """What went on in a stretch, for programs."""
    now = stretch.now
    return {
        "version": next(now.labelled("memsvc_build_info", "version"), ""),
        "ready": now.get("memsvc_ready") == 1.0,
        "seconds": round(stretch.seconds, 3),
        "workers": int(now.get("memsvc_workers")),
        "sessions": {
            state: int(now.get("memsvc_sessions", state=state)) for state in now.labelled("memsvc_sessions", "state")
        },
        "unsynced_bytes": int(now.get("memsvc_log_unsynced_bytes")),
        "corruption_detected": int(now.sum("memsvc_corruption_detected_total")),
        "resident_bytes": int(now.get("memsvc_process_resident_memory_bytes")),
        "open_files": int(now.get("memsvc_process_open_fds")),
        "cores": round(stretch.rate("memsvc_process_cpu_seconds_total"), 3),
        "per_s": _rates(stretch),
        "durations": _durations(stretch),
    }


def text(record: Record, address: str) -> str:
    """The same, for people."""
    sessions = ", ".join(f"{count} {state}" for state, count in record["sessions"].items() if count) or "none in memory"
    head = (
        f"memsvc {record['version']} at {address}: {'ready' if record['ready'] else 'NOT READY'}, "
        f"{record['workers']} workers, sessions: {sessions}\n"
        f"{record['cores']:.2f} cores, {record['resident_bytes'] / 2**20:.0f} MiB, {record['open_files']} open files, "
        f"{record['unsynced_bytes']} bytes not on the disk yet, damage found {record['corruption_detected']} times\n"
        f"over the last {record['seconds']:.1f} s:\n"
    )
    counts = table(("WHAT", "A SECOND"), ((name, f"{rate:,.1f}") for name, rate in record["per_s"].items()))
    rows = (
        (name, f"{own['per_s']:,.1f}", _ms(own["half_s"]), _ms(own["most_s"]))
        for name, own in record["durations"].items()
    )
    return f"{head}\n{counts}\n\n{table(('DURATION OF', 'A SECOND', 'HALF, MS', '99 %, MS'), rows)}"


def _rates(stretch: Stretch) -> dict[str, float]:
    rates = {}
    for metric, name, label in _COUNTS:
        rates[name] = round(stretch.rate(metric), 3)
        for value in stretch.now.labelled(metric, label) if label else ():
            if rate := stretch.rate(metric, **{label: value}):
                rates[f"{name}, {value}"] = round(rate, 3)
    return rates


def _durations(stretch: Stretch) -> dict[str, Record]:
    found: dict[str, Times] = {}
    for metric, name, label in _TIMES:
        found[name] = stretch.times(metric)
        for value in stretch.now.labelled(f"{metric}_count", label) if label else ():
            if (own := stretch.times(metric, **{label: value})).per_s:
                found[f"{name}, {value}"] = own
    return {name: asdict(own) for name, own in found.items()}


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f}"


def _up_s(now: Numbers) -> float:
    """Seconds since the server's start, by the clocks of both machines."""
    return max(0.0, time.time() - now.get("memsvc_process_start_time_seconds"))


def _numbers(address: str) -> Numbers:
    expected = f"expected a memory server's numbers at http://{address}/metrics"
    try:
        # The node's own network: a proxy is for other ones.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{address}/metrics", timeout=TIMEOUT_S) as answer:
            numbers = Numbers.parse(answer.read().decode(), time.monotonic())
    except urllib.error.HTTPError as error:
        raise ReadFailed(f"{expected}, got status {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ReadFailed(f"{expected}, got {getattr(reason, 'strerror', None) or reason}") from error
    if "memsvc_ready" not in numbers.values:
        raise ReadFailed(f"{expected}, got a page without memsvc_ready")
    return numbers


def _http(told: str) -> str:
    try:
        # The path of a socket is no HOST:PORT.
        check_address("--http", told.removeprefix("unix://"))
    except InvalidRequest:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {told!r}") from None
    return told


def _seconds(told: str) -> float:
    try:
        seconds = float(told)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600.0:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 3600 seconds, got {told!r}")
    return seconds


def _count(told: str) -> int:
    if not told.isascii() or not told.isdigit() or not 1 <= int(told) <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {told!r}")
    return int(told)
