"""Log lines of the server: one an event, as JSON for programs or in words for a terminal.

    {"time": "2026-01-31T12:00:00.000Z", "level": "info", "event": "call", "method": "GetSession", "code": "OK", ...}
    12:00:00 info  call method=GetSession code=OK ...

A JSON line holds an event's name and such of FIELDS as it came with, nothing else: no payload, no token id, no secret
and no name that a client chose has a field to be in. A session is named by `session_tag`. Of an exception it holds the
type and the places that it passed through; its text is left out, which may repeat what was sent. So is the text of
other libraries: the line says which logger spoke, and from where.

Must not know: what the events mean.
"""

import hashlib
import json
import logging
import time
import traceback
from types import TracebackType
from typing import TextIO

FIELDS = frozenset("method code reason session epoch seq request seconds log_id address version problem".split())
Value = str | int | float
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "json", "human")

_PACKAGE = "memsvc"
_FRAMES_MAX = 20


def emit(
    logger: logging.Logger, level: int, event: str, error: BaseException | None = None, /, **fields: Value
) -> None:
    """Logs an event, with fields of FIELDS.

    Args:
        error: Whose type and places are told, never its text.
    """
    if unknown := fields.keys() - FIELDS:
        raise ValueError(f"expected fields of memsvc.lines.FIELDS, got {', '.join(sorted(unknown))}")
    if logger.isEnabledFor(level):
        logger.log(level, "%s", _words(event, fields), exc_info=error, extra={"event": event, "fields": fields})


def session_tag(name: str) -> str:
    """What stands for a session's name in a log line: 12 hex digits of its SHA-256."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def start_lines(level: str, form: str, stream: TextIO) -> None:
    """Sends what this process logs to a stream, as lines.

    Args:
        level: Least that is told, of LEVELS.
        form: Of FORMATS; `auto` is `human` on a terminal, else `json`.
    """
    handler = logging.StreamHandler(stream)
    human = form == "human" or (form == "auto" and stream.isatty())
    handler.setFormatter(HumanLines() if human else JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        line: dict[str, object] = {"time": f"{stamp}.{milliseconds:03}Z", "level": record.levelname.lower()}
        event = getattr(record, "event", None)
        if event is not None:
            line |= {"event": event, **getattr(record, "fields", {})}
        elif record.name.partition(".")[0] == _PACKAGE:
            line |= {"event": "message", "logger": record.name, "message": record.getMessage()}
        else:
            line |= {"event": "library", "logger": record.name, "place": f"{record.module}:{record.lineno}"}
        if record.exc_info and record.exc_info[0] is not None:
            line |= {"error": record.exc_info[0].__name__, "places": _places(record.exc_info[2])}
        return json.dumps(line)


class HumanLines(logging.Formatter):
    """Words, with tracebacks in full: for whoever sits at the terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")


def _words(event: str, fields: dict[str, Value]) -> str:
    return " ".join((event, *(f"{name}={value}" for name, value in fields.items())))


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_FRAMES_MAX:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
