"""The examples do what they say, with the real model."""

import subprocess
import sys

import pytest

from tests.repo.sources import ROOT


def _says(script: str) -> str:
    done = subprocess.run(
        [sys.executable, f"examples/{script}.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.model
@pytest.mark.timeout(600)
def test_a_long_document_is_asked_and_recalls_are_told() -> None:
    """Proves that the streamed answer comes from a passage that the model cannot see."""
    said = _says("ask_long_document")
    assert "4971" in said
    assert "[recalled: " in said


@pytest.mark.model
@pytest.mark.timeout(600)
def test_two_workers_share_one_memory() -> None:
    """Proves that a worker answers from what another one read, and that a fork leaves it as it was."""
    lines = _says("share_memory").splitlines()
    assert [("Marmalade" in line) for line in lines] == [False, True, True, True]
    _, view, fork, after = (int(line.rpartition(" at ")[2].replace(",", "")) for line in lines)
    # A writer reads the answer's last token too, and a view has no need to.
    assert (fork, after) == (view + 1, view)


@pytest.mark.model
@pytest.mark.timeout(600)
def test_a_model_goes_on_while_its_memory_is_killed() -> None:
    """Proves that an outage costs recall and nothing else: what was saved is there when the server is back."""
    killed, back = _says("survive_outage").splitlines()
    assert "degraded" in killed
    assert "plum dumplings" not in killed
    assert "plum dumplings" in back
    assert "degraded" not in back
