"""docs/OPERATIONS.md and what there is to operate say the same."""

import re
from pathlib import Path

from memsvc.doctor import folder_checks, machine_checks
from memsvc.lines import FORMATS, LEVELS
from memsvc.metrics.catalogue import METRICS, PROCESS_METRICS
from tests.repo.sources import ROOT, python

TEXT = (ROOT / "docs" / "OPERATIONS.md").read_text()
METRIC_ROW = re.compile(r"^\| `(memsvc_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
EVENT_ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| [^|]*(?:info|error|warning|own|`call`)[^|]* \|", re.MULTILINE)


def _table_of_metrics() -> dict[str, tuple[str, tuple[str, ...]]]:
    return {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in METRIC_ROW.findall(TEXT)}


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    """Proves that the table of metrics is the catalogue: names, kinds and labels."""
    assert _table_of_metrics() == {own.name: (own.kind, own.labels) for own in (*METRICS, *PROCESS_METRICS)}


def test_every_metric_that_the_text_names_exists() -> None:
    """Proves that prose and alarms name no metric that was never there."""
    assert set(re.findall(r"memsvc_\w+", TEXT)) == {own.name for own in (*METRICS, *PROCESS_METRICS)}


def test_every_value_of_a_label_that_is_known_is_documented() -> None:
    """Proves that states, outcomes and paths stand in the row of their metric."""
    for own in METRICS:
        (row,) = (line for line in TEXT.splitlines() if line.startswith(f"| `{own.name}` "))
        assert [value for value in own.values if f"`{value}`" not in row] == [], own.name


def test_every_check_of_the_doctor_is_documented(tmp_path: Path) -> None:
    """Proves that the table of checks has each one that a folder and its machine get."""
    made = {check.name for check in (*machine_checks(), *folder_checks(tmp_path / "none", "redis://127.0.0.1:1/0"))}
    told = set(re.findall(r"^\| ([a-z ]+) \| (?:both|`--data`) \|", TEXT, re.MULTILINE))
    assert made == told


def test_every_event_that_is_logged_is_documented() -> None:
    """Proves that the table of events has each name that the server emits, levels and formats as well."""
    emitted = {
        event
        for source in python(("memsvc",))
        for event in re.findall(r'emit\(\s*_LOGGER,\s*[\w.]+,\s*"(\w+)"', source.text)
    }
    told = {event for row in EVENT_ROW.findall(TEXT) for event in re.findall(r"`(\w+)`", row)}
    assert emitted <= told
    assert [word for word in (*LEVELS, *FORMATS) if f"`{word}`" not in TEXT] == []
