"""`memsvc serve`."""

import asyncio
import functools
import logging
import os
import sys
import threading
from pathlib import Path

from memsvc.lines import start_lines
from memsvc.server import serve
from memsvc.settings import ServerSettings

_READ_BYTES = 4096


def run_server(settings: ServerSettings, *, exit_with_stdin: bool, log_level: str, log_format: str) -> None:
    """Run a server until a signal, or until standard input ends if that is wanted.

    Prints one line on standard output once calls are answered: `memsvc: listening on ADDRESS`; and after it, where HTTP
    pages are served, `memsvc: http on HOST:PORT`; and where it fails on purpose, `memsvc: FAULTS ARE ON, ...`. What it
    logs goes to standard error.

    Args:
        log_level, log_format: As `memsvc.lines.start_lines` takes them.

    Raises:
        MemsvcError: The server did not start.
    """
    # Importing it changes the environment, which is a server's to do and nobody else's.
    from threadpoolctl import threadpool_limits

    start_lines(log_level, log_format, sys.stderr)
    # Steps of several sessions run side by side on threads of their own. BLAS threads that wait for each other beside
    # these take several times as long as one: 2,200 tokens a second against 15,000, two busy cores.
    with threadpool_limits(limits=1, user_api="blas"):
        asyncio.run(_serve(settings, exit_with_stdin))


async def _serve(settings: ServerSettings, exit_with_stdin: bool) -> None:
    stopping = asyncio.Event()
    if exit_with_stdin:
        loop = asyncio.get_running_loop()
        arguments = (loop, stopping)
        # A daemon: a read that never ends must not keep the process.
        threading.Thread(target=_watch_stdin, args=arguments, name="memsvc-stdin", daemon=True).start()
    await serve(settings, functools.partial(_announce, settings.faults), stopping)


def _announce(faults: Path | None, address: str, http_address: str) -> None:
    http = f"\nmemsvc: http on {http_address}" if http_address else ""
    on_purpose = f"\nmemsvc: FAULTS ARE ON, by the rules in {faults}: this is a rehearsal" if faults is not None else ""
    # In one write: whoever waits for the first line may close the pipe after it.
    print(f"memsvc: listening on {address}{http}{on_purpose}", flush=True)


def _watch_stdin(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    try:
        while os.read(sys.stdin.fileno(), _READ_BYTES):
            pass
    except OSError as error:
        logging.getLogger(__name__).warning("standard input: expected to read to its end, got %s", error.strerror)
    loop.call_soon_threadsafe(stopping.set)
