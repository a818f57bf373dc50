"""The table of figures: benchmarks/results/summary.json, which benchmarks write and nobody edits.

The file is a JSON list with one row a figure, in order of (issue, name), each with exactly the fields of `Row`.

Invariants:
    A figure is named by (issue, name); recording it again replaces its row and no other.
    `holds` follows from `value` and `goal`: a row that claims otherwise cannot be made, nor read.
    The file is whole at any time: it is replaced by a rename, by one process at a time.
"""

import argparse
import dataclasses
import fcntl
import json
import math
import operator
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("benchmarks/results")
README_BEGIN = "<!-- figures: begin (written by `python -m benchmarks.summary --readme`) -->"
README_END = "<!-- figures: end -->"
# What stands for a commit where the folder has none.
UNCOMMITTED = "uncommitted"

_COMPARISONS = {"at least": operator.ge, "at most": operator.le, "exactly": operator.eq}
_GOAL = re.compile(r"(at least|at most|exactly) (-?\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what was measured, what it had to be, where, and of which commit.

    Args:
        issue: Number of the issue that asks for it.
        name: What was measured, with its unit.
        goal: "at least 36", "at most 4" or "exactly 0": what `value` has to be.
        holds: Whether it is.
        command: Run from the repository's root, this measures it again.
        device: Filled in when it is recorded, unless it is named.
        commit: Filled in when it is recorded.
        seeds: All that were used; empty if nothing was random.

    Raises:
        ValueError: A goal that is no comparison with a number, a value that is none, a verdict that does not follow
            from the two, an empty name or command.
    """

    issue: int
    name: str
    value: float
    goal: str
    holds: bool
    command: str
    device: str = ""
    commit: str = ""
    seeds: Sequence[int] = ()

    def __post_init__(self) -> None:
        goal = _GOAL.fullmatch(self.goal)
        if goal is None:
            raise ValueError(f"goal: expected 'at least', 'at most' or 'exactly' and a number, got {self.goal!r}")
        if not math.isfinite(self.value):
            raise ValueError(f"value: expected a finite number, got {self.value!r}")
        if self.holds is not bool(_COMPARISONS[goal[1]](self.value, float(goal[2]))):
            raise ValueError(f"holds: expected what follows from {self.value} and {self.goal!r}, got {self.holds!r}")
        if not self.name or not self.command:
            raise ValueError(f"expected a name and a command, got {self.name!r} and {self.command!r}")


def record(measured: Sequence[Row], root: Path = ROOT) -> None:
    """Merge rows into the file, in place of those with the same issue and name.

    Args:
        measured: Rows without a device were measured on this machine's CPU.
        root: Of the repository whose file and commit are meant.

    Durability: a crash leaves the old file or the new one, whole.
    Concurrency: processes take turns.
    """
    device, commit = cpu_name(), commit_of(root)
    folder = root / RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    with _turn(folder):
        rows = {(row.issue, row.name): row for row in read(root)}
        for row in measured:
            rows[row.issue, row.name] = dataclasses.replace(row, device=row.device or device, commit=commit)
        listed = [dataclasses.asdict(rows[key]) for key in sorted(rows)]
        _replace(summary_path(root), json.dumps(listed, indent=2, ensure_ascii=False) + "\n")


def read(root: Path = ROOT) -> list[Row]:
    """Rows of the file in order of (issue, name); none if it is absent or empty.

    Raises:
        ValueError: A row with other fields than `Row`'s, or one that cannot be (see there).
    """
    path = summary_path(root)
    text = path.read_text() if path.is_file() else ""
    rows = []
    for row in json.loads(text or "[]"):
        names = [field.name for field in dataclasses.fields(Row)]
        if not isinstance(row, dict) or sorted(row) != sorted(names):
            raise ValueError(f"{path.name}: expected rows of {', '.join(names)}, got {row!r}")
        rows.append(Row(**row))
    return rows


def summary_path(root: Path = ROOT) -> Path:
    """The file, of the repository at `root`."""
    return root / RESULTS / "summary.json"


def cpu_name() -> str:
    """This machine's CPU: its model and the cores that this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{named.group(1).strip() if named else platform.machine()}, {cores} cores"


def gpu_name() -> str:
    """This machine's first CUDA device, for figures measured on it."""
    # Only benchmarks that use torch already come here.
    import torch

    return torch.cuda.get_device_name(0)


def commit_of(root: Path = ROOT) -> str:
    """The commit checked out, 12 digits, with "-dirty" if anything but the results and the README differs from it."""
    head = _git(root, "rev-parse", "--verify", "--short=12", "HEAD")
    if not head:
        return UNCOMMITTED
    # Both change by recording and publishing figures.
    changed = _git(root, "status", "--porcelain", "--", ".", f":(exclude){RESULTS}", ":(exclude)README.md")
    return f"{head}-dirty" if changed else head


def table(rows: Sequence[Row]) -> str:
    """All rows as aligned text, misses first."""
    heads = ("holds", "issue", "name", "value", "goal", "device", "commit", "seeds", "command")
    lines = [heads]
    for row in sorted(rows, key=lambda row: (row.holds, row.issue, row.name)):
        seeds = " ".join(str(seed) for seed in row.seeds) or "-"
        holds = "yes" if row.holds else "MISS"
        measured = (row.name, _number(row.value), row.goal, row.device, row.commit)
        lines.append((holds, str(row.issue), *measured, seeds, row.command))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """All rows as the README's table, misses first; one sentence if there are none."""
    if not rows:
        return "No figure has been recorded yet."
    lines = ["| figure | value | goal | holds | hardware | commit |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row.holds, row.issue, row.name)):
        holds = "yes" if row.holds else "**no**"
        cells = (row.name, _number(row.value), row.goal, holds, row.device, row.commit)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def with_figures(readme: str, rows: Sequence[Row]) -> str:
    """The README's text with what stands between its markers replaced by the rows' table.

    Raises:
        ValueError: Not exactly one pair of markers.
    """
    if readme.count(README_BEGIN) != 1 or readme.count(README_END) != 1:
        raise ValueError(f"README.md: expected one line {README_BEGIN!r} and one {README_END!r}")
    before, rest = readme.split(README_BEGIN)
    after = rest.split(README_END)[1]
    return f"{before}{README_BEGIN}\n\n{markdown(rows)}\n\n{README_END}{after}"


def main(arguments: Sequence[str], root: Path = ROOT) -> None:
    """Print the figures, or write them into the README."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summary", description="Every figure, misses first.")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md instead")
    rows = read(root)
    if parser.parse_args(arguments).readme:
        readme = root / "README.md"
        _replace(readme, with_figures(readme.read_text(), rows))
    else:
        print(table(rows) if rows else markdown(rows))


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _git(root: Path, *arguments: str) -> str:
    """What git prints; nothing where it fails: no repository, no commit, or no git."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that no other process's rows are lost between reading and writing."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    mode = path.stat().st_mode if path.exists() else 0o644
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, mode & 0o777)
    os.replace(file.name, path)


if __name__ == "__main__":
    main(sys.argv[1:])
