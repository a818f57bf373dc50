"""Log lines: one an event, with what may be told and nothing else."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from memsvc.lines import HumanLines, JsonLines, emit, session_tag

SECRET = "canary-6f1d"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the loggers `memsvc.test` and `elsewhere` write as JSON lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger("memsvc.test"), logging.getLogger("elsewhere")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield stream
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _broken() -> None:
    raise ValueError(SECRET)


def test_an_event_is_one_line_with_its_fields(written: io.StringIO) -> None:
    """Proves form and order of a line: time in UTC, level, event, then the fields."""
    emit(logging.getLogger("memsvc.test"), logging.INFO, "call", method="A/B", code="OK", seconds=0.5)
    (line,) = _lines(written)
    assert list(line) == ["time", "level", "event", "method", "code", "seconds"]
    assert {key: line[key] for key in list(line)[1:]} == {
        "level": "info",
        "event": "call",
        "method": "A/B",
        "code": "OK",
        "seconds": 0.5,
    }
    assert line["time"].endswith("Z")
    assert len(line["time"]) == len("2026-01-31T12:00:00.000Z")


def test_a_field_that_may_not_be_told_is_refused() -> None:
    """Proves that a payload has no field to be in."""
    with pytest.raises(ValueError, match=r"expected fields of memsvc\.lines\.FIELDS, got payload, token_ids"):
        emit(logging.getLogger("memsvc.test"), logging.INFO, "call", token_ids=SECRET, payload=SECRET)


def test_an_exception_is_told_by_type_and_places_alone(written: io.StringIO) -> None:
    """Proves that an error's text stays out of the line, and that the line shows where it came from."""
    try:
        _broken()
    except ValueError as error:
        emit(logging.getLogger("memsvc.test"), logging.ERROR, "http_failed", error)
        logging.getLogger("memsvc.test").error("look failed, log id %s", "1a", exc_info=error)
    assert SECRET not in written.getvalue()
    for line in _lines(written):
        assert line["error"] == "ValueError"
        assert line["places"][-1].startswith("test_lines.py:")
        assert line["places"][-1].endswith(" _broken")
    assert _lines(written)[1]["message"] == "look failed, log id 1a"


def test_what_a_library_says_is_not_repeated(written: io.StringIO) -> None:
    """Proves that a line of another package names who spoke and from where, not what it said."""
    logging.getLogger("elsewhere").error(f"task failed: {SECRET}")
    logging.getLogger("elsewhere").error("task failed: %s", SECRET)
    assert SECRET not in written.getvalue()
    for line in _lines(written):
        assert (line["event"], line["logger"], line["place"].split(":")[0]) == ("library", "elsewhere", "test_lines")


def test_a_line_break_in_a_field_does_not_make_a_second_line(written: io.StringIO) -> None:
    """Proves that nobody can forge a line."""
    emit(logging.getLogger("memsvc.test"), logging.INFO, "not_ready", problem='x\n{"event": "call"}')
    assert len(_lines(written)) == 1


def test_a_session_is_named_by_a_tag_that_does_not_tell_its_name() -> None:
    """Proves that a tag is 12 hex digits, the same for the same name, and another for another."""
    assert session_tag("test") == "9f86d081884c"
    assert session_tag("test2") != session_tag("test")


def test_a_person_reads_words_and_the_whole_traceback() -> None:
    """Proves the form for a terminal: time of day, level, event and fields, and what was raised."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanLines())
    logger = logging.Logger("memsvc.person")
    logger.addHandler(handler)
    try:
        _broken()
    except ValueError:
        logger.log(logging.ERROR, "%s", "call code=INTERNAL", exc_info=sys.exc_info())
    first, *rest = stream.getvalue().splitlines()
    assert first[8:] == " ERROR   call code=INTERNAL"
    assert rest[-1] == f"ValueError: {SECRET}"
