"""The committed figures have the agreed form, and the README shows the same ones."""

import json
import re

from benchmarks import summary
from tests.repo.sources import ROOT

COMMIT = re.compile(r"[0-9a-f]{12}(-dirty)?|" + summary.UNCOMMITTED)


def test_every_figure_has_the_agreed_form() -> None:
    """Proves that each row has the nine fields, each of its type, in order without repeats, and that no
    verdict differs from what value and goal say (a row that claims otherwise cannot be read)."""
    rows = summary.read()
    keys = [(row.issue, row.name) for row in rows]
    assert keys == sorted(set(keys))
    for row in rows:
        assert type(row.issue) is int, row
        assert row.issue >= 1, row
        assert type(row.value) in (int, float), row
        assert all(type(seed) is int for seed in row.seeds), row
        assert all(isinstance(text, str) and text for text in (row.name, row.goal, row.command, row.device)), row
        assert COMMIT.fullmatch(row.commit), row


def test_the_file_is_as_the_benchmarks_write_it() -> None:
    """Proves that nobody laid the file out by hand: it is the text that recording gives."""
    text = summary.summary_path().read_text()
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def test_the_readme_shows_the_recorded_figures() -> None:
    """Proves that the README's table is the file's; `python -m benchmarks.summary --readme` makes it so."""
    readme = (ROOT / "README.md").read_text()
    assert summary.with_figures(readme, summary.read()) == readme
