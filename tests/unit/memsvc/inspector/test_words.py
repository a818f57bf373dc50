"""Text that a page shows, whatever a session brought."""

import unicodedata

import pytest

from memsvc.inspector import words
from memsvc.inspector.shapes import Passage, Token


@pytest.mark.parametrize(
    "hostile", ["\0", "\x1b[31m", "a\u202eb", "\u2066x", "\ud800", "\u2028", "\x7f", "\x85", "\ufeff"]
)
def test_controls_and_direction_marks_are_shown_as_signs(hostile: str) -> None:
    """Proves that nothing is left that a terminal or a line of text would obey."""
    shown = words.shown(hostile)
    assert all(unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in shown)
    assert shown


def test_a_line_without_end_is_cut() -> None:
    """Proves the limit on a piece of text, and that a piece at the limit is whole."""
    most = words.TEXT_CHARACTERS_MAX
    assert words.shown("x" * most) == "x" * most
    assert words.shown("x" * 1_000_000) == "x" * most + "\u2026"
    assert words.shown_lines("x" * 1_000_000) == "x" * most + "\u2026"


def test_a_passage_is_text_that_goes_on_between_its_marks() -> None:
    """Proves that unmarked text is one run, a marked token its own, and an id never part of text."""
    tokens = [Token(4, 1, "a "), Token(5, 2, "b"), Token(6, 3, " c"), Token(7, 4, None), Token(8, 5, "d")]
    assert [(run.words, run.is_id, run.marked) for run in words.runs(Passage(4, 5, tokens), [5])] == [
        ("a ", False, False),
        ("b", False, True),
        (" c", False, False),
        ("4", True, False),
        ("d", False, False),
    ]


def test_a_mark_covers_a_word_and_not_the_space_before_it() -> None:
    """Proves that a marked token of space alone is seen, and that empty lines take no room."""
    tokens = [Token(0, 1, "a"), Token(1, 2, " b"), Token(2, 3, "\n\n \nc"), Token(3, 4, "\n")]
    found = [(run.words, run.marked) for run in words.runs(Passage(0, 4, tokens), [1, 3])]
    assert found == [("a ", False), ("b", True), ("\nc", False), ("\u2423", True)]


@pytest.mark.parametrize(
    ("value", "short"), [(0, "0"), (9_999, "9,999"), (12_800, "12.8K"), (100_000, "100K"), (2_000_000, "2M")]
)
def test_numbers_are_short_and_right(value: int, short: str) -> None:
    """Proves that rounding keeps the size of a number."""
    assert words.short(value) == short


def test_sizes_name_their_unit() -> None:
    """Proves bytes, and a size past the largest unit."""
    assert [words.size(value) for value in (5, 2048, 3 << 20, 1 << 50)] == ["5 B", "2.0 KiB", "3.0 MiB", "1024.0 TiB"]
