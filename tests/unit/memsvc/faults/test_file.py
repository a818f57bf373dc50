"""The file that a server's rules are in."""

from pathlib import Path

import pytest

from memsvc.errors import InvalidRequest
from memsvc.faults import faults_of


def test_without_a_file_there_are_no_rules() -> None:
    """Proves that faults are off unless asked for."""
    assert faults_of(None) is None


def test_a_file_may_name_calls_and_the_disk(tmp_path: Path) -> None:
    """Proves that a server takes all places."""
    file = tmp_path / "faults.json"
    file.write_text(
        '{"seed": 4, "rules": [{"place": "GetBlocks", "kind": "drop"}, {"place": "disk.sync", "kind": "error"}]}'
    )
    faults = faults_of(file)
    assert faults is not None
    assert (faults.plan.seed, len(faults.plan.rules)) == (4, 2)


@pytest.mark.parametrize(("text", "says"), [(None, "No such file"), ("[]", "the whole"), ('{"seed": "x"}', "seed")])
def test_a_file_that_does_not_hold_is_an_invalid_setting(tmp_path: Path, text: str | None, says: str) -> None:
    """Proves that the one line names file and field."""
    file = tmp_path / "faults.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidRequest, match=rf"^faults: [^\n]*{says}[^\n]*$") as raised:
        faults_of(file)
    assert raised.value.reason == "INVALID_SETTING"
    assert str(file) in str(raised.value)
