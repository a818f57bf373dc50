"""The table of figures: rows are merged, misses show first, and the README holds what the file holds."""

import dataclasses
import json
import subprocess
import threading
from pathlib import Path

import pytest

from benchmarks import summary
from benchmarks.summary import Row

ANSWERS = Row(3, "answers with memory, of 40", 37, "at least 36", True, "make eval-small", seeds=[1, 2])
CONTROL = Row(3, "answers without memory, of 40", 5, "at most 4", False, "make eval-small", seeds=[1, 2])


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    _git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_row_has_exactly_the_agreed_fields(repository: Path) -> None:
    """Proves that the file is a list of rows with nine fields, which what was recorded fills."""
    summary.record([dataclasses.replace(ANSWERS, device="one GPU")], root=repository)
    rows = json.loads(summary.summary_path(repository).read_text())
    assert rows == [
        {
            "issue": 3,
            "name": "answers with memory, of 40",
            "value": 37,
            "goal": "at least 36",
            "holds": True,
            "command": "make eval-small",
            "device": "one GPU",
            "commit": summary.commit_of(repository),
            "seeds": [1, 2],
        }
    ]


def test_recording_replaces_the_same_figure_and_keeps_the_others(tmp_path: Path) -> None:
    """Proves that rows are keyed by issue and name, and that another issue's figure of the same name is another."""
    summary.record([ANSWERS, CONTROL], root=tmp_path)
    again = dataclasses.replace(ANSWERS, value=20, holds=False)
    other = Row(1, ANSWERS.name, 1, "exactly 1", True, "x")
    summary.record([again, other], root=tmp_path)
    found = [(row.issue, row.name, row.value, row.holds) for row in summary.read(tmp_path)]
    assert found == [(1, ANSWERS.name, 1, True), (3, ANSWERS.name, 20, False), (3, CONTROL.name, 5, False)]


def test_writers_at_the_same_time_lose_no_row(tmp_path: Path) -> None:
    """Proves that concurrent recordings take turns: every row is there afterwards, and no temporary file."""
    rows = [Row(3, f"figure {i}", i, "at least 0", True, "x") for i in range(8)]
    threads = [threading.Thread(target=summary.record, args=([row], tmp_path)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(summary.read(tmp_path)) == len(rows)
    assert [path.name for path in (tmp_path / summary.RESULTS).iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    ("value", "goal", "holds"),
    [
        (36, "at least 36", True),
        (35.9, "at least 36", False),
        (4, "at most 4", True),
        (5, "at most 4", False),
        (0, "exactly 0", True),
        (1, "exactly 0", False),
    ],
)
def test_holds_has_to_follow_from_value_and_goal(value: float, goal: str, holds: bool) -> None:
    """Proves each comparison at its bound and past it, and that a false claim is refused."""
    assert Row(3, "f", value, goal, holds, "x").holds is holds
    with pytest.raises(ValueError, match=f"holds: expected what follows from {value} and '{goal}', got {not holds}"):
        Row(3, "f", value, goal, not holds, "x")


@pytest.mark.parametrize(
    ("value", "goal", "name", "told"),
    [
        (1, "36", "f", "goal: expected 'at least', 'at most' or 'exactly' and a number, got '36'"),
        (1, "over 36", "f", "goal: expected 'at least', 'at most' or 'exactly' and a number, got 'over 36'"),
        (float("nan"), "at least 1", "f", "value: expected a finite number, got nan"),
        (1, "at least 1", "", "expected a name and a command, got '' and 'x'"),
    ],
)
def test_a_figure_that_cannot_be_judged_is_refused(value: float, goal: str, name: str, told: str) -> None:
    """Proves that a goal, a value or a name of the wrong kind is refused in one line."""
    with pytest.raises(ValueError) as refused:
        Row(3, name, value, goal, True, "x")
    assert str(refused.value) == told


def test_a_row_with_another_field_is_refused(tmp_path: Path) -> None:
    """Proves that a file someone edited is noticed when it is read."""
    summary.record([ANSWERS], root=tmp_path)
    path = summary.summary_path(tmp_path)
    path.write_text(path.read_text().replace('"device"', '"machine"'))
    with pytest.raises(ValueError, match="expected rows of issue, name, value, goal, holds"):
        summary.read(tmp_path)


def test_the_commit_says_when_the_tree_is_dirty(repository: Path) -> None:
    """Proves that changed code marks the commit, while recorded figures and the README do not."""
    summary.record([ANSWERS], root=repository)
    (repository / "README.md").write_text("figures\n")
    clean = summary.commit_of(repository)
    assert len(clean) == 12
    (repository / "code.py").write_text("x = 2\n")
    assert summary.commit_of(repository) == f"{clean}-dirty"


def test_no_commit_is_said_in_a_word(tmp_path: Path) -> None:
    """Proves that a folder without a commit is named as such, and never as the commit of a folder around it."""
    _git(tmp_path, "init", "-q")
    assert summary.commit_of(tmp_path) == summary.UNCOMMITTED


@pytest.mark.parametrize("text", [None, "", "[]\n"])
def test_an_empty_file_is_no_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None) -> None:
    """Proves that an absent, empty or bare file prints one sentence."""
    path = summary.summary_path(tmp_path)
    path.parent.mkdir(parents=True)
    if text is not None:
        path.write_text(text)
    summary.main([], root=tmp_path)
    assert capsys.readouterr().out == "No figure has been recorded yet.\n"


def test_the_table_shows_misses_first_in_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that what does not hold heads the table, and that columns begin at the same place in each line."""
    summary.record([ANSWERS, CONTROL], root=tmp_path)
    summary.main([], root=tmp_path)
    heads, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("MISS ")
    assert second.startswith("yes ")
    assert CONTROL.name in first
    assert heads.index("goal") == first.index("at most 4") == second.index("at least 36")


def test_the_readme_holds_the_figures_between_its_markers(tmp_path: Path) -> None:
    """Proves that publishing replaces the old table and nothing around it, and that doing it twice changes nothing."""
    summary.record([dataclasses.replace(CONTROL, device="cpu | 2 cores")], root=tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{summary.README_BEGIN}\n\nbygone\n\n{summary.README_END}\n\nafter\n")
    summary.main(["--readme"], root=tmp_path)
    once = readme.read_text()
    assert "bygone" not in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "| answers without memory, of 40 | 5 | at most 4 | **no** | cpu \\| 2 cores | uncommitted |" in once
    summary.main(["--readme"], root=tmp_path)
    assert readme.read_text() == once


def test_a_readme_without_markers_is_refused() -> None:
    """Proves that figures are never written to a guessed place."""
    with pytest.raises(ValueError, match="expected one line"):
        summary.with_figures("no markers here\n", [])
